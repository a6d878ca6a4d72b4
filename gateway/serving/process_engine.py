"""A version in a child process: batches go over in shared memory, and a crash or a hang stays over there.

The gateway keeps the batch's arrays until the answer is in, so a child that dies costs nobody an
answer. All of it runs on the event loop: one packet out, one packet in, and a timer for each batch.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from gateway.errors import (
    DeviceMemoryExhausted,
    IntegrityError,
    InvalidInput,
    LoadError,
    ModelError,
    TurnoutError,
    VersionCrashed,
    VersionHung,
)
from gateway.messages import Arrays, Signature
from gateway.serving.child import Child
from gateway.serving.engine import BatchResult, EngineInfo, VersionSpec
from gateway.serving.fork_server import ForkServer
from gateway.serving.hang_watch import HangWatch
from gateway.serving.slot import Slot
from runtimes.channel import Header, Plan, read_header, read_json, write_json
from runtimes.memory import MAX_BYTES
from runtimes.packets import ChannelFault, Op, Packet, receive, send

__all__ = ["FAILURES", "ProcessEngine"]

FAILURES: dict[str, type[TurnoutError]] = {
    "load-failed": LoadError,
    "integrity": IntegrityError,
    "invalid-input": InvalidInput,
    "out-of-memory": DeviceMemoryExhausted,
    "model-error": ModelError,
}

_FIRST_BYTES = 256 * 1024
_END_LIMIT_S = 5.0
_CLOSE_GRACE_S = 2.0


class ProcessEngine:
    """See ``gateway.serving.engine.Engine``. One slot, so one batch at a time."""

    def __init__(self, spec: VersionSpec, fork_server: ForkServer, on_exit: Callable[[str], None]) -> None:
        self._spec = spec
        self._fork_server = fork_server
        self._on_exit: Callable[[str], None] | None = on_exit
        self._channel: socket.socket | None = None
        self._child: Child | None = None
        self._slot = Slot(self._send)
        self._signature: Signature | None = None
        # What the child answers next; only ``_await`` sets it, and only one caller at a time.
        self._answer: asyncio.Future[Packet] | None = None
        self._ending = False

    def __repr__(self) -> str:
        state = "closed" if self._child is None else "running" if self._answer is not None else "idle"
        return f"<ProcessEngine {self._spec.ref} [{state} | pid {self._child.pid if self._child else None}]>"

    async def start(self) -> EngineInfo:
        """Loads the version in a new child. Failed or cancelled, it has given everything back."""
        if self._ending or self._child is not None:
            raise LoadError(f"{self._spec.ref}: this engine was started before; make a new one")
        try:
            async with asyncio.timeout(self._spec.load_timeout_s):
                return await self._load()
        except TimeoutError:
            await self._abandon()
            raise LoadError(f"{self._spec.ref}: not loaded within {self._spec.load_timeout_s:g} s") from None
        except (VersionCrashed, ChannelFault, OSError) as error:
            await self._abandon()
            raise LoadError(str(error)) from error
        except BaseException:
            await self._abandon()
            raise

    async def run(self, parts: Sequence[Arrays], *, limit_s: float) -> BatchResult:
        """One batch, as the interface says. Cancelled, it kills the child."""
        if self._child is None or self._ending or self._signature is None:
            raise VersionCrashed(f"{self._spec.ref}: its process is gone; start a new engine")
        if self._answer is not None:
            raise ModelError(f"{self._spec.ref}: a batch is under way already; an engine runs one at a time")
        signature = self._signature
        try:
            header_bytes, rows = self._gather(parts, signature)
            packet = await self._ask(Packet(Op.RUN, header_bytes=header_bytes), limit_s)
            return self._result(packet, signature, rows)
        except (VersionCrashed, VersionHung, asyncio.CancelledError):
            await self._abandon()
            raise
        except ChannelFault as error:
            await self._abandon()
            raise VersionCrashed(f"{self._spec.ref}: its process broke the protocol and was ended: {error}") from error

    async def close(self) -> None:
        """Lets the child end by itself for two seconds, then kills it; at once when a batch is under way."""
        self._on_exit = None
        child = self._child
        if child is not None and self._answer is None and not self._ending:
            self._ending = True
            self._hang_up()
            await asyncio.wait([child.ended], timeout=_CLOSE_GRACE_S)
        await self._abandon()

    def memory_bytes(self) -> int:
        """What the child's end would give back: its private memory, not what the fork server shares with it."""
        child = self._child  # read once: another thread may be asking
        if child is None:
            return 0
        process = Path("/proc") / str(child.pid)
        try:
            lines = (process / "smaps_rollup").read_text("ascii").splitlines()
            return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
        except (OSError, ValueError):
            return 0

    async def _load(self) -> EngineInfo:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._channel = ours
        with theirs:
            self._child = await self._fork_server.spawn(
                theirs,
                name=str(self._spec.ref),
                threads=self._spec.load.threads,
                interpreter=self._spec.interpreter,
            )
        loop.add_reader(ours, self._on_packet)
        self._child.ended.add_done_callback(self._on_end)
        body = write_json(self._spec.load.to_json())
        self._slot.output_of(_FIRST_BYTES)
        memory = self._slot.input_of(max(_FIRST_BYTES, len(body)))
        memory.buffer[: len(body)] = body
        packet = await self._ask(Packet(Op.LOAD, header_bytes=len(body)), None)
        if packet.op is Op.FAILED:
            self._raise(packet)
        info = self._info(packet)
        self._signature = info.signature
        self._send(Packet(Op.NORMAL))
        return info

    def _info(self, packet: Packet) -> EngineInfo:
        try:
            output = self._slot.output
            if packet.op is not Op.LOADED or output is None or self._child is None:
                raise ChannelFault(f"expected LOADED, got {packet.op.name}")
            body = read_json(output, packet.header_bytes)
            signature = Signature.from_json(body["signature"])
            loaded = {str(name): str(digest) for name, digest in dict(body["loaded"]).items()}
        except (ChannelFault, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LoadError(f"{self._spec.ref}: its process answered the load with nonsense: {error}") from error
        return EngineInfo(signature, str(body.get("device")), self._child.pid, loaded)

    def _gather(self, parts: Sequence[Arrays], signature: Signature) -> tuple[int, int | None]:
        """Joins the parts in the input memory; gives the header's size and the batch's rows."""
        names = [spec.name for spec in signature.inputs]
        try:
            rows = sum(len(part[names[0]]) for part in parts) if signature.batched else None
            plan = Plan(parts, names, rows=rows)
            return plan.write(self._slot.input_of(plan.total_bytes)), rows
        except KeyError as error:
            raise InvalidInput(f"{self._spec.ref}: input {error.args[0]!r} is missing") from error
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{self._spec.ref}: {error}") from error
        except OSError as error:
            raise ModelError(f"{self._spec.ref}: no shared memory for this batch: {error.strerror}") from error

    def _result(self, packet: Packet, signature: Signature, rows: int | None) -> BatchResult:
        if packet.op is Op.FAILED:
            self._raise(packet)
        output = self._slot.output
        if packet.op is not Op.DONE or output is None:
            raise ChannelFault(f"expected DONE, got {packet.op.name}")
        header = read_header(output, packet.header_bytes)
        _check_promised(header, signature, rows)
        seconds = packet.seconds if 0 <= packet.seconds < float("inf") else 0.0
        return BatchResult(header.copies(output), seconds)

    def _raise(self, packet: Packet) -> NoReturn:
        kind, message = packet.failure
        raise FAILURES.get(kind, ModelError)(f"{self._spec.ref}: {message}")

    def _send(self, packet: Packet, fds: Sequence[int] = ()) -> None:
        if self._channel is None:
            raise VersionCrashed(f"{self._spec.ref}: its process is gone; start a new engine")
        try:
            send(self._channel, packet, fds)
        except OSError as error:
            if fds and not isinstance(error, ConnectionError):
                raise  # a memory that did not arrive: work sent after it would be done on the one before
            # The child is gone, or does not read; either way its end, or the batch's limit, will tell.

    async def _ask(self, packet: Packet, limit_s: float | None) -> Packet:
        """Sends, and waits for the answer. ``VersionHung`` past the limit, ``VersionCrashed`` when the child dies."""
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        watch = None if limit_s is None else HangWatch(loop, limit_s, self._on_packet, self._on_hang)
        try:
            if self._child is None:
                raise VersionCrashed(f"{self._spec.ref}: its process is gone; start a new engine")
            if self._child.ended.done():
                self._on_end(self._child.ended)
            else:
                self._send(packet)
            return await self._answer
        finally:
            self._answer = None
            if watch is not None:
                watch.cancel()

    def _on_packet(self) -> bool:
        """Takes in what has come; True if anything had."""
        came = False
        while self._channel is not None:
            try:
                received = self._received()
                if received is None:
                    return came
                came = True
                self._take(received)
            except (ChannelFault, OSError, ValueError) as error:
                self._fail(ChannelFault(str(error)))
                self._hang_up()
        return came

    def _received(self) -> Packet | None:
        """The next packet that has come; None when there is none, or when the other end is gone."""
        if self._channel is None:
            return None
        for _ in range(2):
            try:
                received = receive(self._channel)
            except BlockingIOError:
                return None
            except ConnectionError:
                # Told before what the child had sent: its last words are behind this.
                continue
            if received is not None:
                return received[0]
            break
        self._hang_up()
        return None

    def _take(self, packet: Packet) -> None:
        if packet.op is Op.GROW and self._answer is not None:
            if packet.size_bytes > MAX_BYTES:
                raise ChannelFault(f"the child wants {packet.size_bytes} bytes for its answer")
            self._slot.output_of(packet.size_bytes)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(packet)
        else:
            raise ChannelFault(f"the child sent {packet.op.name} without being asked")

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _on_hang(self, limit_s: float) -> None:
        self._fail(VersionHung(f"{self._spec.ref}: no answer within {limit_s:.3g} s; its process was ended"))

    def _on_end(self, ended: asyncio.Future[str]) -> None:
        how = ended.result()
        if self._answer is not None:
            # An answer may have been sent just before the end.
            self._on_packet()
            if self._answer.done():
                # Answered with its last breath: whoever asked is told that before they are told of its end.
                asyncio.get_running_loop().call_soon(self._tell_exit, how)
            work = "while loading" if self._signature is None else "on this work"
            self._fail(VersionCrashed(f"{self._spec.ref}: its process ended {work}: {how}"))
        elif self._signature is not None:
            self._tell_exit(how)

    def _tell_exit(self, how: str) -> None:
        told, self._on_exit = self._on_exit, None
        if told is not None and not self._ending:
            told(how)

    def _hang_up(self) -> None:
        """Closes the channel: the child ends by itself, or was ending already. A child that does not is killed."""
        channel, self._channel = self._channel, None
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel)
            channel.close()
        if self._child is not None and not self._ending:
            self._child.kill()

    async def _abandon(self) -> None:
        """Kills what is left of the child, waits for its end, and gives back channel and memories."""
        self._ending = True
        if self._child is not None:
            self._child.kill()
        self._hang_up()
        self._slot.close()
        child = self._child
        if child is not None:
            await asyncio.wait([child.ended], timeout=_END_LIMIT_S)
            self._child = None


def _check_promised(header: Header, signature: Signature, rows: int | None) -> None:
    """The child has checked this itself; one that was taken over may claim anything."""
    names = [placed.name for placed in header.tensors]
    if names != [spec.name for spec in signature.outputs]:
        raise ChannelFault(f"outputs {names} do not match the signature")
    for placed, spec in zip(header.tensors, signature.outputs, strict=True):
        expected = "FP32" if spec.datatype == "BF16" else spec.datatype
        if placed.datatype != expected or len(placed.shape) != len(spec.shape):
            raise ChannelFault(f"output {placed.name!r} is {placed.datatype} {placed.shape}, not {spec.datatype}")
        if rows is not None and placed.shape[:1] != (rows,):
            raise ChannelFault(f"output {placed.name!r} has shape {placed.shape} for {rows} rows")
