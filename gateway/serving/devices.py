"""Versions that share a device take turns on it, fair by the seconds that they compute, weighted.

What shares: the versions of one GPU, since its own scheduler knows nothing of weights and slices time in
milliseconds. Versions in processes on the CPU are not here: the kernel shares the processors among them, and their
nice values stay equal. Nor are inline versions: a turn would let one that waits or hangs hold up all others.

The rule is stride scheduling (Waldspurger and Weihl, 1995): each has a virtual time, which grows with the seconds
that it used, divided by its weight; a free device goes to the one that waits with the least. Who was idle starts at
the virtual time of the device, so idleness earns nothing and costs the others nothing; and a version with little
traffic is mostly behind all others in virtual time, so that it gets the very next turn, with whatever it has: a
hundredth of the traffic does not wait until a hundred batches are due to it.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Device", "Devices", "Turn"]

LEAST_WEIGHT = 0.001

GPU_WIDTH = 2
"""One batch that computes, and one handed over behind it, so that the device does not idle between two versions."""


class Turn:
    """One lane's right to a device. It asks before each batch, and tells when the batch is over."""

    __slots__ = ("_device", "granted", "holds", "spare", "virtual_s", "waits", "weight")

    def __init__(self, device: Device, granted: Callable[[], None], weight: float) -> None:
        self._device = device
        self.granted = granted
        self.weight = max(LEAST_WEIGHT, weight)
        self.virtual_s = 0.0
        self.holds = 0
        self.waits = False
        self.spare = False

    def __repr__(self) -> str:
        return f"<Turn [{self.virtual_s:.3f} s at weight {self.weight:g} | {self.holds} held]>"

    def weigh(self, weight: float) -> None:
        """From now on; what was used before counts as it did."""
        self.weight = max(LEAST_WEIGHT, weight)

    def take(self, *, spare: bool = False) -> bool:
        """Whether a batch may be launched now. If not, ``granted`` is called when it is time to ask again. ``spare``:
        it may only have what nobody else wants."""
        return self._device.take(self, spare=spare)

    def give_back(self, seconds: float) -> None:
        """A batch is over, which had the device for so long. Ask for the next one, then ``pass_on``: until then the
        device is offered to nobody else, so that who is due again need not queue behind who is not."""
        self._device.give_back(self, seconds)

    def pass_on(self) -> None:
        """Whoever waits and is due is told."""
        self._device.pass_on()

    def leave(self) -> None:
        """This lane is closed."""
        self._device.leave(self)


class Device:
    """What turns are taken on. ``width``: batches at once while several want it; who is alone is not bounded."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._held = 0
        self._virtual_s = 0.0
        self._turns: list[Turn] = []

    def __repr__(self) -> str:
        waiting = sum(turn.waits for turn in self._turns)
        return f"<Device [{len(self._turns)} lanes | {self._held} batches | {waiting} waiting]>"

    def turn(self, granted: Callable[[], None], weight: float) -> Turn:
        turn = Turn(self, granted, weight)
        self._turns.append(turn)
        return turn

    def take(self, turn: Turn, *, spare: bool) -> bool:
        turn.spare = spare
        if not turn.holds and not turn.waits:  # it was idle
            turn.virtual_s = max(turn.virtual_s, self._virtual_s)
        turn.waits = not self._may(turn)
        if turn.waits:
            return False
        turn.holds += 1
        self._held += 1
        self._virtual_s = max(self._virtual_s, turn.virtual_s)
        return True

    def give_back(self, turn: Turn, seconds: float) -> None:
        turn.holds -= 1
        self._held -= 1
        turn.virtual_s += seconds / turn.weight

    def pass_on(self) -> None:
        """Grants what is free to those who wait, the most due first."""
        waiting = [turn for turn in self._turns if turn.waits]
        for turn in sorted(waiting, key=_due):
            if not self._may(turn):
                return
            turn.waits = False
            turn.granted()

    def leave(self, turn: Turn) -> None:
        if turn in self._turns:
            self._turns.remove(turn)
            self._held -= turn.holds
            turn.holds, turn.waits = 0, False
            self.pass_on()

    def _may(self, turn: Turn) -> bool:
        if self._held == turn.holds and not any(other.waits for other in self._turns if other is not turn):
            return True  # alone
        if self._held >= (1 if turn.spare else self._width):
            return False
        return all(_due(turn) <= _due(other) for other in self._turns if other.waits)


class Devices:
    """The devices that versions here share, each made when it is first named. ``width``: see ``Device``."""

    def __init__(self, width: int = GPU_WIDTH) -> None:
        self._width = width
        self._devices: dict[str, Device] = {}

    def __repr__(self) -> str:
        return f"<Devices [{', '.join(self._devices) or 'none shared'}]>"

    def turn(self, device: str, granted: Callable[[], None], weight: float = 1.0) -> Turn | None:
        """A lane's turn, or None where the kernel shares what the lane runs on."""
        if not device.startswith("cuda"):
            return None
        return self._devices.setdefault(device, Device(self._width)).turn(granted, weight)


def _due(turn: Turn) -> tuple[bool, float]:
    return turn.spare, turn.virtual_s
