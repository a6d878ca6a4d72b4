"""Which kind of engine runs a version, by its placement."""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import LoadError
from gateway.serving.engine import Engine, EngineFactory, VersionSpec
from gateway.serving.fork_server import ForkServer
from gateway.serving.inline_engine import InlineEngine
from gateway.serving.process_engine import ProcessEngine

__all__ = ["PLACEMENTS", "engine_factory"]

PLACEMENTS = ("process", "inline")


def engine_factory(fork_server: ForkServer) -> EngineFactory:
    """``process`` versions are children of ``fork_server``; ``inline`` ones live here.

    The factory raises ``LoadError`` for a placement that is neither, and for an inline version
    that wants an interpreter of its own.
    """

    def make(spec: VersionSpec, on_exit: Callable[[str], None]) -> Engine:
        if spec.placement == "process":
            return ProcessEngine(spec, fork_server, on_exit)
        if spec.placement == "inline":
            if spec.interpreter is not None:
                raise LoadError(f"{spec.ref}: placement inline cannot use interpreter {spec.interpreter}; use process")
            if spec.load.format == "python" and sum(file.name.endswith(".py") for file in spec.load.files) > 1:
                # Module names are shared by the whole process: one version could import another's file.
                raise LoadError(f"{spec.ref}: a python version of several .py files needs placement process")
            return InlineEngine(spec)
        raise LoadError(f"{spec.ref}: placement {spec.placement!r} is unknown; expected {' or '.join(PLACEMENTS)}")

    return make
