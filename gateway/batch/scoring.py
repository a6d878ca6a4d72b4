"""A batch from its first row to its receipt: read, fitted, answered, kept in parts, joined.

Memory is bounded by a few blocks of rows and one part of answers, whatever the file holds. The next block is read and
fitted in a thread while the version, in its own process, answers this one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson

from gateway.batch.columns import Fitting, places_of
from gateway.batch.engine import BatchEngine
from gateway.batch.parts import Part, Parts, sha256_of
from gateway.batch.plan import BatchPlan, format_of
from gateway.batch.reading import Block, Rows, open_rows
from gateway.batch.writing import Answers, Form, form_of, no_answers
from gateway.errors import Conflict, InvalidInput
from gateway.messages import DATATYPES, Arrays, TensorSpec
from gateway.recording.contents import digest_of
from gateway.registry.disk import explained

__all__ = ["Listener", "receipt_of", "score"]

_BLOCK_ROWS = 4096
_BLOCK_BYTES = 32 << 20
_PART_BYTES = 64 << 20


class Listener(Protocol):
    """Is told how far a batch is. ``part``: a part is on the disk; on return its records are somebody's."""

    def began(self, done: int, total: int | None, batch_rows: int) -> None: ...

    def answered(self, done: int) -> None: ...

    def part(self, part: Part) -> None: ...


class _Input(NamedTuple):
    """The file of rows as it was when the batch began."""

    size_bytes: int
    changed_ns: int
    sha256: str


class _Fitted(NamedTuple):
    block: Block
    tensors: Arrays


class _Answered(NamedTuple):
    """A batch of a block: its rows from ``start`` on, when it was asked, and the seconds that it took."""

    block: Block
    start: int
    inputs: Arrays
    outputs: Arrays
    began: float
    took_s: float

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(slots=True)
class _Growing:
    """The part that is being answered."""

    first: int
    rows: int = 0
    carried: dict[str, list[Any]] = field(default_factory=dict)
    outputs: list[Arrays] = field(default_factory=list)
    records: list[Sequence[Any]] = field(default_factory=list)

    def answers(self) -> Answers:
        names = list(self.outputs[0])
        whole = {name: np.concatenate(_even(name, [batch[name] for batch in self.outputs])) for name in names}
        return Answers(self.rows, self.carried, whole)


def receipt_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.receipt.json")


def score(plan: BatchPlan, listener: Listener, *, parts: Callable[[Path], Parts] = Parts) -> Mapping[str, Any]:
    """The receipt. One that lies there for this very output is given again, and nothing is done. ``parts``: who keeps
    them, and everybody else away.

    Raises InvalidInput (naming row and column), Conflict (the output is there, or under way), VersionFailed,
    IntegrityError, and RegistryError or StorageFull of the disk. What was finished stays for the next time.
    """
    if not plan.target.parent.is_dir():
        raise InvalidInput(f"{plan.target.parent} is no folder; make it first")
    size_bytes, changed_ns = _standing_of(plan.source)
    with explained(f"read {plan.source}"):
        source = _Input(size_bytes, changed_ns, sha256_of(plan.source))
    identity = plan.identity(source.sha256)
    done = _done(plan, identity)
    if done is not None:
        return done | {"already": True}
    with parts(plan.target) as held:
        # Again, now that nobody else can write it: another batch may have come to its end meanwhile.
        try:
            done = _done(plan, identity)
        except Conflict:
            held.drop()
            raise
        if done is not None:
            held.drop()
            return done | {"already": True}
        return _Scoring(plan, listener, held, source).run()


class _Scoring:
    def __init__(self, plan: BatchPlan, listener: Listener, parts: Parts, source: _Input) -> None:
        self._plan = plan
        self._listener = listener
        self._parts = parts
        self._source = source
        self._identity = plan.identity(source.sha256)
        self._began = time.time()
        self._done: list[Part] = []
        options, signature = plan.options, plan.signature
        sole = signature.inputs[0].name if len(signature.inputs) == 1 else None
        self._rows: Rows = open_rows(plan.source, sole_input=sole)
        places = places_of(
            signature, self._rows.names, carried=options.carried, chosen=options.columns, what=str(plan.source)
        )
        self._wanted = {name: place.spec.datatype for place in places for name in place.columns}
        self._fitting = Fitting(places, nan=options.missing == "nan", key=options.key)
        self._form: Form = form_of(format_of(plan.target), signature, options.carried)
        self._block_rows, self._part_rows = _sizes(plan)

    def run(self) -> Mapping[str, Any]:
        self._done = self._parts.found(self._identity)
        resumed = sum(part.rows for part in self._done)
        self._listener.began(resumed, self._rows.count, self._plan.batch_rows)
        for part in self._done:
            self._tell(part)
        if self._rows.count is None or resumed < self._rows.count:
            with BatchEngine(self._plan) as engine:
                self._answer(engine, resumed)
        if _standing_of(self._plan.source) != self._source[:2]:
            self._parts.drop()
            raise InvalidInput(f"{self._plan.source} was changed while it was read; run the batch again")
        return self._finish(resumed)

    def _answer(self, engine: BatchEngine, done: int) -> None:
        growing = _Growing(done)
        for block, tensors in self._ahead(done):
            for start in range(0, block.rows, self._plan.batch_rows):
                stop = min(start + self._plan.batch_rows, block.rows)
                batch = {name: array[start:stop] for name, array in tensors.items()}
                began, clock = time.time(), time.perf_counter()
                outputs = engine.answers(batch, block.first + start)
                growing.outputs.append(outputs)
                answered = _Answered(block, start, batch, outputs, began, time.perf_counter() - clock)
                growing.records += self._records(answered)
            for name, column in block.carried.items():
                growing.carried.setdefault(name, []).append(column)
            growing.rows += block.rows
            self._listener.answered(growing.first + growing.rows)
            if growing.rows >= self._part_rows:
                self._keep(growing)
                growing = _Growing(growing.first + growing.rows)
        if growing.rows:
            self._keep(growing)

    def _ahead(self, skip: int) -> Iterator[_Fitted]:
        """Blocks with their tensors, the next one always under way."""
        blocks = self._rows.blocks(self._wanted, self._plan.options.carried, rows=self._block_rows, skip=skip)

        def following() -> _Fitted | None:
            block = next(blocks, None)
            return None if block is None else _Fitted(block, self._fitting.tensors(block))

        with ThreadPoolExecutor(1, thread_name_prefix="turnout-batch-rows") as reader:
            waiting = reader.submit(following)
            while (fitted := waiting.result()) is not None:
                waiting = reader.submit(following)
                yield fitted

    def _records(self, answered: _Answered) -> list[Sequence[Any]]:
        """One for the batch, or with a key one for each of its rows: first row, rows, key, when, seconds, rows of the
        batch, digests of what was asked and answered."""
        if not self._plan.told:
            return []
        block, start, inputs, outputs, began, took_s = answered
        rows, key = answered.rows, self._plan.options.key
        if key is None:
            digests = [digest_of(_asked(side, self._plan)) for side in (inputs, outputs)]
            return [(block.first + start, rows, None, began, took_s, rows, *digests)]
        keys = block.carried_values(key)[start : start + rows]
        made: list[Sequence[Any]] = []
        for place, name in enumerate(keys):
            one = [{name: array[place : place + 1] for name, array in side.items()} for side in (inputs, outputs)]
            digests = [digest_of(_asked(side, self._plan)) for side in one]
            made.append((block.first + start + place, 1, _key_text(name), began, took_s, rows, *digests))
        return made

    def _keep(self, growing: _Growing) -> None:
        answers = growing.answers()
        part = self._parts.add(
            len(self._done), growing.first, growing.rows, lambda file: self._form.part(answers, file), growing.records
        )
        self._done.append(part)
        self._tell(part)

    def _tell(self, part: Part) -> None:
        self._listener.part(part)
        if self._plan.told and not part.told:
            self._parts.mark_told(part)

    def _finish(self, resumed: int) -> Mapping[str, Any]:
        if not self._done:
            empty = no_answers(self._plan.signature, self._plan.options.carried)
            self._done.append(self._parts.add(0, 0, 0, lambda file: self._form.part(empty, file), ()))
        rows = sum(part.rows for part in self._done)

        def receipt(sha256: str, size_bytes: int) -> dict[str, Any]:
            plan = self._plan
            return {
                "identity": self._identity,
                "version": plan.version,
                "digest": plan.digest,
                "input": {
                    "path": str(plan.source),
                    "sha256": self._source.sha256,
                    "size_bytes": self._source.size_bytes,
                },
                "output": {"path": str(plan.target), "sha256": sha256, "size_bytes": size_bytes},
                "rows": rows,
                "batch_rows": plan.batch_rows,
                "resumed_rows": resumed,
                "options": plan.to_json()["options"],
                "recorded": "decision-log" if plan.told else "receipt",
                "began_at": self._began,
                "ended_at": time.time(),
            }

        return self._parts.finish(self._done, self._form.join, receipt, receipt_of(self._plan.target))


def _done(plan: BatchPlan, identity: str) -> dict[str, Any] | None:
    """The receipt of the output that is there, if it is the one that was asked for. Conflict if it is another."""
    if not plan.target.exists():
        return None
    try:
        held = orjson.loads(receipt_of(plan.target).read_bytes())
        if held["identity"] == identity and held["output"]["sha256"] == sha256_of(plan.target):
            return dict(held)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if plan.options.overwrite:
        return None
    raise Conflict(
        f"{plan.target} is there already, and holds other answers; name another output, or allow overwriting"
    )


def _sizes(plan: BatchPlan) -> tuple[int, int]:
    """Rows of a block and of a part: whole batches, and whole blocks. They depend on the plan alone, so a batch that
    is gone on with has the bounds that it had."""
    signature, batch = plan.signature, plan.batch_rows
    in_bytes = sum(_row_bytes(spec, batched=signature.batched) for spec in signature.inputs)
    out_bytes = sum(_row_bytes(spec, batched=signature.batched) for spec in signature.outputs)
    block = max(1, min(_BLOCK_ROWS, plan.part_rows, _BLOCK_BYTES // max(1, in_bytes)) // batch) * batch
    part = max(1, min(plan.part_rows, _PART_BYTES // max(1, out_bytes)) // block) * block
    return block, part


def _row_bytes(spec: TensorSpec, *, batched: bool) -> int:
    """At least; strings and axes of any size are taken to be short."""
    axes = spec.shape[1:] if batched else spec.shape
    return math.prod(axis if isinstance(axis, int) else 16 for axis in axes) * max(8, DATATYPES[spec.datatype].itemsize)


def _asked(tensors: Arrays, plan: BatchPlan) -> Arrays:
    """As a request would hold them: without rows where the version knows none."""
    return tensors if plan.signature.batched else {name: array[0] for name, array in tensors.items()}


def _key_text(value: Any) -> str | None:
    return None if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _even(name: str, arrays: Sequence[Any]) -> Sequence[Any]:
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        raise InvalidInput(f"output {name!r} has rows of shapes {sorted(shapes)}; a file takes rows of one shape")
    return arrays


def _standing_of(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns
