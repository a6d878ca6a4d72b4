"""scikit-learn estimators: ``.skops`` files (safe), and pickles where the operator allows them by name.

A skops file names the types it holds, and only those of scikit-learn itself, and of scipy and numpy
as far as estimators need them, are let in. A pickle runs code of its author's choice as it is
loaded, with all rights of the runtime process: ``allow_pickle`` is that trust, given in the settings
for a model by name.

Each output of the signature is a method of the estimator. The option ``outputs`` says which
(``{"score": "decision_function"}``); without it an output's name speaks:

    label, class, prediction, predict      predict
    probabilities, probability             predict_proba
    log_probabilities                      predict_log_proba
    decision, scores                       decision_function
    transformed, features                  transform
    anything else, when it stands alone    predict, or transform for what cannot predict

Without a signature, one input ``x`` (FP64) of ``n_features_in_`` columns is assumed. Several inputs
are columns: put side by side in order, or by name when the estimator was fitted on a data frame.
"""

from __future__ import annotations

import importlib
import io
import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import sklearn
import skops.io
import threadpoolctl  # type: ignore[import-untyped]

from runtimes.base import Array, Arrays, Files, InvalidInput, LoadFailed, LoadSpec, ModelFailed, Runtime
from runtimes.signature import Signature, TensorSpec, datatype_of

__all__ = ["SklearnRuntime", "load"]

_METHODS: Mapping[str, str] = {
    "label": "predict",
    "class": "predict",
    "prediction": "predict",
    "predict": "predict",
    "probabilities": "predict_proba",
    "probability": "predict_proba",
    "log_probabilities": "predict_log_proba",
    "decision": "decision_function",
    "scores": "decision_function",
    "transformed": "transform",
    "features": "transform",
}
_KNOWN_METHODS = {*_METHODS.values(), "score_samples"}
_TRUSTED = ("sklearn.", "scipy.sparse.", "scipy.interpolate.", "scipy.stats.", "scipy.spatial.", "numpy.random.")


class SklearnRuntime:
    """``methods`` maps output names to the estimator's methods."""

    device = "cpu"

    def __init__(self, estimator: Any, signature: Signature, methods: Mapping[str, str]) -> None:
        self._estimator = estimator
        self.signature = signature
        self._methods = dict(methods)
        self._columns = _columns(estimator, signature)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        table = self._table(inputs)
        answers = {method: self._ask(method, table) for method in dict.fromkeys(self._methods.values())}
        return {name: answers[method] for name, method in self._methods.items()}

    def close(self) -> None:
        self._estimator = None

    def _ask(self, method: str, table: Any) -> Array:
        answer = getattr(self._estimator, method)(table)
        if isinstance(answer, list | tuple):
            raise ModelFailed(f"{method} of a model with several targets gives {len(answer)} arrays, expected one")
        array = np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)
        return _octets(array) if array.dtype.kind in "OU" else array

    def _table(self, inputs: Arrays) -> Any:
        arrays = [_texts(inputs[spec.name]) for spec in self.signature.inputs]
        if self._columns is not None:
            pandas = importlib.import_module("pandas")
            return pandas.DataFrame(
                {column: array.reshape(len(array)) for column, array in zip(self._columns, arrays, strict=True)}
            )
        if len(arrays) == 1:
            # A copy: the batch's memory cannot be written, which some estimators insist on.
            return np.array(arrays[0], copy=True, order="C")
        if any(array.dtype == object for array in arrays):
            arrays = [array.astype(object) for array in arrays]
        return np.column_stack(arrays)


def _texts(array: Array) -> Array:
    if array.dtype != object:
        return array
    try:
        texts = [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"expected UTF-8 text, got bytes that are not: {error}") from None
    decoded = np.empty(len(texts), dtype=object)
    decoded[:] = texts
    return decoded.reshape(array.shape)


def _octets(array: Array) -> Array:
    octets = np.empty(array.size, dtype=object)
    octets[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    return octets.reshape(array.shape)


def _columns(estimator: Any, signature: Signature) -> list[str] | None:
    """Names to build a data frame with, when the estimator knows columns by name and pandas is here."""
    known = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    names = [spec.name for spec in signature.inputs]
    if len(names) < 2 or sorted(names) != sorted(known):
        return None
    try:
        importlib.import_module("pandas")
    except ImportError:
        raise LoadFailed("the estimator was fitted on a data frame with these columns; it needs pandas here") from None
    return names


def load(spec: LoadSpec, files: Files) -> Runtime:
    """``LoadFailed`` for untrusted types, pickles without leave, and outputs that the estimator cannot give."""
    if spec.device.startswith("cuda"):
        raise LoadFailed(f"device {spec.device} was asked for; scikit-learn runs on the cpu")
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    threadpoolctl.threadpool_limits(limits=spec.threads)
    content = files.read(spec.entry)
    estimator = _from_skops(spec, content) if spec.entry.endswith(".skops") else _from_pickle(spec, content)
    if not any(hasattr(estimator, method) for method in _KNOWN_METHODS):
        raise LoadFailed(f"{spec.entry!r} holds a {type(estimator).__name__}, which can neither predict nor transform")
    signature = spec.signature or _own_signature(estimator)
    names = [tensor.name for tensor in signature.outputs] or list(_defaults(estimator))
    return SklearnRuntime(estimator, signature, _methods(estimator, names, spec.options.get("outputs", {})))


def _from_skops(spec: LoadSpec, content: bytes) -> Any:
    try:
        found = skops.io.get_untrusted_types(data=content)
        refused = sorted(name for name in found if not _trusted(name))
        if refused:
            raise LoadFailed(
                f"{spec.entry!r} holds types that are not let in: {', '.join(refused)}; only scikit-learn's own are, "
                f"so serve custom code as a python version, or in placement process with a pickle that you allow"
            )
        return skops.io.loads(content, trusted=found)
    except LoadFailed:
        raise
    except Exception as error:  # anything may come out of a file that is none
        raise LoadFailed(
            f"skops {skops.__version__} with scikit-learn {sklearn.__version__} cannot load {spec.entry!r}: "
            f"{type(error).__name__}: {str(error)[:1000]}"
        ) from error


def _trusted(name: str) -> bool:
    """A class (never a function) out of the packages that estimators are made of."""
    if not name.startswith(_TRUSTED):
        return False
    module, _, attribute = name.rpartition(".")
    try:
        return isinstance(getattr(importlib.import_module(module), attribute, None), type)
    except ImportError:
        return False


def _from_pickle(spec: LoadSpec, content: bytes) -> Any:
    if not spec.allow_pickle:
        raise LoadFailed(
            f"{spec.entry!r} is a pickle, and loading one runs whatever code its author put in; save the model with "
            f"skops.io.dump, or allow pickles for this model by name in the settings (allow_pickle)"
        )
    try:
        # joblib reads plain pickles too.
        return joblib.load(io.BytesIO(content))
    except (pickle.UnpicklingError, EOFError, ImportError, AttributeError, ValueError, KeyError, IndexError) as error:
        raise LoadFailed(
            f"scikit-learn {sklearn.__version__} cannot load {spec.entry!r}: "
            f"{type(error).__name__}: {str(error)[:1000]}"
        ) from error


def _defaults(estimator: Any) -> dict[str, str]:
    """Output names and methods where nothing names them."""
    if not hasattr(estimator, "predict"):
        return {"transformed": "transform"}
    if not sklearn.base.is_classifier(estimator):
        return {"prediction": "predict"}
    both = {"probabilities": "predict_proba"} if hasattr(estimator, "predict_proba") else {}
    return {"label": "predict", **both}


def _methods(estimator: Any, names: list[str], chosen: Mapping[str, str]) -> dict[str, str]:
    methods: dict[str, str] = {}
    for name in names:
        alone = "predict" if hasattr(estimator, "predict") else "transform"
        method = chosen.get(name) or _METHODS.get(name.lower()) or (alone if len(names) == 1 else None)
        if method is None or method not in _KNOWN_METHODS:
            raise LoadFailed(
                f"output {name!r}: which method gives it? Say so in the option outputs, as in "
                f'{{"{name}": "predict_proba"}}; known are {", ".join(sorted(_KNOWN_METHODS))}'
            )
        if not hasattr(estimator, method):
            raise LoadFailed(f"output {name!r} needs {method}, which a {type(estimator).__name__} does not have")
        methods[name] = method
    return methods


def _own_signature(estimator: Any) -> Signature:
    """One table in, and what the default methods say of a table of zeros."""
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        raise LoadFailed("the estimator does not tell how many features it takes; give a signature, or an example")
    table = np.zeros((2, int(width)))
    outputs = []
    for name, method in _defaults(estimator).items():
        answer = np.asarray(getattr(estimator, method)(table))
        datatype = "BYTES" if answer.dtype == object else datatype_of(answer)
        outputs.append(TensorSpec(name, datatype, ("batch", *answer.shape[1:])))
    return Signature((TensorSpec("x", "FP64", ("batch", int(width))),), tuple(outputs))
