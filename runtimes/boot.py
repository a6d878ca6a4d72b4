"""The command line that starts a module of this package in any interpreter, wherever the package lies.

``python -m`` would need the package's folder on the module path. From a wheel that folder is the
gateway's site-packages, and another interpreter would then import the gateway's numpy. So the
package alone is put in place, and the module path stays the interpreter's own. Standard library only.
"""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from runtimes.packets import failure, send

__all__ = ["command", "main"]

_SNIPPET = """\
import importlib.util as u, sys
sys.path[:] = [p for p in sys.path if p]
s = u.spec_from_file_location("runtimes", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
m = sys.modules["runtimes"] = u.module_from_spec(s)
s.loader.exec_module(m)
from runtimes.boot import main
main(sys.argv[2], sys.argv[3:])
"""


def command(module: str, arguments: Sequence[str] = (), *, interpreter: str | None = None) -> list[str]:
    """What to execute: ``module`` is a module of this package (``worker``) whose ``main(arguments)`` is called."""
    folder = str(Path(__file__).resolve().parent)
    return [interpreter or sys.executable, "-c", _SNIPPET, folder, module, *arguments]


def main(module: str, arguments: Sequence[str]) -> None:
    """Runs in the new interpreter. One that lacks a package says so over its channel, if it has one (``--fd N``)."""
    try:
        target = importlib.import_module(f"runtimes.{module}")
    except ImportError as error:
        message = (
            f"interpreter {sys.executable} (Python {sys.version.split()[0]}) cannot run versions: {error}; "
            f"it needs numpy and the packages of the version's format"
        )
        if module == "worker" and "--fd" in arguments:
            fd = int(arguments[list(arguments).index("--fd") + 1])
            send(socket.socket(fileno=fd), failure("load-failed", message))
        sys.exit(message)
    target.main(arguments)
