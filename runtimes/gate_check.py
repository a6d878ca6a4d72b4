"""Runs one check of somebody's own in a process with limits: it may ask the version, and says whether it passes.

The other end is ``gateway.registry.gates.custom``; frames as in ``runtimes.answering``. First comes ``{"code",
"function", "settings", "signature", "data", "limits"}``. The check asks with ``{"ask": "version"}`` and tensors, is
answered with outputs, and ends with ``{"verdict": …}`` or ``{"error": …}``.

The process keeps a mistake within bounds; it is no wall against code that means harm, which runs as Turnout's user.
"""

from __future__ import annotations

import inspect
import os
import resource
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from runtimes.answering import read_frame, write_frame
from runtimes.base import Array, Arrays
from runtimes.process import be_nice, die_with
from runtimes.signature import Signature

__all__ = ["Version", "main"]

MAX_FILE_BYTES = 64 << 20
MAX_FILES = 256


class Version:
    """What a check is given: ``signature``, ``ref`` and ``predict``."""

    def __init__(self, which: str, ref: str, signature: Signature, line: tuple[IO[bytes], IO[bytes]]) -> None:
        self.ref = ref
        self.signature = signature
        self._which = which
        self._line = line

    def __repr__(self) -> str:
        return f"<Version {self.ref}>"

    def predict(self, inputs: Arrays | Array) -> dict[str, Array]:
        """Outputs by name, of inputs by name; of one array, where the version takes one. RuntimeError when it fails."""
        named = inputs if isinstance(inputs, Mapping) else {self.signature.inputs[0].name: np.asarray(inputs)}
        write_frame(self._line[1], {"ask": self._which}, named)
        answer = read_frame(self._line[0])
        if answer is None:
            raise RuntimeError(f"{self.ref} does not answer any more")
        if "error" in answer[0]:
            raise RuntimeError(f"{self.ref}: {answer[0]['error']}")
        return answer[1]


def main(arguments: Sequence[str] = ()) -> None:
    """``--parent PID``."""
    die_with(int(arguments[1]))
    be_nice()
    incoming = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as outgoing:
        os.dup2(2, 1)
        request = read_frame(incoming)
        if request is not None:
            write_frame(outgoing, _outcome(request[0], (incoming, outgoing)))
    os._exit(0)


def _outcome(request: Mapping[str, Any], line: tuple[IO[bytes], IO[bytes]]) -> dict[str, Any]:
    try:
        _limit(request["limits"])
        space: dict[str, Any] = {"__name__": "gate_check"}
        exec(compile(request["code"], request["name"], "exec"), space)  # noqa: S102 - what it is for
        found = space.get(request["function"])
        if not callable(found):
            return {"error": f"{request['name']} has no function {request['function']!r}"}
        return {"verdict": _verdict(_called(found, request, line))}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary: a check raises anything, also exit()
        traceback.print_exc(limit=-8)
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
        return {"error": f"{type(error).__name__}: {str(error)[:2000]}{place}"}


def _called(check: Any, request: Mapping[str, Any], line: tuple[IO[bytes], IO[bytes]]) -> Any:
    """With as much of what there is as it names."""
    offered: dict[str, Any] = {"settings": dict(request["settings"]), "data": request["data"]}
    for which in ("version", "champion"):
        told = request[which]
        offered[which] = None
        if told is not None:
            offered[which] = Version(which, told["ref"], Signature.from_json(told["signature"]), line)
    wanted = inspect.signature(check).parameters
    strange = [name for name in wanted if name not in offered]
    if strange:
        raise TypeError(f"the check wants {strange[0]!r}; it may name {', '.join(sorted(offered))}")
    return check(**{name: offered[name] for name in wanted})


def _verdict(returned: Any) -> dict[str, Any]:
    if isinstance(returned, bool | np.bool_):
        return {"passed": bool(returned), "reason": "", "numbers": {}}
    if not isinstance(returned, Mapping) or not isinstance(returned.get("passed"), bool | np.bool_):
        raise TypeError(f"the check gave {returned!r:.200}; expected True, False or {{'passed': …, 'reason': …}}")
    numbers = {str(name): _plain(value) for name, value in dict(returned.get("numbers") or {}).items()}
    return {"passed": bool(returned["passed"]), "reason": str(returned.get("reason", ""))[:2000], "numbers": numbers}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    return value if isinstance(value, bool | int | str) or value is None else str(value)[:200]


def _limit(limits: Mapping[str, int]) -> None:
    """Of this process; set after its imports, which map more than they use."""
    held = _address_space() + limits["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (held, held))
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_s"], limits["cpu_s"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - before a limit on what may be held
        return int(file.read().split()[0]) * resource.getpagesize()
