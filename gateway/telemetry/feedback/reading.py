"""What an answer said, row by row, as far as its route's truth asks; and what a label says of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.events.records import Content
from gateway.messages import Array
from gateway.routing.truth import CLASSIFICATION, GRADE, Truth
from gateway.telemetry.feedback.sums import Outcome, Row

__all__ = ["MAX_ROWS", "LabelFault", "bets", "labels_of", "outcome_of", "rows_of", "score_of"]

MAX_ROWS = 10_000
"""Of one answer; a larger one is not kept."""
LARGEST = 1e100
"""Answers and labels beyond it are none: their fourth powers would take kilobytes each."""
MAX_CLASS_CHARS = 200

Label = str | float


class LabelFault(ValueError):
    """A label that does not fit its answer: what was expected, and what came."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got


def rows_of(content: Content, truth: Truth, rows: int) -> tuple[Row, ...]:
    """One for each row of the answer; none where the outputs are not what the truth says, or say no number."""
    if truth.task == GRADE:
        return tuple(Row(0.0, None, groups) for groups in _groups(content, truth, rows)) if 0 < rows <= MAX_ROWS else ()
    outputs = content.outputs or {}
    answered = outputs.get(truth.output)
    if answered is None or not 0 < rows <= MAX_ROWS or (answered.size != rows and answered.shape[:1] != (rows,)):
        return ()
    if truth.task != CLASSIFICATION:
        numbers = _numbers(answered, rows)
        return tuple(map(Row, numbers, [None] * rows, _groups(content, truth, rows))) if numbers else ()
    scores = _by_row(outputs.get(truth.score or truth.output), rows)
    answers = _classes(answered, truth, rows)
    if not answers:
        return ()
    return tuple(map(Row, answers, _scores(scores, answers, truth), _groups(content, truth, rows)))


def _numbers(array: Array, rows: int) -> list[float]:
    if array.size != rows or array.dtype.kind not in "fiu":
        return []
    found = [float(value) for value in array.reshape(rows).tolist()]
    return found if all(abs(value) <= LARGEST for value in found) else []


def _by_row(array: Array | None, rows: int) -> Array | None:
    """The scores as rows and columns; None where there are none."""
    if array is None or array.dtype.kind != "f" or not rows or array.size % rows or array.shape[:1] != (rows,):
        return None
    return array.reshape(rows, -1).astype(np.float64)


def _classes(answered: Array, truth: Truth, rows: int) -> list[str]:
    table = _by_row(answered, rows)
    if table is not None and table.shape[1] > 1:
        names = _names(truth, table.shape[1])
        return [] if np.isnan(table).any() else [names[place] for place in table.argmax(axis=1).tolist()]
    if answered.size != rows:
        return []
    values = answered.reshape(rows).tolist()
    if table is not None and truth.positive is not None and truth.score in (None, truth.output):
        other = _other(truth, truth.positive)
        return [truth.positive if value >= truth.threshold else other for value in values]
    return [_class(value) for value in values]


def _scores(table: Array | None, answers: Sequence[str], truth: Truth) -> list[float | None]:
    """P(positive), or where no class is that, the score of the answer itself."""
    if table is None:
        return [None] * len(answers)
    columns = table.shape[1]
    if columns == 1:
        found = table[:, 0].tolist()
    else:
        places = {name: place for place, name in enumerate(_names(truth, columns))}
        wanted = answers if truth.positive is None else [truth.positive] * len(answers)
        chosen = [places.get(name) for name in wanted]
        found = [None if place is None else row[place] for row, place in zip(table.tolist(), chosen, strict=True)]
    return [score if score is not None and abs(score) <= LARGEST else None for score in found]


def _names(truth: Truth, columns: int) -> Sequence[str]:
    return truth.classes if len(truth.classes) == columns else [str(place) for place in range(columns)]


def _other(truth: Truth, positive: str) -> str:
    others = [name for name in truth.classes or ("0", "1") if name != positive]
    return others[0] if len(others) == 1 else _not(positive)


def _not(positive: str) -> str:
    return f"not {positive}"


def _class(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return str(value)[:MAX_CLASS_CHARS]


def _groups(content: Content, truth: Truth, rows: int) -> list[tuple[str, ...]]:
    columns = []
    for cut in truth.slices:
        if cut.of_input:
            array = (content.inputs or {}).get(cut.field)
            fits = array is not None and array.size == rows
            values = array.reshape(rows).tolist() if array is not None and fits else [None] * rows
        else:
            values = [(content.context or {}).get(cut.field)] * rows
        columns.append([cut.group_of(value) for value in values])
    return list(zip(*columns, strict=True)) if columns else [()] * rows


def bets(row: Row, truth: Truth) -> bool:
    """Whether the answer says that what its score gives a chance for will come."""
    return truth.positive is None or row.answer == truth.positive


def labels_of(label: object, truth: Truth, rows: int) -> list[Label | None]:
    """One for each row; null says nothing of its row. Raises LabelFault."""
    several = isinstance(label, list)
    if not several and rows != 1:
        raise LabelFault(f"a list of {rows} labels, one for each row of the answer", _shown(label))
    listed = label if isinstance(label, list) else [label]
    if len(listed) != rows:
        raise LabelFault(f"{rows} labels, one for each row of the answer", f"{len(listed)} of them")
    found = [None if one is None and several else _label(one, truth) for one in listed]
    if all(one is None for one in found):
        raise LabelFault("a label for one row at least", _shown(label))
    return found


def _label(value: object, truth: Truth) -> Label:
    if truth.task == CLASSIFICATION:
        whole = isinstance(value, float) and value.is_integer()
        if isinstance(value, str | int) or whole:
            return _class(value)
        raise LabelFault("a class: text, a whole number, true or false", _shown(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LabelFault("a number", _shown(value))
    if math.isnan(value) or abs(value) > LARGEST:
        raise LabelFault(f"a number from {-LARGEST:g} to {LARGEST:g}", _shown(value))
    return float(value)


def _shown(value: object) -> str:
    return repr(value)[:60]


def outcome_of(row: Row, label: Label, truth: Truth, delay_s: float) -> Outcome:
    if isinstance(label, str):
        if truth.positive not in (None, label) and row.answer == _not(str(truth.positive)):
            label = str(row.answer)  # it says no more than that
        wrong = row.answer != label
        event = label == truth.positive if truth.positive is not None else not wrong
        return Outcome(row, label, event, wrong, delay_s)
    error = abs(float(row.answer) - label)
    return Outcome(row, label, False, truth.wrong_above is not None and error > truth.wrong_above, delay_s)


def score_of(outcomes: Sequence[Outcome], truth: Truth) -> float | None:
    """What ``truth.scored`` names, in the mean over the labelled rows of an answer; None: its rows have no scores."""
    if truth.task != CLASSIFICATION:
        answers = [0.0 if truth.task == GRADE else float(outcome.row.answer) for outcome in outcomes]
        off = [float(outcome.label) - answer for outcome, answer in zip(outcomes, answers, strict=True)]
        return math.fsum(off if truth.task == GRADE else map(abs, off)) / len(off)
    scores = [(outcome.row.score, outcome.event) for outcome in outcomes if outcome.row.score is not None]
    return math.fsum((score - event) ** 2 for score, event in scores) / len(scores) if scores else None
