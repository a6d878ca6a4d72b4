"""Messages between gateway and child."""

from __future__ import annotations

import os
import socket

import pytest

from runtimes.packets import ChannelFault, Op, Packet, failure, receive, send
from tests.serving.processes import descriptors

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_a_packet_arrives_as_it_was_sent(pair: Pair):
    """All fields cross, text included."""
    ours, theirs = pair
    packet = Packet(Op.DONE, slot=1, header_bytes=77, size_bytes=1 << 40, seconds=0.25, text="ünïcode")
    send(ours, packet)
    assert receive(theirs) == (packet, [])


def test_descriptors_travel_only_where_they_are_expected(pair: Pair):
    """A child cannot push descriptors at the gateway: it receives with no room for any."""
    ours, theirs = pair
    before = descriptors()
    send(ours, Packet(Op.INPUT), [0])
    packet, fds = receive(theirs, fds=1)
    assert packet.op is Op.INPUT
    assert len(fds) == 1
    assert not os.get_inheritable(fds[0])
    os.close(fds[0])
    send(ours, Packet(Op.DONE), [0, 1])
    assert receive(theirs)[1] == []
    assert descriptors() == before


def test_a_failure_keeps_its_kind_and_message_and_is_bounded(pair: Pair):
    """However long a model's message is, it fits a packet."""
    ours, theirs = pair
    send(ours, failure("model-error", "line one\nline two " + "é" * 100_000))
    packet, _ = receive(theirs)
    kind, message = packet.failure
    assert kind == "model-error"
    assert message.startswith("line one\nline two ééé")


@pytest.mark.parametrize("data", [b"x", b"\xff" * 22, b"\x00" * 22, b"\x11" + b"\x00" * 200_00])
def test_what_is_no_packet_is_a_fault(pair: Pair, data: bytes):
    """Too short, unknown operation, too long."""
    ours, theirs = pair
    ours.send(data)
    with pytest.raises(ChannelFault):
        receive(theirs)


def test_the_end_of_the_channel_is_none(pair: Pair):
    """A closed channel is no error."""
    ours, theirs = pair
    ours.close()
    assert receive(theirs) is None
