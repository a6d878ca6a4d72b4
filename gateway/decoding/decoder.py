"""One decoder as the gateway holds it: a process, a socket, one text at a time."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from gateway.codec.limits import CodecLimits
from gateway.decoding.wire import receive, send
from runtimes.memory import Memory
from runtimes.process import out_of_reach

__all__ = ["Decoder", "DecoderEnded"]

_PACKAGES = str(Path(__file__).resolve().parents[2])
_SNIPPET = "import sys; sys.path.append(sys.argv.pop(1)); from gateway.decoding.process import main; main(sys.argv[1:])"


class DecoderEnded(Exception):
    """The process ended, or was ended, with a text in its hands."""


class Decoder:
    """Started by the constructor, in some 0.3 s, during which the first text may already be asked for.

    ``ended`` is called once, on the loop, when the process is gone. ``OSError`` when none can be started.
    """

    def __init__(self, *, limits: CodecLimits, body_bytes: int, ended: Callable[[Decoder], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._asked: asyncio.Future[dict[str, Any]] | None = None
        self._alive = True
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            told = ["--fd", str(theirs.fileno()), "--parent", str(os.getpid()), "--body-bytes", str(body_bytes)]
            told += ["--limits", orjson.dumps(asdict(limits)).decode()]
            command = [sys.executable, "-P", "-c", _SNIPPET, _PACKAGES, *told]
            try:
                with out_of_reach():
                    self._process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                    )
            except OSError:
                self._channel.close()
                raise
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel, self._on_answer)

    def __repr__(self) -> str:
        state = "ended" if not self._alive else "at work" if self._asked is not None else "idle"
        return f"<Decoder {self.pid} [{state}]>"

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, message: dict[str, Any], text: Memory, output: Memory, *, limit_s: float) -> dict[str, Any]:
        """The answer. DecoderEnded when the process ends first, or has taken longer than ``limit_s`` and is ended.

        Cancelled, it ends the process, which is not to be trusted with another text before it has answered.
        """
        if not self._alive:
            raise DecoderEnded
        self._asked = self._loop.create_future()
        try:
            send(self._channel, message, [text.fd, output.fd])
            async with asyncio.timeout(limit_s):
                return await self._asked
        except TimeoutError:
            self.end()
            raise DecoderEnded from None
        except OSError:
            self.end()
            raise DecoderEnded from None
        except asyncio.CancelledError:
            self.end()
            raise
        finally:
            self._asked = None

    def end(self) -> None:
        """Kills the process. Idempotent."""
        if not self._alive:
            return
        self._alive = False
        self._loop.remove_reader(self._channel)
        self._channel.close()
        self._process.kill()
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(DecoderEnded())
        self._ended(self)

    async def gone(self) -> None:
        """Returns when the process, which was ended, is reaped."""
        if self._process.poll() is None:
            await asyncio.to_thread(self._process.wait)

    def _on_answer(self) -> None:
        try:
            came = receive(self._channel)
        except BlockingIOError:
            return
        except OSError:
            came = None
        if came is None:
            self.end()
        elif self._asked is not None and not self._asked.done():
            self._asked.set_result(came[0])
