"""What an engine counts of the rows that it runs, and how the gateway reads it: what a child sends is not believed.

The plans are those of profiles (``runtimes.counting``). A child tells its counts over its main channel in parts; they
are put together here, held against the plan (size, sums, bounds), and told on as integers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gateway.errors import VersionUnavailable
from gateway.messages import Arrays
from runtimes.channel import write_json
from runtimes.counting import BUSY_SHARE, Plan
from runtimes.packets import ChannelFault, Packet

__all__ = ["CaptureReader", "Counting", "CountingPlan", "CountsReader", "Told"]

MOST_SEEN = 1 << 40
MOST_PROFILE_BYTES = 64 << 20


class CountingPlan(NamedTuple):
    """A profile as it is sent to whoever counts: its ``digest``, and the JSON of features and blocks."""

    digest: str
    profile: str

    def parsed(self) -> Plan:
        """ValueError when it is none."""
        return Plan.from_json(json.loads(self.profile), self.digest)


Told = Callable[[str, int, int, bytes], None]
"""Digest of the profile, rows seen, rows counted, and the vector's 64-bit little-endian integers."""


@dataclass(frozen=True, slots=True, eq=False)
class Counting:
    """What to count with, and who is told. ``probe``: the inputs of self-inferences, which are nobody's traffic.
    ``busy_share``: of the time, so much goes into each plan while the processor is wanted elsewhere."""

    plans: tuple[CountingPlan, ...]
    told: Told
    probe: Arrays | None = None
    busy_share: float = BUSY_SHARE

    def body(self) -> bytes:
        """For a child."""
        plans = [{"digest": p.digest, "profile": json.loads(p.profile)} for p in self.plans]
        return write_json({"plans": plans, "busy_share": self.busy_share})


class CaptureReader:
    """A profile that a child makes of live rows, put together out of its parts; ``made`` gets its bytes, unchecked."""

    def __init__(self, number: int, made: asyncio.Future[bytes]) -> None:
        self.number = number
        self.made = made
        self._parts = bytearray()

    def take(self, packet: Packet) -> None:
        """One PROFILE. ChannelFault for more than was announced; parts of another capture are dropped."""
        if packet.layout != self.number or self.made.done():
            return
        if packet.flags:
            problem = packet.tail.decode("utf-8", "replace")
            self.made.set_exception(VersionUnavailable(f"no profile could be made of live rows: {problem}"))
            return
        self._parts += packet.tail
        if not len(self._parts) <= packet.size_bytes <= MOST_PROFILE_BYTES:
            raise ChannelFault(f"{len(self._parts)} bytes of a profile of {packet.size_bytes}")
        if len(self._parts) == packet.size_bytes:
            self.made.set_result(bytes(self._parts))


class CountsReader:
    """Puts the parts of one set of plans together."""

    def __init__(self, counting: Counting, number: int) -> None:
        """ValueError for a profile that is none."""
        self.counting = counting
        self.number = number
        self._plans: Sequence[Plan] = [plan.parsed() for plan in counting.plans]
        self._parts: list[bytes] = []
        self._held = 0

    def __repr__(self) -> str:
        return f"<CountsReader [{len(self._plans)} plans | {len(self._parts)} parts]>"

    def take(self, packet: Packet) -> None:
        """One COUNTS. ChannelFault for what cannot be; parts for plans that have been replaced are dropped."""
        if packet.layout != self.number:
            return
        if packet.slot >= len(self._plans):
            raise ChannelFault(f"counts for plan {packet.slot}; {len(self._plans)} are counted")
        plan, counted, seen = self._plans[packet.slot], packet.rows, packet.size_bytes
        self._gather(packet, plan.size * 8 if counted else 0)
        if packet.output + 1 < packet.flags:
            return
        octets, self._parts, self._held = b"".join(self._parts), [], 0
        if not counted <= seen <= MOST_SEEN:
            raise ChannelFault(f"{counted} rows counted of {seen} seen")
        if counted:
            try:
                plan.check(np.frombuffer(octets, "<i8").astype(np.int64, copy=False), counted)
            except ValueError as error:
                raise ChannelFault(f"counts that cannot be: {error}") from None
        self.counting.told(plan.digest, seen, counted, octets)

    def _gather(self, packet: Packet, expected_bytes: int) -> None:
        if packet.output != len(self._parts) or not packet.output < packet.flags:
            raise ChannelFault(f"part {packet.output} of {packet.flags} of the counts; {len(self._parts)} came before")
        self._parts.append(packet.tail)
        self._held += len(packet.tail)
        whole = packet.output + 1 == packet.flags
        if self._held > expected_bytes or (whole and self._held != expected_bytes):
            raise ChannelFault(f"{self._held} bytes of counts; expected {expected_bytes}")
