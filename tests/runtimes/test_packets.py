"""Messages between gateway and child."""

from __future__ import annotations

import os
import socket

import pytest

from runtimes.packets import TAIL_BYTES, ChannelFault, Op, Packet, Reader, failure, receive, send
from tests.serving.processes import descriptors

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("fds", [False, True])
def test_a_packet_arrives_as_it_was_sent(pair: Pair, fds: bool):
    """All fields cross, the tail included; the next packet shows nothing of a longer one before it."""
    ours, theirs = pair
    full = Packet(Op.DONE, 1, 2, 1, 63, 1 << 31, 1 << 40, 0.25, "ünïcode".encode())
    bare = Packet(Op.RUN, rows=7)
    reader = Reader(theirs, fds=fds)
    for packet in (full, bare, full):
        send(ours, packet)
        assert (reader.read_with_fd()[0] if fds else reader.read()) == packet
    assert full.name == "DONE"


def test_descriptors_travel_only_where_they_are_expected(pair: Pair):
    """A child cannot push descriptors at the gateway: it receives with no room for any."""
    ours, theirs = pair
    before = descriptors()
    send(ours, Packet(Op.INPUT), [0])
    packet, fd = receive(theirs, fds=True)
    assert packet.op == Op.INPUT
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.close(fd)
    send(ours, Packet(Op.DONE), [0, 1])
    assert receive(theirs) == (Packet(Op.DONE), None)
    assert descriptors() == before


def test_descriptors_that_nobody_asked_for_are_closed(pair: Pair):
    """More than one with a packet, or one with what is no packet."""
    ours, theirs = pair
    before = descriptors()
    send(ours, Packet(Op.INPUT), [0, 1, 2])
    _, fd = receive(theirs, fds=True)
    os.close(fd)
    socket.send_fds(ours, [b"nonsense"], [0])
    with pytest.raises(ChannelFault):
        receive(theirs, fds=True)
    assert descriptors() == before


def test_a_failure_keeps_its_kind_and_message_and_is_bounded(pair: Pair):
    """However long a model's message is, it fits a packet."""
    ours, theirs = pair
    send(ours, failure("model-error", "line one\nline two " + "é" * 100_000))
    packet, _ = receive(theirs)
    kind, message = packet.failure
    assert kind == "model-error"
    assert message.startswith("line one\nline two ééé")


def test_a_tail_that_does_not_fit_is_refused_by_its_sender(pair: Pair):
    """Better there than as a fault of the other side."""
    with pytest.raises(ValueError, match="do not fit a packet"):
        send(pair[0], Packet(Op.LAYOUT, tail=b"x" * (TAIL_BYTES + 1)))


@pytest.mark.parametrize("fds", [False, True])
@pytest.mark.parametrize("data", [b"x", b"\xff" * 30, b"\x00" * 30, b"\x11" + b"\x00" * 100_000])
def test_what_is_no_packet_is_a_fault(pair: Pair, data: bytes, fds: bool):
    """Too short, unknown operation, too long."""
    ours, theirs = pair
    ours.send(data)
    with pytest.raises(ChannelFault):
        receive(theirs, fds=fds)


@pytest.mark.parametrize("fds", [False, True])
def test_the_end_of_the_channel_is_none(pair: Pair, fds: bool):
    """A closed channel is no error."""
    ours, theirs = pair
    ours.close()
    assert receive(theirs, fds=fds) is None
