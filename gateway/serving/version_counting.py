"""With which profiles the rows of a version are counted: its own, and those of versions that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.events.observer import Observer
from gateway.events.records import CountsRecord
from gateway.messages import Arrays
from gateway.serving.counts import Counting, CountingPlan
from gateway.serving.engine import VersionSpec

__all__ = ["VersionCounting"]


class VersionCounting:
    """Tells ``count`` whenever the profiles change, from ``begin`` on, and the observer what was counted."""

    def __init__(self, spec: VersionSpec, count: Callable[[Counting], None], observer: Observer) -> None:
        self._ref = spec.ref
        self._busy_share = spec.busy_share
        self._own = spec.profile
        self._others: tuple[CountingPlan, ...] = ()
        self._count = count
        self._observer = observer
        self._probe: Arrays | None = None
        self._begun = False

    def __repr__(self) -> str:
        return f"<VersionCounting {self._ref} [{len(self.plans)} plans | {'begun' if self._begun else 'not begun'}]>"

    @property
    def plans(self) -> tuple[CountingPlan, ...]:
        """The version's own first, each once."""
        own = () if self._own is None else (self._own,)
        return tuple(dict.fromkeys((*own, *self._others)))

    def begin(self, probe: Arrays | None) -> None:
        """The engines run. ``probe``: the inputs of self-inferences, which are nobody's traffic."""
        self._probe, self._begun = probe, True
        self._tell()

    def compare(self, others: Sequence[CountingPlan]) -> None:
        """Counts with these besides the version's own from now on."""
        self._change(self._own, tuple(others))

    def profiled(self, own: CountingPlan) -> None:
        """Counts with this one in place of the version's own from now on."""
        self._change(own, self._others)

    def _change(self, own: CountingPlan | None, others: tuple[CountingPlan, ...]) -> None:
        before, self._own, self._others = self.plans, own, others
        if self._begun and self.plans != before:
            self._tell()

    def _tell(self) -> None:
        self._count(Counting(self.plans, self._counted, self._probe, self._busy_share))

    def _counted(self, profile: str, seen: int, counted: int, counts: bytes) -> None:
        self._observer.counted(CountsRecord(self._ref, profile, seen, counted, counts))
