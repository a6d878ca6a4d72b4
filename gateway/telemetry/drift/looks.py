"""Looks, and where they are done: numbers of a few hundred features take a processor for a tenth of a second, and
simulating a profile for nearly one, with the interpreter's lock in hand.

So a gateway has them done in a process of its own (``look_process``). Here is what is done, and who does it in threads.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import NamedTuple, Protocol

from gateway.messages import VersionRef
from gateway.telemetry.drift.arms import Arms
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.figures import Figures, figures_of
from gateway.telemetry.drift.judging import Policy
from gateway.telemetry.drift.keeping import Belief, to_bytes
from gateway.telemetry.drift.looking import corrected, look_at_arms, look_at_version
from gateway.telemetry.drift.sharing import Tally
from runtimes.counting_profile import Profile

__all__ = ["Held", "Look", "Looked", "Looks", "LooksHere", "PairLook", "ReadProfile", "VersionLook", "reference_of"]

Held = MutableMapping[str, Reference]
"""References by their profiles' digests, of whoever does the looks."""

ReadProfile = Callable[[str], Awaitable[bytes]]
"""A profile's JSON by its digest. Raises TurnoutError or OSError."""


class Looked(NamedTuple):
    """``octets``: the belief as it is kept. ``figures``: None of a pair."""

    belief: Belief
    octets: bytes
    figures: Figures | None


class VersionLook(NamedTuple):
    profile: str
    version: VersionRef
    belief: Belief
    tally: Tally
    at: float
    policy: Policy
    arms_differ: tuple[str, ...]
    shown: int

    def done(self, reference: Reference) -> Looked:
        belief = look_at_version(
            reference, self.belief, self.tally, self.at, policy=self.policy, arms_differ=self.arms_differ
        )
        figures = figures_of(self.version, reference, belief, corrected(self.policy, belief), self.shown)
        return Looked(belief, to_bytes(belief), figures)


class PairLook(NamedTuple):
    """``tally`` holds the counts of the one, then those of the other."""

    profile: str
    belief: Belief
    tally: Tally
    at: float
    policy: Policy

    def done(self, reference: Reference) -> Looked:
        belief = look_at_arms(Arms(reference), self.belief, self.tally, self.at, self.policy)
        return Looked(belief, to_bytes(belief), None)


Look = VersionLook | PairLook


class Looks(Protocol):
    async def do(self, look: Look) -> Looked:
        """Raises what reading the profile raises, StoreUnavailable when the look was lost on the way, and TurnoutError
        when it failed."""

    async def close(self) -> None: ...


class LooksHere:
    """In threads of this process."""

    def __init__(self, read_profile: ReadProfile) -> None:
        self._read_profile = read_profile
        self._held: Held = {}

    def __repr__(self) -> str:
        return f"<LooksHere [{len(self._held)} profiles]>"

    async def do(self, look: Look) -> Looked:
        if look.profile not in self._held:
            octets = await self._read_profile(look.profile)
            self._held[look.profile] = await asyncio.to_thread(reference_of, octets, look.profile)
        return await asyncio.to_thread(look.done, self._held[look.profile])

    async def close(self) -> None:
        self._held.clear()


def reference_of(octets: bytes, digest: str) -> Reference:
    """ValueError for what is no profile."""
    profile = Profile.from_json(json.loads(octets), digest)
    return Reference.of(profile.plan, profile.reference, tuple(counts for _, counts in profile.segments))
