"""Counting in a child gives way to others, and what it asks the kernel for that is never in an answer's way."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from runtimes.counting_child import TELL_S, Counting
from runtimes.line import Line
from runtimes.packets import Op, receive
from tests.runtimes.counted import profile_body, rows_of

BODY = profile_body({"x": rows_of(500, 3)})
PLANS: list[dict[str, Any]] = [{"digest": "sha256:own", "profile": BODY}]


class Machine:
    """Its clock, and whether its processors are short; ``asked`` when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.short = True
        self.asked: list[float] = []

    def clock(self) -> float:
        return self.now

    def shortage(self) -> bool:
        self.asked.append(self.now)
        return self.short


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def ran(counting: Counting, rows: int) -> None:
    counting.note({"x": rows_of(rows, 3)}, {}, rows)


def test_an_idle_child_counts_on_at_once_only_where_nobody_else_wants_the_processor(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Short: one slice, and then patience. Once they are not, and a second has passed, there is none."""
    machine = Machine()
    counting = Counting(Line(ends[1]), short=machine.shortage, clock=machine.clock)
    counting.plan(PLANS, 0, share=0.0001)
    ran(counting, 4000)
    assert counting.patience_ms() == 0
    counting.work()
    patience = counting.patience_ms()
    assert patience is not None
    assert patience > 0
    machine.short, machine.now = False, 1.0
    counting.work()
    assert counting.patience_ms() == 0


def test_nobody_who_waits_for_an_answer_waits_for_the_kernel(ends: tuple[socket.socket, socket.socket]) -> None:
    """It is asked while nothing else is to be done, and once a second at most."""
    machine = Machine()
    counting = Counting(Line(ends[1]), short=machine.shortage, clock=machine.clock)
    counting.plan(PLANS, 0)
    for _ in range(50):
        machine.now += 0.1
        ran(counting, 100)
        counting.patience_ms()
        counting.answered()
    assert machine.asked == []
    for tenth in range(20):
        machine.now = 10.0 + tenth / 10
        counting.work()
    assert machine.asked == [10.0, 11.0]


def test_a_child_is_silent_only_once_a_second_brought_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    """Then its next batch begins a second of its own, in which every row is counted."""
    machine = Machine()
    counting = Counting(Line(ends[1]), short=machine.shortage, clock=machine.clock)
    counting.plan(PLANS, 0)
    ran(counting, 10)
    machine.now += TELL_S
    counting.work()
    assert counting.waits
    machine.now += TELL_S
    counting.work()
    assert not counting.waits
    assert counting.patience_ms() is None
    received = receive(ends[0])
    assert received is not None
    packet, _ = received
    assert (packet.op, packet.rows, packet.size_bytes) == (Op.COUNTS, 10, 10)
