"""Example inputs: read as people write them, kept as one canonical form.

People write what they would send: ``{"inputs": [[…]]}`` or ``{"inputs": {"name": …}}`` as for ``/predict``,
a list of tensors as in the Open Inference Protocol, or a ``.npy`` or ``.npz`` file. Kept is the
protocol's form, ``{"inputs": [{"name", "datatype", "shape", "data"}]}``, as canonical JSON.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import InvalidRegistration, RegistryError
from gateway.messages import DATATYPES, Array, Arrays, Signature, TensorSpec, datatype_of
from gateway.registry import canonical
from gateway.registry.offered import read_offered, refusing

__all__ = ["Example", "from_canonical", "to_canonical"]

MAX_BYTES = 64 * 1024 * 1024
ONLY_INPUT = "input"
"""The name of a bare list's tensor while no signature has told it."""


@dataclass(frozen=True, slots=True)
class Example:
    """One request's inputs as somebody wrote them; their types may need a signature to be known."""

    what: str
    content: Any
    suffix: str

    @classmethod
    def of_file(cls, path: Path) -> Example:
        """A ``.npy``, ``.npz`` or JSON file. InvalidRegistration when it cannot be read."""
        data, what = read_offered(path, "example", MAX_BYTES), f"example {path}"
        if path.suffix in (".npy", ".npz"):
            return cls(what, data, path.suffix)
        with refusing():
            return cls(what, canonical.loads_any(data, what=what, max_bytes=MAX_BYTES), "")

    @classmethod
    def of_body(cls, body: Any, what: str) -> Example:
        return cls(what, body, "")

    def inputs(self, signature: Signature | None) -> Arrays:
        """Typed arrays. InvalidRegistration names the tensor that does not fit.

        Without a signature, bare integers are INT64 and other bare numbers FP32; the protocol's form
        and numpy files say their own types.
        """
        with refusing(self.what):
            if self.suffix:
                return _typed(_from_numpy(self.content, self.suffix, signature), signature)
            return _from_body(self.content, signature)


def to_canonical(inputs: Arrays) -> bytes:
    """The bytes kept in the store. InvalidRegistration for NaN, infinities and text that is not UTF-8."""
    tensors = []
    for name, array in inputs.items():
        flat = [_json_item(item, name) for item in array.ravel().tolist()]
        tensors.append({"name": name, "datatype": datatype_of(array), "shape": list(array.shape), "data": flat})
    with refusing("example"):
        return canonical.dumps({"inputs": tensors})


def from_canonical(data: bytes) -> Arrays:
    body = canonical.loads(data, what="the stored example", max_bytes=MAX_BYTES)
    try:
        return _from_body(body, None)
    except ValueError as error:
        raise RegistryError(f"the stored example: {error}") from None


def _from_numpy(data: bytes, suffix: str, signature: Signature | None) -> Arrays:
    try:
        if suffix == ".npz":
            _require_bounded(data)
        loaded = np.load(BytesIO(data), allow_pickle=False)
        if suffix == ".npy":
            return {_only_name(signature): loaded}
        return {name: loaded[name] for name in loaded.files}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a numpy file: {error}") from None
    except MemoryError:  # its header may claim any shape, and numpy asks for the room before it reads
        raise ValueError("a numpy file whose header claims more than memory holds") from None


def _require_bounded(data: bytes) -> None:
    """A few kilobytes can unfold into any number of gigabytes."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        unfolded = sum(member.file_size for member in archive.infolist())
    if unfolded > MAX_BYTES:
        raise ValueError(f"it unfolds into {unfolded} bytes; at most {MAX_BYTES} are read. One row is enough")


def _from_body(body: Any, signature: Signature | None) -> Arrays:
    inputs = body.get("inputs") if isinstance(body, Mapping) else body
    if not isinstance(inputs, Mapping | list) or not inputs:
        raise ValueError('expected {"inputs": …} with at least one tensor')
    if isinstance(inputs, list) and isinstance(inputs[0], Mapping):
        return _typed(dict(_protocol_tensor(tensor) for tensor in inputs), signature)
    named = inputs if isinstance(inputs, Mapping) else {_only_name(signature): inputs}
    if signature is None:
        return {name: _narrowed(_array(value, name, None)) for name, value in named.items()}
    types = {spec.name: spec.datatype for spec in signature.inputs}
    return _typed({name: _array(value, name, types.get(name)) for name, value in named.items()}, signature)


def _only_name(signature: Signature | None) -> str:
    if signature is None:
        return ONLY_INPUT
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise ValueError(f"the version takes several inputs ({names}); name each of them")
    return signature.inputs[0].name


def _protocol_tensor(tensor: Mapping[str, Any]) -> tuple[str, Array]:
    spec = TensorSpec.from_json(tensor)
    data = tensor.get("data")
    if not isinstance(data, list):
        raise ValueError(f"data of {spec.name!r}: expected a list")
    if any(isinstance(size, str) for size in spec.shape):
        raise ValueError(f"shape of {spec.name!r} is {list(spec.shape)}; an example has sizes, not names")
    array = _cast(_array(data, spec.name, spec.datatype), spec.datatype, spec.name)
    shape = [int(size) for size in spec.shape]
    if array.size != int(np.prod(shape)):
        raise ValueError(f"data of {spec.name!r} has {array.size} values, which do not fill its shape {shape}")
    return spec.name, array.reshape(shape)


def _array(value: Any, name: str, datatype: str | None) -> Array:
    try:
        array = np.array(value)
        if datatype == "UINT64" and array.dtype.kind in "fi":
            # numpy reads integers beside larger ones than INT64 holds as floats, which would round them.
            exact = np.array(value, dtype=object)
            if all(type(item) is int and 0 <= item < 2**64 for item in exact.ravel().tolist()):
                return exact.astype(np.uint64)
    except ValueError:
        raise ValueError(f"{name!r} is ragged: its lists differ in length") from None
    if array.dtype.kind not in "biufU":
        raise ValueError(f"{name!r}: expected numbers, booleans or strings throughout")
    return _as_bytes(array) if array.dtype.kind == "U" else array


def _narrowed(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _typed(inputs: Arrays, signature: Signature | None) -> Arrays:
    if signature is None:
        return {name: _as_bytes(array) if array.dtype.kind in "SU" else array for name, array in inputs.items()}
    expected = {spec.name: spec for spec in signature.inputs}
    if inputs.keys() != expected.keys():
        raise ValueError(f"inputs {sorted(inputs)} do not fit the signature's {sorted(expected)}")
    typed = {name: _cast(inputs[name], spec.datatype, name) for name, spec in expected.items()}
    for name, spec in expected.items():
        _check_shape(typed[name], spec)
    return typed


def _check_shape(array: Array, spec: TensorSpec) -> None:
    fits = len(array.shape) == len(spec.shape) and all(
        isinstance(size, str) or size == actual for size, actual in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{spec.name!r} has shape {list(array.shape)}; the signature says {list(spec.shape)}")


def _cast(array: Array, datatype: str, name: str) -> Array:
    """The array in the datatype, where no value changes its meaning; ValueError otherwise."""
    target = DATATYPES[datatype]
    kinds = {"O": "SUO", "b": "b", "i": "biu", "u": "biu", "f": "biuf"}[target.kind]
    if array.size and array.dtype.kind not in kinds:
        raise ValueError(f"{name!r} holds {datatype_of(array)}; expected {datatype}")
    if target.kind == "O":
        return _as_bytes(array)
    if target.kind in "iu" and array.size:
        limits = np.iinfo(target)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise ValueError(f"{name!r} holds values that do not fit {datatype}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and to_canonical refuses it by name
        return array.astype(target)


def _as_bytes(array: Array) -> Array:
    flat = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel().tolist()]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(array.shape)


def _json_item(item: Any, name: str) -> Any:
    if not isinstance(item, bytes):
        return item
    try:
        return item.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRegistration(f"example input {name!r}: {item[:40]!r} is not UTF-8 and cannot be kept") from None
