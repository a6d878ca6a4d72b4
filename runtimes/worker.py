"""The child: one version, one loop. It loads when told, runs one batch at a time, and ends with its channel."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from runtimes import execution
from runtimes.base import Array, LoadFailed, LoadSpec, ModelFailed, RuntimeFailure
from runtimes.channel import Plan, read_header, read_json, write_json
from runtimes.memory import MAX_BYTES, Memory
from runtimes.output import PrefixedOutput
from runtimes.packets import ChannelFault, Op, Packet, failure, receive, send
from runtimes.process import (
    Priority,
    cap_threads,
    close_all_but,
    die_with,
    go_first,
    ignore_signals,
    name_process,
    reseed,
)

__all__ = ["Worker", "enter", "main"]


class Worker:
    """Slots of two memories each, all made by the gateway; an input mapping cannot be written here."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._inputs: dict[int, Memory] = {}
        self._outputs: dict[int, Memory] = {}
        # Batches that came while a larger output was awaited for the one before them.
        self._waiting: deque[Packet] = deque()
        self._loaded: execution.Loaded | None = None
        self._priority = Priority()

    def serve(self) -> None:
        """Returns when the gateway closes the channel, or breaks its protocol."""
        while (packet := self._next()) is not None:
            if packet.op is Op.LOAD:
                self._load(packet)
            elif packet.op is Op.RUN:
                self._run(packet)
        if self._loaded is not None:
            self._loaded.runtime.close()

    def _next(self) -> Packet | None:
        """The next packet that is not a memory; those are taken in as they come."""
        if self._waiting:
            return self._waiting.popleft()
        while (packet := self._received()) is not None:
            if packet.op not in (Op.INPUT, Op.OUTPUT):
                return packet
        return None

    def _received(self) -> Packet | None:
        came = receive(self._channel, fds=1)
        if came is None:
            return None
        packet, fds = came
        if packet.op in (Op.INPUT, Op.OUTPUT):
            memories = self._inputs if packet.op is Op.INPUT else self._outputs
            old = memories.pop(packet.slot, None)
            if old is not None:
                old.close()
            memories[packet.slot] = Memory.attach(fds[0], writable=packet.op is Op.OUTPUT)
        return packet

    def _source(self, packet: Packet) -> Memory:
        memory = self._inputs.get(packet.slot)
        if memory is None:
            raise ChannelFault("work came before the memory it lies in")
        return memory

    def _load(self, packet: Packet) -> None:
        spec = LoadSpec.from_json(read_json(self._source(packet), packet.header_bytes))
        cap_threads(spec.threads)
        # Model code may count on the main thread, and pools of threads keep the priority they were made with.
        movable = spec.threads == 1 and spec.format not in ("python", "sklearn")
        try:
            self._loaded = self._priority.run(lambda: execution.load(spec), movable=movable)
        except LoadFailed as error:
            send(self._channel, failure(error.kind, str(error)))
            return
        runtime = self._loaded.runtime
        body = write_json(
            {
                "signature": runtime.signature.to_json(),
                "device": runtime.device,
                "device_memory_bytes": self._loaded.device_memory_bytes,
                "loaded": dict(self._loaded.digests),
                "pid": os.getpid(),
            }
        )
        output = self._room(packet.slot, len(body))
        output.buffer[: len(body)] = body
        send(self._channel, Packet(Op.LOADED, packet.slot, header_bytes=len(body)))

    def _run(self, packet: Packet) -> None:
        if self._loaded is None:
            raise ChannelFault("a batch came before anything was loaded")
        source = self._source(packet)
        header = read_header(source, packet.header_bytes)
        began = time.perf_counter()
        try:
            outputs = execution.execute(self._loaded.runtime, header.views(source), header.rows)
            seconds = time.perf_counter() - began
            answer = self._written(outputs, header.rows, packet.slot)
        except RuntimeFailure as error:
            send(self._channel, failure(error.kind, str(error)))
            return
        send(self._channel, Packet(Op.DONE, packet.slot, header_bytes=answer, seconds=seconds))

    def _written(self, outputs: dict[str, Array], rows: int | None, slot: int) -> int:
        try:
            plan = Plan([outputs], list(outputs), rows=rows)
        except ValueError as error:
            raise ModelFailed(f"the outputs cannot be sent: {error}") from error
        if plan.total_bytes > MAX_BYTES:
            raise ModelFailed(f"the outputs take {plan.total_bytes} bytes; a batch may give {MAX_BYTES} at most")
        return plan.write(self._room(slot, plan.total_bytes))

    def _room(self, slot: int, needed_bytes: int) -> Memory:
        """The slot's output, after the gateway has sent a larger one where that is needed."""
        output = self._outputs.get(slot)
        if output is not None and output.size_bytes >= needed_bytes:
            return output
        send(self._channel, Packet(Op.GROW, slot, size_bytes=needed_bytes))
        while True:
            packet = self._received()
            if packet is None:
                raise ConnectionResetError("the gateway closed the channel")
            if packet.op is Op.RUN:
                self._waiting.append(packet)
            elif packet.op is Op.OUTPUT and packet.slot == slot:
                return self._room(slot, needed_bytes)
            elif packet.op not in (Op.INPUT, Op.OUTPUT):
                raise ChannelFault(f"expected a larger output, got {packet.op.name}")


def enter(channel: socket.socket, *, parent: int, name: str, threads: int) -> NoReturn:
    """The whole life of the process from here: it never returns, and skips the exit handlers it was forked with."""
    status = 1
    try:
        die_with(parent)
        ignore_signals()
        go_first()
        close_all_but({channel.fileno()})
        os.dup2(2, 1)
        sys.stdout = sys.stderr = PrefixedOutput(sys.__stderr__ or sys.stderr, name)
        name_process(f"turnout {name}")
        reseed()
        cap_threads(threads)
        Worker(channel).serve()
        status = 0
    except ConnectionError:
        status = 0  # the gateway is gone, and so is the work
    except BaseException:  # noqa: BLE001 - a forked process must not fall back into the loop it was forked from
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)


def main(arguments: Sequence[str]) -> None:
    """``--fd N --parent PID --name digits/3 --threads N``: started in an interpreter of the version's own."""
    parser = argparse.ArgumentParser("runtimes.worker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--name", default="version")
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args(arguments)
    enter(socket.socket(fileno=told.fd), parent=told.parent, name=told.name, threads=told.threads)


if __name__ == "__main__":
    main(sys.argv[1:])
