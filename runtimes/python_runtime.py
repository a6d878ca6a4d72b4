"""A Python file as a version: pre- and post-processing, and whatever no other format serves.

The file defines one class, ``Model``:

    import numpy as np
    from runtimes.base import InvalidInput

    SIGNATURE = {"inputs":  [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
                 "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch"]}]}      # optional

    class Model:
        def __init__(self, files):                # files.read(name) -> bytes, files.names()
            self.weights = np.frombuffer(files.read("weights.bin"), np.float32)

        def predict(self, inputs):                # {name: array} -> {name: array}; the first axis counts rows
            if (inputs["x"] < 0).any():
                raise InvalidInput("x must not be negative")           # the caller's fault: 422
            return {"y": inputs["x"] @ self.weights}

        def close(self): ...                      # optional

``Model()`` without arguments works too, with an optional ``load(self, files)``. Anything raised but
``InvalidInput`` and ``OutOfMemory`` is the model's fault. Arrays given to ``predict`` may be kept and
changed. BYTES are object arrays of ``bytes``. The code is compiled from the verified bytes; other
``.py`` files of the version can be imported by name.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from runtimes.base import Array, Arrays, Files, LoadFailed, LoadSpec, Runtime
from runtimes.signature import Signature

__all__ = ["PythonRuntime", "load"]


class PythonRuntime:
    """One instance of the file's ``Model``."""

    device = "cpu"

    def __init__(self, model: Any, signature: Signature) -> None:
        self._model = model
        self.signature = signature

    def run(self, inputs: Arrays) -> dict[str, Array]:
        # Copies: the batch's memory is reused, and model code may keep or change what it gets.
        answer: dict[str, Array] = self._model.predict({name: array.copy() for name, array in inputs.items()})
        return answer

    def close(self) -> None:
        close = getattr(self._model, "close", None)
        if close is not None:
            close()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the version's other ``.py`` files, out of verified bytes."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        name = fullname.replace(".", "/")
        for candidate, package in ((f"{name}.py", False), (f"{name}/__init__.py", True)):
            if candidate in self._files.names():
                return importlib.util.spec_from_loader(fullname, self, origin=candidate, is_package=package)
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = str(module.__spec__.origin) if module.__spec__ is not None else ""
        _execute(self._files.read(name), name, module)


def _execute(source: bytes, name: str, module: ModuleType) -> None:
    exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102 - running this file is what the format is for


def load(spec: LoadSpec, files: Files) -> Runtime:
    """``LoadFailed`` when the file has no usable ``Model``; what its code raises goes through."""
    if any(name.endswith(".py") and name != spec.entry for name in files.names()):
        sys.meta_path.append(_Finder(files))
    digest = next((file.sha256 for file in spec.files if file.name == spec.entry), "")
    module = ModuleType(f"turnout_model_{digest.removeprefix('sha256:')[:16]}")
    module.__file__ = spec.entry
    # Pickling and dataclasses look their module up by name.
    sys.modules[module.__name__] = module
    try:
        _execute(files.read(spec.entry), spec.entry, module)
    except SyntaxError as error:
        raise LoadFailed(f"{spec.entry!r} line {error.lineno} is no valid Python: {error.msg}") from error
    maker = getattr(module, "Model", None)
    if not isinstance(maker, type) or not callable(getattr(maker, "predict", None)):
        raise LoadFailed(f"{spec.entry!r} defines no class Model with a method predict(self, inputs)")
    return PythonRuntime(_made(maker, files), _signature(spec, getattr(module, "SIGNATURE", None)))


def _made(maker: type, files: Files) -> Any:
    takes_files = len(inspect.signature(maker).parameters) > 0
    model = maker(files) if takes_files else maker()
    load_files = getattr(model, "load", None)
    if not takes_files and load_files is not None:
        load_files(files)
    return model


def _signature(spec: LoadSpec, declared: Any) -> Signature:
    if spec.signature is not None and spec.signature.outputs:
        return spec.signature
    if declared is not None:
        try:
            return declared if isinstance(declared, Signature) else Signature.from_json(declared)
        except (ValueError, AttributeError) as error:
            raise LoadFailed(f"SIGNATURE in {spec.entry!r}: {error}") from error
    if spec.signature is None:
        raise LoadFailed(f"{spec.entry!r} declares no SIGNATURE; add one, or give a signature or an example")
    return spec.signature
