"""Starts the process that runs a version's gates, follows it, and ends it with all that it started.

Whatever becomes of that process, every gate has a finding: what it did not come to is an error, and so refused.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, Any

from gateway.errors import IntegrityError, RegistryError
from gateway.registry.blobs import BlobStore
from gateway.registry.gates.gate import Gate
from gateway.registry.gates.report import Finding, State
from gateway.registry.gates.request import GateRequest
from gateway.registry.inspection import end_group, tail_of

__all__ = ["GateProgress", "GateRun", "run_gates"]

POLL_S = 0.2
MAX_LINE_BYTES = 8 << 20

GateProgress = Callable[[str, int, int | None], None]
"""Told the gate, or the data, that is being looked at, rows done, and rows in all where that is known."""


@dataclass(frozen=True, slots=True)
class GateRun:
    """``findings`` in the declaration's order. ``memory``: what the process of the gates, and the largest of those that
    it started, held at most; nothing of one that broke off."""

    findings: tuple[Finding, ...]
    memory: Mapping[str, int]


def run_gates(
    request: GateRequest,
    blobs: BlobStore,
    *,
    progress: GateProgress = lambda _stage, _done, _total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> GateRun:
    """A finding for each gate. Blocks; ends the process when ``stopped`` says so.

    Nothing is raised for what is wrong with the version, the data or the process: those are findings.
    """
    with ExitStack() as stack:
        files = _opened(request, blobs, stack)
        said = stack.enter_context(tempfile.TemporaryFile())
        command = [sys.executable, "-m", "gateway.registry.gates.process"]
        pipe = subprocess.PIPE
        child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=said, process_group=0, pass_fds=list(files.values())
        )
        try:
            _ask(child, {"parent": os.getpid(), "request": request.to_json(), "files": files})
            found, ended, memory = _followed(child, request.declaration.timeout_s, progress, stopped)
        finally:
            end_group(child)
        missed = ended or f"the process of the gates ended with {_status(child.returncode)}{tail_of(said)}"
    findings = [found.get(gate.name) or _not_reached(gate, missed) for gate in request.declaration.gates]
    return GateRun(tuple(findings), memory)


def _opened(request: GateRequest, blobs: BlobStore, stack: ExitStack) -> dict[str, int]:
    """What is missing is told by the gate that needs it."""
    files = {}
    for digest in request.blobs():
        with suppress(OSError, IntegrityError):
            files[digest] = os.open(blobs.path(digest), os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, files[digest])
    return files


def _ask(child: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
    if child.stdin is not None:
        with suppress(OSError):  # it died at once: its end tells
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()


def _followed(
    child: subprocess.Popen[bytes], timeout_s: float, progress: GateProgress, stopped: Callable[[], bool]
) -> tuple[dict[str, Finding], str, Mapping[str, int]]:
    """What was found, why the rest was not, if that is known here, and what the process held."""
    found: dict[str, Finding] = {}
    deadline = time.monotonic() + timeout_s
    if child.stdout is None:
        return found, "the process of the gates says nothing", {}
    for line in _lines(child.stdout):
        if stopped():
            return found, "the run was cancelled", {}
        if time.monotonic() > deadline:
            return found, f"the gates were not done within {timeout_s:g} s (timeout_s of the declaration)", {}
        if line is None:
            continue
        try:
            told = json.loads(line)
            if "finding" in told:
                finding = Finding.from_json(told["finding"])
                found[finding.name] = finding
            elif "stage" in told:
                progress(str(told["stage"]), int(told["done"]), told["total"])
            elif "end" in told:
                return found, "it was not looked at", dict(told["end"])
        except (ValueError, TypeError, KeyError, RegistryError) as error:
            return found, f"the process of the gates said what is none of its words: {error}", {}
    return found, "", {}


def _lines(out: IO[bytes]) -> Iterator[bytes | None]:
    """Whole lines as they come, and None while none does."""
    held = b""
    with selectors.DefaultSelector() as ready:
        ready.register(out, selectors.EVENT_READ)
        while True:
            if not ready.select(POLL_S):
                yield None
                continue
            octets = os.read(out.fileno(), 1 << 16)
            if not octets:
                return
            *lines, held = (held + octets).split(b"\n")
            yield from lines
            if len(held) > MAX_LINE_BYTES:
                yield b"a line without end"


def _not_reached(gate: Gate, why: str) -> Finding:
    return Finding(gate.name, gate.kind, State.ERROR, why)


def _status(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
