"""Format name to module. A vendor is imported when a version asks for it, and never before."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from types import ModuleType

from runtimes.base import Files, LoadFailed, LoadSpec, Runtime

__all__ = ["COMPANIONS", "FORMATS", "guess_format", "load", "preloads"]

FORMATS: Mapping[str, str] = {
    "onnx": "runtimes.onnx_runtime",
    "torch": "runtimes.torch_runtime",
    "sklearn": "runtimes.sklearn_runtime",
    "python": "runtimes.python_runtime",
    "echo": "runtimes.echo",
}

COMPANIONS: Mapping[str, Sequence[str]] = {
    "torch": (
        "torch.export.pt2_archive._package",
        "torch.export._trace",
        "torch.export._unlift",
        "torch._functorch.aot_autograd",
        "torch._inductor.codecache",
        "torch._inductor.sizevars",
        "torch._export.db.logging",
        "torch._export.passes.add_runtime_assertions_for_constraints_pass",
        "torch._export.passes.collect_tracepoints_pass",
        "torch.fx.experimental.validator",
    ),
}
"""What a vendor imports only when it first works: torch another thousand modules, with its first program."""

_SUFFIXES: Mapping[str, str] = {
    ".onnx": "onnx",
    ".pt2": "torch",
    ".pt": "torch",
    ".skops": "sklearn",
    ".pkl": "sklearn",
    ".py": "python",
    ".echo": "echo",
}


def guess_format(file_name: str) -> str | None:
    """The format a file's name speaks for, or None."""
    return _SUFFIXES.get(PurePath(file_name).suffix.lower())


def preloads(formats: Iterable[str] = FORMATS) -> tuple[str, ...]:
    """Modules that a fork server imports, so that versions of these formats start in tens of milliseconds."""
    names = [name for format_name in formats for name in (format_name, FORMATS[format_name])]
    return tuple(name for name in names if name in COMPANIONS or name.startswith("runtimes."))


def module_of(format_name: str) -> ModuleType:
    """``LoadFailed`` when the format is unknown, or its packages are missing here."""
    try:
        name = FORMATS[format_name]
    except KeyError:
        raise LoadFailed(f"format {format_name!r} is unknown; expected one of {', '.join(FORMATS)}") from None
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LoadFailed(
            f"format {format_name!r} cannot be loaded here: {error}; install turnout[{format_name}], "
            f"or the packages it lacks in the version's interpreter"
        ) from error


def load(spec: LoadSpec, files: Files) -> Runtime:
    """Loads a version with its format's module. ``LoadFailed`` or ``IntegrityFailed`` when it cannot be."""
    runtime: Runtime = module_of(spec.format).load(spec, files)
    return runtime
