"""Loads a version once and prints its signature: ``python -m runtimes.inspect < request.json``, for registration.

The request is ``{"spec": LoadSpec, "example": path or null, "batched": true, false or null}``; the example is
a ``.npz`` or ``.npy`` file, or JSON (``{"inputs": …}`` by name, a bare list for the only input, or the
Open Inference Protocol's list of tensors). The answer is one line of JSON on standard output:
``{"signature": …, "device": …, "loaded": …}``, or ``{"error": {"kind": …, "message": …}}`` with exit
status 1. A format that does not tell its outputs is run on the example, twice: once as it is and
once doubled, and axes that doubled count rows.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from runtimes import execution
from runtimes.base import Array, Arrays, LoadFailed, LoadSpec, ModelFailed, Runtime, RuntimeFailure
from runtimes.process import be_nice, cap_threads, die_with
from runtimes.signature import DATATYPES, Signature, TensorSpec, datatype_of

__all__ = ["Finding", "inspect", "main", "read_example"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a version said of itself; ``loaded`` maps file names to the digests of the bytes read."""

    signature: Signature
    device: str
    loaded: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {"signature": self.signature.to_json(), "device": self.device, "loaded": dict(self.loaded)}


def inspect(spec: LoadSpec, example: Arrays | None, *, batched: bool | None = None) -> Finding:
    """Loads, runs once, and completes the signature. Raises a ``RuntimeFailure`` that says what is missing."""
    assumed = spec
    if spec.signature is None and example is not None and spec.format != "onnx":
        assumed = replace(spec, signature=_inputs_of(example, batched is not False))
    loaded = execution.load(assumed)
    runtime = loaded.runtime
    try:
        signature = runtime.signature
        if not signature.outputs:
            signature = _completed(runtime, signature, example, batched)
        elif example is not None:
            rows = len(next(iter(example.values()))) if signature.batched else None
            execution.execute(runtime, example, rows)
        return Finding(signature, runtime.device, loaded.digests)
    finally:
        runtime.close()


def _inputs_of(example: Arrays, batched: bool) -> Signature:
    """The inputs alone; the first axis is the batch unless that was denied, or an input has no axis."""
    batched = batched and all(array.ndim for array in example.values())
    return Signature(
        tuple(
            TensorSpec(name, datatype_of(array), ("batch", *array.shape[1:]) if batched else array.shape)
            for name, array in example.items()
        ),
        (),
        batched,
    )


def _completed(runtime: Runtime, signature: Signature, example: Arrays | None, batched: bool | None) -> Signature:
    if example is None:
        raise LoadFailed("this format does not tell its outputs: give a signature, or an example input")
    once = _outputs(runtime, example)
    twice = None
    if signature.batched:
        try:
            twice = _outputs(runtime, {name: np.concatenate([array, array]) for name, array in example.items()})
        except RuntimeFailure:
            if batched:
                raise
    rows = len(next(iter(example.values()))) if signature.batched else 0
    counts = twice is not None and all(
        array.ndim and array.shape[0] == rows and twice[name].shape[0] == 2 * rows for name, array in once.items()
    )
    if batched and not counts:
        told = ", ".join(f"{name} {list(array.shape)}" for name, array in once.items())
        raise ModelFailed(f"the version was to be batched, but for {rows} rows it answered {told}")
    inputs = signature.inputs if counts else _inputs_of(example, batched=False).inputs
    outputs = tuple(_output(name, array, counts) for name, array in once.items())
    return Signature(inputs, outputs, counts)


def _outputs(runtime: Runtime, inputs: Arrays) -> dict[str, Array]:
    """As the model gives them: no signature to hold them against yet."""
    try:
        return {name: np.asarray(value) for name, value in runtime.run(inputs).items()}
    except RuntimeFailure:
        raise
    except (Exception, SystemExit) as error:  # model code raises anything
        raise ModelFailed(f"the example made the model raise {type(error).__name__}: {str(error)[:2000]}") from error


def _output(name: str, array: Array, batched: bool) -> TensorSpec:
    try:
        datatype = datatype_of(array)
    except ValueError as error:
        raise ModelFailed(f"output {name!r}: {error}") from error
    return TensorSpec(name, datatype, ("batch", *array.shape[1:]) if batched else array.shape)


def read_example(path: Path, signature: Signature | None) -> dict[str, Array]:
    """Arrays out of a file. ``LoadFailed`` says what was expected."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if path.suffix == ".npy":
            return {_only_name(signature): np.load(path, allow_pickle=False)}
        return _from_body(json.loads(path.read_bytes()), signature)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LoadFailed(f"example {path}: {error}; expected .npz, .npy, or JSON with inputs by name") from error


def _only_name(signature: Signature | None) -> str:
    return signature.inputs[0].name if signature is not None else "x"


def _from_body(body: Any, signature: Signature | None) -> dict[str, Array]:
    inputs = body.get("inputs", body) if isinstance(body, Mapping) else body
    types = {} if signature is None else {spec.name: spec.datatype for spec in signature.inputs}
    if isinstance(inputs, Mapping):
        return {name: _typed(value, types.get(name)) for name, value in inputs.items()}
    if isinstance(inputs, Sequence) and inputs and isinstance(inputs[0], Mapping):
        return {t["name"]: _typed(t["data"], t["datatype"]).reshape(t["shape"]) for t in inputs}
    name = _only_name(signature)
    return {name: _typed(inputs, types.get(name))}


def _typed(value: Any, datatype: str | None) -> Array:
    array = np.array(value)
    if datatype == "BYTES" or (datatype is None and array.dtype.kind in "US"):
        octets = np.empty(array.size, dtype=object)
        octets[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        return octets.reshape(array.shape)
    if datatype is not None:
        return array.astype(DATATYPES[datatype])
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def main(arguments: Sequence[str] = ()) -> None:
    """Reads the request from standard input. Prints of model code go to standard error.

    ``--parent PID``: ends with that process.
    """
    if arguments[:1] == ["--parent"]:
        die_with(int(arguments[1]))
        be_nice()
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        body = json.load(sys.stdin)
        spec = LoadSpec.from_json(body["spec"])
        cap_threads(spec.threads)
        path = body.get("example")
        example = None if path is None else read_example(Path(path), spec.signature)
        told = inspect(spec, example, batched=body.get("batched")).to_json()
        status = 0
    except RuntimeFailure as error:
        told, status = {"error": {"kind": error.kind, "message": str(error)}}, 1
    except (ValueError, KeyError, TypeError) as error:
        told, status = {"error": {"kind": "bad-request", "message": f"{type(error).__name__}: {error}"}}, 1
    answer.write(json.dumps(told) + "\n")
    answer.flush()
    os._exit(status)  # vendors' exit handlers and threads have nothing left to do


if __name__ == "__main__":
    main()
