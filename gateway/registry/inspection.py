"""Asks a version about itself, in a process of its own: its signature, and whether it answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from gateway.errors import IntegrityError, InvalidRegistration
from gateway.messages import Signature
from gateway.registry.disk import explained
from runtimes import boot
from runtimes.base import LoadSpec

__all__ = ["Inspector", "TrialFailed", "end_group", "tail_of"]

_TAIL_BYTES = 2000


class TrialFailed(InvalidRegistration):
    """The version did not load or did not answer. ``kind`` is the runtime's word for it, or ``no-answer``."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Inspector:
    """``interpreter`` None is the gateway's own. ``timeout_s`` bounds loading and the run together."""

    interpreter: str | None = None
    timeout_s: float = 120.0

    def ask(self, spec: LoadSpec, example: bytes | None, *, batched: bool | None = None) -> Signature:
        """Loads the version, runs the example (canonical form) if there is one, and gives its signature.

        TrialFailed with the version's own words when it cannot; IntegrityError when the stored bytes
        are not those of the spec. The process and all that it started are gone on return.
        """
        with (
            explained("try the version with a temporary file"),
            tempfile.NamedTemporaryFile(prefix="turnout-example-", suffix=".json") as file,
        ):
            file.write(example or b"")
            file.flush()
            place = None if example is None else file.name
            request = {"spec": spec.to_json(), "example": place, "batched": batched}
            answer = self._answer(json.dumps(request).encode())
        if "error" in answer:
            kind, message = answer["error"]["kind"], answer["error"]["message"]
            if kind == "integrity":
                raise IntegrityError(message)
            raise TrialFailed(f"the version does not work here: {message}", kind)
        try:
            return Signature.from_json(answer["signature"])
        except (KeyError, ValueError) as error:
            raise TrialFailed(f"the version tells a signature that is none: {error}", "no-answer") from error

    def _answer(self, request: bytes) -> Mapping[str, Any]:
        with tempfile.TemporaryFile() as said:
            child = self._start(said)
            try:
                out, _ = child.communicate(request, timeout=self.timeout_s)
            except subprocess.TimeoutExpired:
                raise TrialFailed(
                    f"the version did not load and answer within {self.timeout_s:g} s; "
                    f"try it by itself, or allow more time{tail_of(said)}",
                    "no-answer",
                ) from None
            finally:
                end_group(child)
            try:
                answer = json.loads(out)
            except ValueError:
                raise TrialFailed(
                    f"the version's process ended while it was tried, with {_status(child.returncode)}{tail_of(said)}",
                    "no-answer",
                ) from None
        return answer if isinstance(answer, dict) else {}

    def _start(self, said: IO[bytes]) -> subprocess.Popen[bytes]:
        command = boot.command("inspect", ["--parent", str(os.getpid())], interpreter=self.interpreter)
        if self.interpreter is not None:
            command.insert(1, "-E")  # PYTHONPATH and PYTHONHOME would point it at this interpreter's packages
        try:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, process_group=0
            )
        except OSError as error:
            message = f"interpreter {command[0]} cannot be started: {error.strerror}; check its path"
            raise TrialFailed(message, "no-answer") from error


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Ends the child's whole group, also what model code left running there."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _status(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def tail_of(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _TAIL_BYTES))
    words = said.read().decode("utf-8", "replace").strip()
    return f"; it said: {words}" if words else ""
