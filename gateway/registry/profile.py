"""The reference profile of a version: computed once, when it is registered, and a blob like any other.

Two passes over the data: the first freezes bins and projections, the second counts the reference itself. Outputs are
the version's own answers, given in a process of its own while the first pass goes on, unless the data holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from gateway.errors import InvalidRegistration
from gateway.messages import Signature
from gateway.registry import canonical
from gateway.registry.answering import Answering, Spool
from gateway.registry.profile_data import open_reference
from gateway.registry.profile_rows import UNREADABLE, Batch, Reference
from runtimes.base import LoadSpec
from runtimes.counting_profile import Reckoning
from runtimes.counting_rows import flattened
from runtimes.counting_sketch import Sketch

__all__ = ["SEED", "compute_profile"]

SEED = 1


def compute_profile(
    path: Path,
    signature: Signature,
    spec: LoadSpec | None,
    *,
    interpreter: str | None = None,
    timeout_s: float = 120.0,
    seed: int = SEED,
) -> bytes:
    """The profile's canonical JSON: the same data, version and seed give the same bytes.

    ``spec`` None: the version is not asked, and only outputs that the data holds are counted. ``timeout_s`` bounds the
    version's loading, and each batch. InvalidRegistration for data that does not fit, TrialFailed for a version that
    does not answer it.
    """
    reference = open_reference(path, signature)
    with ExitStack() as stack:
        spool = None
        if spec is not None and not reference.answered:
            answering = stack.enter_context(Answering(spec, signature, interpreter, timeout_s))
            spool = stack.enter_context(Spool(answering, signature))
        sketch = Sketch(signature, seed=seed, names=reference.names)
        try:
            for inputs, outputs in _first(reference, spool):
                sketch.add(flattened(inputs, outputs))
            body = sketch.frozen()
            reckoning = Reckoning(body, sketch.rows)
            for inputs, outputs in _again(reference, spool):
                reckoning.add(flattened(inputs, outputs))
            return canonical.dumps(reckoning.finished())
        except UNREADABLE as error:
            raise InvalidRegistration(f"reference {path}: {error}") from error


def _first(reference: Reference, spool: Spool | None) -> Iterator[Batch]:
    for inputs, outputs in reference.batches():
        yield inputs, outputs if spool is None else spool.ask(inputs)


def _again(reference: Reference, spool: Spool | None) -> Iterator[Batch]:
    kept = None if spool is None else spool.again()
    for inputs, outputs in reference.batches():
        yield inputs, outputs if kept is None else next(kept)
