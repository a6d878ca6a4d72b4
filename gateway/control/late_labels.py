"""Labels and scores that come later than the answers they are of: which count at all, for whom, and when.

They come when the weights have long changed, and keys of an earlier split are another mixture: they count now, as a
stratum of their own. Those of answers from before the rollout, or from before this process knew of it, would use up
keys for nothing and are nobody's. Which of the others count now is for ``label_pairs`` to say, of the first label of
each key, since a key's later ones are not counted and the split is one of keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.control.coordination import Claimed
from gateway.control.label_pairs import LabelPairs
from gateway.control.watches import Watch
from gateway.messages import VersionRef

__all__ = ["Late", "LateLabels", "Place"]


class Late(NamedTuple):
    """``stream`` is ``label`` or ``score``. ``bucket``: the place of the answer's key. ``split`` chose ``version`` in
    ``epoch``; None: this one. ``says``: outcomes, and by how much each counter grows."""

    stream: str
    route: str
    bucket: int
    version: VersionRef
    split: str
    epoch: int | None
    says: tuple[tuple[str, int], ...]


class Place(NamedTuple):
    watch: Watch
    arm: str
    stratum: str


class LateLabels:
    """``watch`` is told whenever the watched rollouts may be others."""

    def __init__(self) -> None:
        self._watched: Mapping[str, Watch] = {}
        # By scope and epoch, of the watched ones: the shares that keys were split by.
        self._shares: dict[str, dict[int, Mapping[str, float]]] = {}
        self._seen: dict[tuple[Watch, str], Claimed] = {}
        self._pairs: LabelPairs[Late] = LabelPairs()

    @property
    def waiting(self) -> int:
        return self._pairs.waiting

    def watch(self, watched: Mapping[str, Watch]) -> None:
        self._watched = watched
        current = set(watched.values())
        self._shares = {watch.scope: self._shares.get(watch.scope, {}) for watch in current}
        for watch in current:
            self._shares[watch.scope][watch.epoch] = watch.shares
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in current}
        self._pairs.keep(set(self._shares))

    def place_of(self, late: Late) -> Place | None:
        """None: it is nobody's."""
        watch = self._watched.get(late.route)
        arm = None if watch is None else watch.arm_of(late.version)
        if watch is None or arm is None:
            return None
        if late.epoch in (None, watch.epoch):
            return Place(watch, arm, late.split)
        if not min(self._shares[watch.scope]) <= late.epoch <= watch.epoch:
            return None
        return Place(watch, arm, f"{late.split}@{late.epoch}")

    def due(self, late: Late, place: Place, *, age_s: float | None, now: float) -> list[Late]:
        """What counts now that this one has come, ``age_s`` after its answer was given (None: nobody knows)."""
        watch = place.watch
        epoch = watch.epoch if late.epoch is None else late.epoch
        share = self._shares[watch.scope].get(epoch, {}).get(late.split)
        if age_s is None or share is None:
            return [late]
        if not self._seen.setdefault((watch, late.stream), Claimed()).claim([late.bucket])[0]:
            return []
        stratum, at_s = (late.stream, late.split, epoch), now - age_s
        late = late._replace(epoch=epoch)
        return self._pairs.take(watch.scope, stratum, place.arm, place=late.bucket, at_s=at_s, share=share, item=late)
