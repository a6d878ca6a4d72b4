"""The child that asks another system: one request as JSON on its standard input, JSON lines as its answer.

    python -E child.py SYSTEM    imports SYSTEM_client from beside this file; never the gateway

A request is ``{"verb", "place", "folder", "limits": {"files", "bytes"}, "settings": {…}, …}``. An answer is any number
of ``{"progress": {"done", "total"}}``, then one ``{"result": …}`` or ``{"error": {"kind", "message"}}``. What the
vendor prints goes to standard error. A client fetches files into ``folder/files``, and what goes beside them into
``folder/beside``.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from typing import Any

KINDS = (
    (ImportError, "not-installed"),
    (LookupError, "not-found"),
    (ConnectionError, "unreachable"),
    (TimeoutError, "unreachable"),
    (ValueError, "refused"),
    (PermissionError, "refused"),
    (OSError, "disk"),
)
"""Error to kind, the first that fits: what a client means by raising it. All else is ``failed``."""

QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "DVC_STUDIO_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}
"""Vendors report on their users unless they are told not to, before they are imported."""

_PR_SET_PDEATHSIG = 1


def main(system: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def say(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    def told(done: int, total: int) -> None:
        say({"progress": {"done": done, "total": total}})

    os.environ.update(QUIET)
    request = json.loads(sys.stdin.buffer.read())
    try:
        client = importlib.import_module(f"{system}_client")
        verb = getattr(client, request["verb"])
        result = verb(request, told) if request["verb"] == "fetch" else verb(request)
    except Exception as error:  # noqa: BLE001 - the process's outermost boundary: whatever a vendor raises becomes an answer
        say({"error": {"kind": kind_of(error), "message": _words(error)}})
        return
    say({"result": result})


def kind_of(error: BaseException) -> str:
    return next((kind for known, kind in KINDS if isinstance(error, known)), "failed")


def _words(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    name = type(error).__name__
    plain = type(error).__module__ == "builtins" and text
    return (text if plain else f"{name}: {text}" if text else name)[:2000]


if __name__ == "__main__":
    main(sys.argv[1])
