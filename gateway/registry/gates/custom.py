"""A check of the operator's own, in a process with limits, which asks the versions through this one."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import IO, Any

from gateway.errors import TurnoutError
from gateway.registry.gates.evaluation import Asked
from gateway.registry.gates.kinds import PythonGate
from gateway.registry.gates.report import Finding, State
from gateway.registry.inspection import end_group, tail_of
from runtimes import boot
from runtimes.answering import read_frame, write_frame

__all__ = ["custom"]

MB = 1_000_000
MAX_CODE_BYTES = 1_000_000
_SPARE_CPU_S = 5
"""Time on the clock ends a check, in words; the limit on processor time is for one that escapes its end."""


def custom(gate: PythonGate, code: bytes, version: Asked, champion: Asked | None, data: Path | None) -> Finding:
    """``data``: the file that the gate names, if it names one."""
    sides = {"version": version, "champion": champion}
    request: dict[str, Any] = {
        "name": gate.file.name,
        "code": code[:MAX_CODE_BYTES].decode("utf-8", "replace"),
        "function": gate.function,
        "settings": dict(gate.settings or {}),
        "data": None if data is None else str(data),
        "limits": {"memory_bytes": int(gate.memory_mb * MB), "cpu_s": ceil(gate.timeout_s * _cores()) + _SPARE_CPU_S},
    }
    for which, side in sides.items():
        request[which] = None if side is None else {"ref": side.ref, "signature": side.signature.to_json()}
    with tempfile.TemporaryFile() as said, tempfile.TemporaryDirectory(prefix="turnout-gate-") as folder:
        pipe = subprocess.PIPE
        command = boot.command("gate_check", ["--parent", str(os.getpid())])
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, process_group=0, cwd=folder)
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()

        watch = threading.Timer(gate.timeout_s, end)
        watch.start()
        try:
            ending = _conversed(child, request, sides)
        except (OSError, ValueError, KeyError, TypeError) as error:
            ending = {"error": f"it broke off: {error}"}
        finally:
            watch.cancel()
            end_group(child)
        if ending is None or (late.is_set() and "verdict" not in ending):
            ending = {"error": _ended(gate, child.returncode, said, late=late.is_set())}
    return _finding(gate, ending)


def _conversed(
    child: subprocess.Popen[bytes], request: Mapping[str, Any], sides: Mapping[str, Asked | None]
) -> dict[str, Any] | None:
    """Its last words; None when it ended without any."""
    if child.stdin is None or child.stdout is None:
        return None
    write_frame(child.stdin, request)
    while (frame := read_frame(child.stdout)) is not None:
        told, tensors = frame
        if "ask" not in told:
            return told
        side = sides.get(str(told["ask"]))
        try:
            if side is None:
                raise KeyError("there is no champion")
            write_frame(child.stdin, {}, side.answering.once(tensors))
        except (TurnoutError, KeyError) as fault:
            write_frame(child.stdin, {"error": str(fault)})
    return None


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _ended(gate: PythonGate, code: int | None, said: IO[bytes], *, late: bool) -> str:
    if late:
        return f"it was not done within {gate.timeout_s:g} s and was ended"
    how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
    return f"its process ended with {how} and no verdict{tail_of(said)}"


def _finding(gate: PythonGate, ending: Mapping[str, Any]) -> Finding:
    if "error" in ending:
        return Finding(gate.name, gate.kind, State.ERROR, f"{gate.file.name}: {ending['error']}")
    verdict = ending["verdict"]
    state = State.PASSED if verdict["passed"] else State.FAILED
    said = verdict["reason"] or f"{gate.file.name} says that it {'passes' if verdict['passed'] else 'does not pass'}"
    return Finding(gate.name, gate.kind, state, said, verdict["numbers"])
