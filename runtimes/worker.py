"""The child: one version, one loop. It loads when told, runs one batch at a time, and ends with its channel.

The channel it was started with is the main one. Others may come over it, and are served in turn; batches of the
same layout that wait on several channels run together, and a run that fails together is run again apart.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn

import numpy as np

from runtimes import execution
from runtimes.base import Array, LoadFailed, LoadSpec, OutOfMemory, Runtime, RuntimeFailure
from runtimes.channel import read_json, write_json
from runtimes.counting_child import Counting
from runtimes.line import Line, Run
from runtimes.memory import Memory
from runtimes.output import PrefixedOutput
from runtimes.packets import ChannelFault, Op, Packet, failure
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

_LINES = 256


class Worker:
    """Lines in, one runtime, answers out. The main line's end is this process's; another's takes nothing along."""

    def __init__(self, channel: socket.socket) -> None:
        self._main = Line(channel)
        # The main line first; the others in the order of their coming.
        self._lines = [self._main]
        self._turn = 0
        self._poll: select.poll | None = None
        self._runtime: Runtime | None = None
        self._max_rows = 1
        self._priority = Priority()
        # Nothing, until the gateway sends plans.
        self._counting = Counting(self._main)
        self._alone = select.poll()
        self._alone.register(self._main, select.POLLIN)

    def serve(self) -> None:
        """Returns when the gateway closes the main channel; raises ``ChannelFault`` when it breaks the protocol."""
        try:
            while True:
                self._take_in()
                runs = self._next()
                if runs:
                    self._run(runs)
        except ConnectionError:
            if self._runtime is not None:
                self._runtime.close()

    def _take_in(self) -> None:
        """One packet from each line that has any; waits for one when there is nothing to do, which is the time to
        count what ran."""
        if self._poll is None:
            if not self._main.ready and (not self._counting.waits or self._came()):
                self._take_main()
            return
        ready = any(line.ready for line in self._lines)
        patience_ms = 0 if ready else self._counting.patience_ms()
        came = {fd for fd, _ in self._poll.poll(patience_ms)}
        if not came and not ready:
            self._counting.work()
        if self._main.fileno() in came:
            self._take_main()
        for line in self._lines[1:]:
            if line.fileno() in came:
                self._guarded(line, partial(self._take_borrowed, line))

    def _came(self) -> bool:
        """Waits for something on the only line, as long as nothing is to be counted; False when that was done."""
        if self._alone.poll(self._counting.patience_ms()):
            return True
        self._counting.work()
        return False

    @staticmethod
    def _take_borrowed(line: Line) -> None:
        other = line.take()
        if other is not None:
            packet, fd = other
            if fd is not None:
                os.close(fd)
            raise ChannelFault(f"{packet.name} is for the main channel to say")

    def _take_main(self) -> None:
        other = self._main.take()
        if other is None:
            return
        packet, fd = other
        if packet.op == Op.CHANNEL and fd is not None:
            self._add(socket.socket(fileno=fd))
            return
        if packet.op == Op.COUNT and fd is not None:
            self._plan(packet, fd)
            return
        if fd is not None:
            os.close(fd)
        if packet.op == Op.LOAD:
            self._load(packet)
        elif packet.op == Op.CAPTURE and self._runtime is not None:
            self._counting.capture(self._runtime.signature, packet.rows, packet.size_bytes, packet.layout)
        elif packet.op != Op.NORMAL:
            raise ChannelFault(f"the gateway sent {packet.name}")

    def _plan(self, packet: Packet, fd: int) -> None:
        memory = Memory.attach(fd, writable=False)
        try:
            body = read_json(memory, packet.size_bytes)
            self._counting.plan(body["plans"], packet.layout, float(body["busy_share"]))
        finally:
            memory.close()

    def _add(self, channel: socket.socket) -> None:
        """One more line. What cannot be served is closed, and its other end sees that."""
        if self._runtime is None or len(self._lines) >= _LINES:
            channel.close()
            return
        # A borrower that does not read must not stop the others: what it has no room for ends its line.
        channel.setblocking(False)
        line = Line(channel)
        line.loaded(self._runtime.signature)
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._main, select.POLLIN)
        self._poll.register(line, select.POLLIN)
        self._lines.append(line)

    def _leave(self, line: Line) -> None:
        if line in self._lines and self._poll is not None:
            self._lines.remove(line)
            self._poll.unregister(line)
            line.close()
            if len(self._lines) == 1:
                self._poll = None

    def _guarded(self, line: Line, deed: Callable[[], object]) -> None:
        """Something on a line. Whatever is wrong with a borrowed one, that one alone is left."""
        if line is self._main:
            deed()
            return
        try:
            deed()
        except (ChannelFault, OSError, ValueError) as error:
            if not isinstance(error, ConnectionError):
                sys.stderr.write(f"a channel is closed: {type(error).__name__}: {error}\n")
            self._leave(line)

    def _load(self, packet: Packet) -> None:
        body = read_json(self._main.body(packet), packet.size_bytes)
        spec = LoadSpec.from_json(body["spec"])
        cap_threads(spec.threads)
        # Model code may count on the main thread, and pools of threads keep the priority they were made with.
        movable = spec.threads == 1 and spec.format not in ("python", "sklearn")
        try:
            loaded = self._priority.run(lambda: execution.load(spec), movable=movable, awaited=body["awaited"])
        except LoadFailed as error:
            self._main.tell(failure(error.kind, str(error)))
            return
        runtime = self._runtime = loaded.runtime
        self._max_rows = int(body["max_rows"])
        self._main.loaded(runtime.signature)
        self._main.tell_loaded(
            write_json(
                {
                    "signature": runtime.signature.to_json(),
                    "device": runtime.device,
                    "device_memory_bytes": loaded.device_memory_bytes,
                    "loaded": dict(loaded.digests),
                    "pid": os.getpid(),
                }
            )
        )

    def _next(self) -> list[Run]:
        """What to run now: the line's whose turn it is, with what waits on others and may run with it."""
        if self._poll is None:
            return [self._main.runs.popleft()] if self._main.ready else []
        ready = [line for line in self._in_turn() if line.ready]
        if not ready:
            return []
        first = ready[0].runs.popleft()
        self._turn = self._lines.index(first.line) + 1
        runs = [first]
        if first.alone or first.uncounted or not first.layout.batched:
            return runs
        rows = first.rows
        for line in ready[1:]:
            run = line.runs[0]
            if (
                run.alone
                or run.uncounted
                or run.layout.shapes != first.layout.shapes
                or rows + run.rows > self._max_rows
            ):
                continue
            rows += run.rows
            runs.append(line.runs.popleft())
        return runs

    def _in_turn(self) -> list[Line]:
        turn = self._turn % len(self._lines)
        return self._lines[turn:] + self._lines[:turn]

    def _run(self, runs: Sequence[Run]) -> None:
        runtime, first = self._runtime, runs[0]
        if runtime is None:
            raise ChannelFault("a batch came before anything was loaded")
        rows = first.rows if len(runs) == 1 else sum(run.rows for run in runs)
        for run in runs:
            run.line.begin(run)
        began = time.perf_counter()
        batch, counted = _together(runs), rows if first.layout.batched else None
        try:
            outputs = execution.execute(runtime, batch, counted)
        except RuntimeFailure as error:
            self._failed(runs, rows, error)
            return
        seconds = time.perf_counter() - began
        if not first.uncounted:
            self._counting.note(batch, outputs, counted)
        if len(runs) == 1:
            self._answer(first, outputs, seconds, rows)
        else:
            self._answer_each(runs, outputs, seconds, rows)
        self._counting.answered()

    def _answer_each(self, runs: Sequence[Run], outputs: Mapping[str, Array], seconds: float, rows: int) -> None:
        at = 0
        for run in runs:
            cut = {name: array[at : at + run.rows] for name, array in outputs.items()}
            at += run.rows
            self._answer(run, cut, seconds, rows)

    def _failed(self, runs: Sequence[Run], rows: int, error: RuntimeFailure) -> None:
        """Nobody's rows fail for another's: what ran together runs again apart."""
        if len(runs) == 1:
            run = runs[0]
            self._guarded(run.line, lambda: run.line.fail(run, error))
            return
        if isinstance(error, OutOfMemory):
            self._max_rows = rows // 2
        for run in runs:
            self._run([run])

    def _answer(self, run: Run, outputs: Mapping[str, Array], seconds: float, rows: int) -> None:
        try:
            self._guarded(run.line, lambda: run.line.answer(run, outputs, seconds, rows))
        except RuntimeFailure as failed:
            error = failed
            self._guarded(run.line, lambda: run.line.fail(run, error))


def _together(runs: Sequence[Run]) -> Mapping[str, Array]:
    if len(runs) == 1:
        return runs[0].inputs
    return {name: np.concatenate([run.inputs[name] for run in runs]) for name in runs[0].inputs}


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
