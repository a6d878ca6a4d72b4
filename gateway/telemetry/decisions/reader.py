"""Answers questions about the log in a process of its own: one line of JSON in, one out, until its input ends.

``python -m gateway.telemetry.decisions.reader FOLDER``. Not in the recorder, whose one loop would let the road fill
meanwhile, and not in a thread of the node, which would share the interpreter's lock with every request, and keep 40 MB
of pyarrow for ever. numpy is kept out: pyarrow works without, and starts in half the time.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from gateway.errors import TurnoutError
from gateway.telemetry.decisions.found import Question
from gateway.telemetry.decisions.lookup import Lookup, Tables

__all__ = ["main", "opened"]

_TABLES = "gateway.telemetry.decisions.tables"
_NICENESS = 5


def opened(folder: Path) -> Lookup:
    """With what reads compacted segments, if that is installed."""
    tables: Tables | None = None
    if importlib.util.find_spec("pyarrow") is not None:
        tables = importlib.import_module(_TABLES).ParquetTables()
    return Lookup(folder, tables)


def answer(lookup: Lookup, question: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        if "one" in question:
            return {"answer": lookup.one(str(question["one"]))}
        return {"answer": lookup.page(Question(**question["page"]))}
    except TurnoutError as error:
        return {"error": type(error).__name__, "detail": str(error)}
    except (OSError, ValueError) as error:
        return {"error": "TurnoutError", "detail": f"the decision log cannot be read: {error}"}


def main() -> int:
    sys.modules.setdefault("numpy", None)  # type: ignore[arg-type] # makes an import of it fail, which pyarrow expects
    with suppress(OSError):
        os.nice(_NICENESS)
    lookup = opened(Path(sys.argv[1]))
    sys.stdout.buffer.write(b'{"ready":true}\n')
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(orjson.dumps(answer(lookup, orjson.loads(line))) + b"\n")
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
