"""A model of MLflow's pyfunc as a version: its folder is put together out of verified bytes, and loaded by MLflow.

This file is a part of the version that it serves. It knows MLflow, and the interface of the python runtime.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd

_FOLDER = "artifact/"
_PREFIX = "turnout-mlflow-"


class Model:
    """The loaded pyfunc. Its folder stays as long as this process lives: models may read their artifacts late."""

    def __init__(self, files: Any) -> None:
        _sweep()
        self._root, self._lock = _held()
        for name in files.names():
            if name.startswith(_FOLDER):
                path = self._root / name.removeprefix(_FOLDER)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files.read(name))
        self._model = mlflow.pyfunc.load_model(str(self._root))
        schema = self._model.metadata.get_input_schema()
        self._types = (
            {}
            if schema is None or schema.is_tensor_spec()
            else dict(
                zip(
                    (str(name) for name in schema.input_names()),
                    (str(kind) for kind in schema.input_types()),
                    strict=False,
                )
            )
        )
        self._named = schema is None or bool(schema.has_input_names())
        self._tensors = schema is not None and schema.is_tensor_spec()
        answers = self._model.metadata.get_output_schema()
        self._outputs = (
            [] if answers is None or not answers.has_input_names() else [str(n) for n in answers.input_names()]
        )

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self._answer(self._model.predict(self._asked(inputs)))

    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)
        os.close(self._lock)

    def _asked(self, inputs: Mapping[str, Any]) -> Any:
        if self._tensors or any(array.ndim > 1 for array in inputs.values()):
            named = {name: _texts(array) for name, array in inputs.items()}
            return named if self._named and self._tensors else next(iter(named.values()))
        if self._types or len(inputs) > 1 or self._named:
            return pd.DataFrame({name: _column(array, self._types.get(name, "")) for name, array in inputs.items()})
        return _texts(next(iter(inputs.values())))

    def _answer(self, answer: Any) -> dict[str, Any]:
        if isinstance(answer, pd.DataFrame):
            return {str(name): _given(answer[name].to_numpy()) for name in answer.columns}
        if isinstance(answer, Mapping):
            return {str(name): _given(np.asarray(value)) for name, value in answer.items()}
        array = answer.to_numpy() if isinstance(answer, pd.Series) else np.asarray(answer)
        if len(self._outputs) > 1 and array.ndim == 2 and array.shape[1] == len(self._outputs):
            return {name: _given(array[:, index]) for index, name in enumerate(self._outputs)}
        return {self._outputs[0] if self._outputs else "prediction": _given(array)}


def _texts(array: Any) -> Any:
    if array.dtype != object:
        return array
    texts = np.empty(array.size, dtype=object)
    texts[:] = [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
    return texts.reshape(array.shape)


def _column(array: Any, kind: str) -> Any:
    """A column as MLflow's schema wants it: times out of ISO 8601, nested values out of JSON."""
    if array.dtype != object or kind.endswith("binary"):
        return list(array) if array.dtype == object else array
    texts = [item.decode() if isinstance(item, bytes) else item for item in array]
    if kind.endswith("datetime"):
        return pd.to_datetime(pd.Series(texts))
    if kind.startswith(("Array", "Object", "Map", "{", "Any")):
        return [json.loads(text) for text in texts]
    return texts


def _given(array: Any) -> Any:
    """Texts, times and nested values as the bytes that the protocol knows."""
    if array.dtype.kind in "biuf":
        return array
    flat = array.ravel()
    octets = np.empty(flat.size, dtype=object)
    octets[:] = [item if isinstance(item, bytes) else _text(item).encode() for item in flat]
    return octets.reshape(array.shape)


def _text(item: Any) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict | list):
        return json.dumps(item)
    return item.isoformat() if hasattr(item, "isoformat") else str(item)


def _held() -> tuple[Path, int]:
    """A new folder and its lock. One that was taken for a dead process's before it was locked is made again."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, lock
            os.close(lock)


def _sweep() -> None:
    """Removes what processes that were killed left; a living one holds its folder's lock."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
