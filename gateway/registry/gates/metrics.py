"""Figures of quality as sums over rows, so that data of any length is counted in little memory. Pure.

Each metric adds up a few terms for each block of rows and turns sums into its figure; sums of any selection of blocks
turn into a figure too, which is what intervals are drawn from (``gateway.registry.gates.intervals``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gateway.errors import InvalidRegistration
from gateway.messages import Array

__all__ = ["METRICS", "Answers", "Counted", "Metric"]

MOST_CLASSES = 64
SCORE_BINS = 256
_TINY = 1e-15
_ROUNDED = 1e-5
_SUMS_TO_ONE = 1e-2


@dataclass(frozen=True, slots=True)
class Answers:
    """Some rows: the truth and what a version said, both numbers or both text. ``score``: probabilities ``[rows]`` of
    ``positive``, or ``[rows, classes]``; ``truth_at``: the place of the truth among its columns."""

    truth: Array
    predicted: Array
    positive: Any
    score: Array | None = None
    truth_at: Array | None = None

    @property
    def right(self) -> Array:
        return np.asarray(self.truth == self.predicted)


class Counted(Protocol):
    """One version's figure, as its rows come in. ``sums``: ``[blocks, terms]``."""

    @property
    def sums(self) -> Array: ...

    def add(self, blocks: Array, rows: Answers) -> None: ...

    def value(self, sums: Array) -> Array: ...


@dataclass(frozen=True, slots=True)
class Metric:
    """``proportion``: its sums are rows and, of them, hits. ``scored``: it needs probabilities. ``rests_on``: of all
    sums added up, the rows that the figure is made of: of recall, those that should be found."""

    count: Callable[[int], Counted]
    higher_is_better: bool = True
    proportion: bool = False
    scored: bool = False
    rests_on: Callable[[Array], float] = lambda total: float(total[0])


@dataclass(slots=True)
class _Dense:
    """Terms ``[rows, terms]`` computed at once, and a figure of their sums."""

    terms: Callable[[Answers], Array]
    figure: Callable[[Array], Array]
    sums: Array

    def add(self, blocks: Array, rows: Answers) -> None:
        for column, values in enumerate(self.terms(rows).T):
            self.sums[:, column] += np.bincount(blocks, weights=values, minlength=len(self.sums))

    def value(self, sums: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.figure(sums)


def _dense(
    terms: Callable[[Answers], tuple[Any, ...]], figure: Callable[[Array], Array], width: int
) -> Callable[[int], Counted]:
    def stacked(rows: Answers) -> Array:
        ones = np.ones(len(rows.truth))
        return np.stack([ones * np.asarray(term, dtype=np.float64) for term in terms(rows)], axis=1)

    return lambda blocks: _Dense(stacked, figure, np.zeros((blocks, width)))


@dataclass(slots=True)
class _Classes:
    """Of each class of the truth: rows, rows said to be it, and rows of both."""

    figure: Callable[[Array, Array, Array], Array]
    sums: Array
    known: dict[Any, int] = field(default_factory=dict)

    def add(self, blocks: Array, rows: Answers) -> None:
        truth, said = self._places(rows.truth), self._places(rows.predicted)
        wide = self.sums.shape[1]
        for offset, places in ((0, truth), (1, said), (2, truth[truth == said])):
            own = blocks if offset < 2 else blocks[truth == said]
            counted = np.bincount(own * wide + places * 3 + offset, minlength=self.sums.size)
            self.sums += counted.reshape(self.sums.shape)

    def value(self, sums: Array) -> Array:
        held = sums.reshape(*sums.shape[:-1], MOST_CLASSES, 3)[..., : max(1, len(self.known)), :]
        with np.errstate(divide="ignore", invalid="ignore"):
            each = self.figure(held[..., 0], held[..., 1], held[..., 2])
            return np.asarray(np.nanmean(np.where(held[..., 0] > 0, each, np.nan), axis=-1))

    def _places(self, values: Array) -> Array:
        names, places = np.unique(values, return_inverse=True)
        for name in names.tolist():
            self.known.setdefault(name, len(self.known))
        if len(self.known) > MOST_CLASSES:
            raise InvalidRegistration(
                f"the truth and the answers have more than {MOST_CLASSES} classes; take accuracy, or mae for numbers"
            )
        return np.array([self.known[name] for name in names.tolist()], dtype=np.int64)[places]


@dataclass(slots=True)
class _RankArea:
    """The area under the ROC curve, of scores in bins: the edges are those of the first rows, so that equal numbers of
    rows lie between two. Rows of one bin count as ties; with fewer different scores than bins nothing is lost."""

    sums: Array
    edges: Array | None = None

    def add(self, blocks: Array, rows: Answers) -> None:
        score = _one_score(rows)
        if not np.isfinite(score).all():  # sorted behind all numbers, it would count as the highest
            raise InvalidRegistration(f"{np.count_nonzero(~np.isfinite(score))} scores are no numbers (NaN, infinite)")
        if self.edges is None:
            different = np.unique(score)
            if len(different) > SCORE_BINS - 2:
                different = np.unique(np.quantile(different, np.linspace(0, 1, SCORE_BINS - 2)))
            self.edges = different
        places = np.searchsorted(self.edges, score, side="right") * 2 + (rows.truth == rows.positive)
        wide = self.sums.shape[1]
        self.sums += np.bincount(blocks * wide + places, minlength=self.sums.size).reshape(self.sums.shape)

    def value(self, sums: Array) -> Array:
        held = sums.reshape(*sums.shape[:-1], SCORE_BINS, 2)
        negative, positive = held[..., 0], held[..., 1]
        below = np.cumsum(negative, axis=-1) - negative
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs = negative.sum(axis=-1) * positive.sum(axis=-1)
            return np.asarray((positive * (below + negative / 2)).sum(axis=-1) / pairs)


def _one_score(rows: Answers) -> Array:
    if rows.score is None or rows.score.ndim != 1:
        raise InvalidRegistration("the metric needs one probability a row; name the output with it under score")
    return rows.score


def _probabilities(score: Array) -> Array:
    """In doubles: 1 less a trillionth is 1 in singles, and its loss without end. A score that is no probability would
    be clipped to a loss that it has not."""
    score = score.astype(np.float64)
    wrong = ~((score >= -_ROUNDED) & (score <= 1 + _ROUNDED))
    if wrong.any():
        raise InvalidRegistration(f"a score is {score[wrong][0]}; the metric needs probabilities, from 0 to 1")
    return score


def _confusion(rows: Answers) -> tuple[Any, ...]:
    true, said = rows.truth == rows.positive, rows.predicted == rows.positive
    return true & said, ~true & said, true & ~said, ~true & ~said


def _difference(rows: Answers) -> Array:
    if rows.truth.dtype.kind not in "biuf" or rows.predicted.dtype.kind not in "biuf":
        raise InvalidRegistration("the metric is one of numbers, and the truth or the answers are text; take accuracy")
    return np.asarray(rows.predicted.astype(np.float64) - rows.truth.astype(np.float64))


def _errors(rows: Answers) -> tuple[Any, ...]:
    off, truth = _difference(rows), rows.truth.astype(np.float64)
    return 1.0, off * off, truth, truth * truth


def _log_loss(rows: Answers) -> tuple[Any, ...]:
    if rows.score is None:
        raise InvalidRegistration("log_loss needs probabilities; name the output with them under score")
    if rows.score.ndim == 1:
        score = np.clip(_probabilities(rows.score), _TINY, 1 - _TINY)
        return 1.0, -np.log(np.where(rows.truth == rows.positive, score, 1 - score))
    if rows.truth_at is None:
        raise InvalidRegistration("log_loss of several classes needs them in the order of the output, under classes")
    score = _probabilities(rows.score)
    if np.any((rows.truth_at < 0) | (rows.truth_at >= score.shape[1])):
        raise InvalidRegistration(f"the truth has a class that is none of the output's {score.shape[1]}; name classes")
    if np.any(np.abs(score.sum(axis=1) - 1) > _SUMS_TO_ONE):
        raise InvalidRegistration("probabilities of a row do not add up to 1; name the output with them under score")
    own = score[np.arange(len(score)), rows.truth_at]
    return 1.0, -np.log(np.clip(own, _TINY, 1.0))


def _brier(rows: Answers) -> tuple[Any, ...]:
    off = _probabilities(_one_score(rows)) - (rows.truth == rows.positive)
    return 1.0, off * off


def _mean(sums: Array) -> Array:
    return np.asarray(sums[..., 1] / sums[..., 0])


def _share(part: int, *whole: int) -> Callable[[Array], Array]:
    return lambda sums: np.asarray(sums[..., part] / sums[..., list(whole)].sum(axis=-1))


def _f1(sums: Array) -> Array:
    return np.asarray(2 * sums[..., 0] / (2 * sums[..., 0] + sums[..., 1] + sums[..., 2]))


def _r2(sums: Array) -> Array:
    spread = sums[..., 3] - sums[..., 2] ** 2 / sums[..., 0]
    return np.asarray(1 - sums[..., 1] / spread)


def _of(*terms: int) -> Callable[[Array], float]:
    return lambda total: float(total[list(terms)].sum())


def _by_class(figure: Callable[[Array, Array, Array], Array]) -> Callable[[int], Counted]:
    return lambda blocks: _Classes(figure, np.zeros((blocks, MOST_CLASSES * 3)))


def _truths(total: Array) -> float:
    return float(total[0::3].sum())


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(_dense(lambda rows: (1.0, rows.right), _mean, 2), proportion=True),
    "error_rate": Metric(_dense(lambda rows: (1.0, ~rows.right), _mean, 2), higher_is_better=False, proportion=True),
    "balanced_accuracy": Metric(_by_class(lambda true, _, both: both / true), rests_on=_truths),
    "macro_f1": Metric(_by_class(lambda true, said, both: 2 * both / (true + said)), rests_on=_truths),
    "precision": Metric(_dense(_confusion, _share(0, 0, 1), 4), rests_on=_of(0, 1)),
    "recall": Metric(_dense(_confusion, _share(0, 0, 2), 4), rests_on=_of(0, 2)),
    "specificity": Metric(_dense(_confusion, _share(3, 3, 1), 4), rests_on=_of(3, 1)),
    "f1": Metric(_dense(_confusion, _f1, 4), rests_on=_of(0, 1, 2)),
    "roc_auc": Metric(
        lambda blocks: _RankArea(np.zeros((blocks, SCORE_BINS * 2))),
        scored=True,
        rests_on=lambda total: float(total.reshape(-1, 2).sum(axis=0).min()),
    ),
    "log_loss": Metric(_dense(_log_loss, _mean, 2), higher_is_better=False, scored=True),
    "brier": Metric(_dense(_brier, _mean, 2), higher_is_better=False, scored=True),
    "mae": Metric(_dense(lambda rows: (1.0, np.abs(_difference(rows))), _mean, 2), higher_is_better=False),
    "mse": Metric(_dense(_errors, _mean, 4), higher_is_better=False),
    "rmse": Metric(_dense(_errors, lambda sums: np.sqrt(_mean(sums)), 4), higher_is_better=False),
    "r2": Metric(_dense(_errors, _r2, 4)),
}
