"""Tells the observer of the batches of one engine: what ran, when and where, why then, and how full it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.clock import Clock
from gateway.events.observer import Observer
from gateway.events.records import BatchRecord
from gateway.messages import Signature
from gateway.serving.engine import VersionSpec
from gateway.serving.supervision import Supervisor
from runtimes.padding import next_size

__all__ = ["BatchTeller", "Launched"]


class Launched(NamedTuple):
    """A batch as it was handed over: ``limit`` and ``release`` as ``BatchRecord`` has them."""

    serial: int
    rows: int
    items: int
    release: str
    limit: int = 0


class BatchTeller:
    """``instance`` counts the engines of the version from 0."""

    def __init__(
        self,
        spec: VersionSpec,
        supervisor: Supervisor,
        *,
        instance: int,
        signature: Signature,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._spec = spec
        self._supervisor = supervisor
        self._instance = instance
        self._clock = clock
        self._observer = observer
        fixed = all(isinstance(size, int) for tensor in signature.inputs for size in tensor.shape[1:])
        # Sizes that a device has work prepared for; where any axis but the first varies, it has none.
        self._sizes = spec.load.graph_rows if signature.batched and fixed else ()

    def __repr__(self) -> str:
        return f"<BatchTeller {self._spec.ref} [engine {self._instance}]>"

    def tell(
        self,
        batch: Launched,
        compute_s: float,
        waits_s: tuple[float, ...],
        *,
        took_s: float,
        ran_rows: int = 0,
        failure: str | None = None,
    ) -> None:
        """``took_s`` until now; ``ran_rows`` 0: the batch's own."""
        info = self._supervisor.info
        device = "" if info is None else info.device
        ran = ran_rows or batch.rows
        self._observer.batch_finished(
            BatchRecord(
                self._spec.ref,
                batch.rows,
                batch.items,
                compute_s,
                waits_s,
                failure,
                batch.serial,
                self._clock.wall(),
                took_s,
                batch.release,
                batch.limit,
                ran,
                _padding(ran, self._sizes) if self._sizes and device.startswith("cuda") else 0,
                self._spec.placement,
                self._instance,
                device,
            )
        )


def _padding(rows: int, sizes: Sequence[int]) -> int:
    """Rows of zeros that fill a batch up to the next size that is prepared; none where it is larger than all."""
    return (next_size(rows, sizes) or rows) - rows
