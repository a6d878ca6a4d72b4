"""PyTorch models: ``torch.export`` programs (``.pt2``, or saved as ``.pt``) and TorchScript (``.pt``).

A pt2 program tells its own signature: input names are the arguments of ``forward``; outputs keep
the keys of a returned dict, and are else called ``output``, or ``output_0``, ``output_1`` …
TorchScript does not, so it needs a signature or an example. A given signature names the outputs of
a returned tuple in order. Both are loaded from verified bytes.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from runtimes.base import Array, Arrays, Files, InvalidInput, LoadFailed, LoadSpec, ModelFailed, OutOfMemory, Runtime
from runtimes.signature import Signature, TensorSpec

__all__ = ["TorchRuntime", "load"]

_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_PICKLE_ADVICE = (
    "loading that runs whatever code its author put in: export the model with tensors and plain values alone, "
    "or allow pickles for this model by name in the settings (allow_pickle)"
)

_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}


class TorchRuntime:
    """``positional`` and ``named`` are the inputs as ``forward`` takes them, in order and by keyword."""

    def __init__(
        self,
        call: Callable[..., Any],
        signature: Signature,
        device: str,
        positional: Sequence[str],
        named: Sequence[str],
    ) -> None:
        self._call: Callable[..., Any] | None = call
        self.signature = signature
        self.device = device
        self._positional = tuple(positional)
        self._named = tuple(named)
        self._bfloat = {spec.name for spec in signature.inputs if spec.datatype == "BF16"}

    def run(self, inputs: Arrays) -> dict[str, Array]:
        if self._call is None:
            raise ModelFailed("this runtime is closed")
        try:
            with torch.inference_mode():
                values = [self._tensor(name, inputs[name]) for name in self._positional]
                named = {name: self._tensor(name, inputs[name]) for name in self._named}
                return self._outputs(self._call(*values, **named))
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemory(f"the batch does not fit {self.device}: {str(error)[:500]}") from error
        except AssertionError as error:
            if str(error).startswith("Guard failed"):
                raise InvalidInput(f"the program was exported for other shapes: {error}") from error
            raise
        except RuntimeError as error:
            if "can't allocate memory" in str(error) or "out of memory" in str(error):
                raise OutOfMemory(f"the batch does not fit {self.device}: {str(error)[:500]}") from error
            raise

    def close(self) -> None:
        self._call = None
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _tensor(self, name: str, array: Array) -> Any:
        # A copy: the batch's memory cannot be written, and a model may work in place.
        tensor = torch.from_numpy(np.array(array, copy=True, order="C"))
        if name in self._bfloat:
            tensor = tensor.to(torch.bfloat16)
        return tensor if self.device == "cpu" else tensor.to(self.device)

    def _outputs(self, returned: Any) -> dict[str, Array]:
        names = [spec.name for spec in self.signature.outputs]
        if isinstance(returned, Mapping):
            return {str(key): _array(value) for key, value in returned.items() if torch.is_tensor(value)}
        values = list(returned) if isinstance(returned, tuple | list) else [returned]
        names = names or _default_names(len(values))
        if len(values) != len(names):
            raise ModelFailed(f"the model returned {len(values)} outputs, the signature names {', '.join(names)}")
        return {name: _array(value) for name, value in zip(names, values, strict=True)}


def _default_names(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _array(value: Any) -> Array:
    if not torch.is_tensor(value):
        raise ModelFailed(f"the model returned a {type(value).__name__} where a tensor was expected")
    tensor = value.detach()
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
    return array


def load(spec: LoadSpec, files: Files) -> Runtime:
    """``LoadFailed`` when the file is neither kind, or wants a device that is not here."""
    torch.set_num_threads(spec.threads)
    # It logs the trace of what it then raises.
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    device = _device(spec.device)
    if spec.signature is not None:
        strings = [tensor.name for tensor in spec.signature.inputs if tensor.datatype == "BYTES"]
        if strings:
            raise LoadFailed(f"input {strings[0]!r} is BYTES, which torch has no tensors of")
    content = files.read(spec.entry)
    if spec.entry.endswith(".pt2") or _is_exported(content):
        return _load_exported(spec, content, device)
    return _load_script(spec, content, device)


def _device(asked: str) -> str:
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return "cpu"
    name = "cuda:0" if asked in ("auto", "cuda") else asked
    kind, _, number = name.partition(":")
    if kind != "cuda" or not number.isdigit():
        raise LoadFailed(f"device {asked!r} is unknown; expected auto, cpu or cuda:N")
    if not torch.cuda.is_available() or int(number) >= torch.cuda.device_count():
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise LoadFailed(f"device {asked} was asked for; torch {torch.__version__} finds {found} CUDA devices here")
    return name


def _is_exported(content: bytes) -> bool:
    """``torch.export.save`` leaves its mark whatever the file is called; many call it ``.pt``."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(name.endswith("/archive_format") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError):
        return False


@contextmanager
def _weights_only(spec: LoadSpec, content: bytes) -> Iterator[None]:
    """``torch.export.load`` unpickles what a file asks it to, if need be without ``weights_only``: its sample inputs,
    weights marked as pickled, opaque constants. That is code of the author's choice, as in any pickle, so it needs
    the operator's word. For ``torch.load`` the variable wins over what its callers say; constants go past it."""
    if spec.allow_pickle:
        yield
        return
    if any("opaque_obj" in name for name in torch.PyTorchFileReader(io.BytesIO(content)).get_all_records()):
        raise LoadFailed(f"{spec.entry!r} holds a pickled constant; {_PICKLE_ADVICE}")
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    except pickle.UnpicklingError as error:
        raise LoadFailed(f"{spec.entry!r} holds a pickle of more than tensors; {_PICKLE_ADVICE}") from error
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before


def _load_exported(spec: LoadSpec, content: bytes, device: str) -> Runtime:
    try:
        with _weights_only(spec, content):
            program = torch.export.load(io.BytesIO(content))
    except LoadFailed:
        raise
    except Exception as error:  # anything may come out of a file that is none
        raise LoadFailed(f"torch {torch.__version__} cannot load {spec.entry!r}: {_short(error)}") from error
    if device != "cpu":
        program = torch.export.passes.move_to_device_pass(program, device)
    positional, named = _arguments(program)
    own = _own_signature(program)
    signature = spec.signature or own
    if not signature.outputs:
        signature = Signature(signature.inputs, own.outputs, signature.batched)
    names = [tensor.name for tensor in signature.inputs]
    if set(names) != {*positional, *named}:
        if named or len(names) != len(positional):
            raise LoadFailed(
                f"the signature's inputs {', '.join(names)} are not those of the program: "
                f"{', '.join((*positional, *named))}"
            )
        positional = names  # other names for the same arguments, in order
    return TorchRuntime(program.module(), signature, device, positional, named)


def _arguments(program: Any) -> tuple[list[str], list[str]]:
    """Names of the positional and of the keyword inputs of an exported program."""
    names = [str(name) for name in program.graph_signature.user_inputs]
    _, by_keyword = program.call_spec.in_spec.children()
    named = [str(name) for name in by_keyword.context]
    return names[: len(names) - len(named)], named


def _own_signature(program: Any) -> Signature:
    """What the program was exported with: symbolic sizes become named axes."""
    user_inputs = list(program.graph_signature.user_inputs)
    metas: dict[str, Any] = {node.name: node.meta.get("val") for node in program.graph.nodes}
    # Keyword inputs are placeholders under their own names as well.
    inputs: list[tuple[str, Any]] = [(str(name), metas.get(str(name))) for name in user_inputs]
    results = [metas.get(str(name)) for name in program.graph_signature.user_outputs]
    returned = program.call_spec.out_spec
    keyed = returned.type is dict and all(child.is_leaf() for child in returned.children())
    names = [str(key) for key in returned.context] if keyed else _default_names(len(results))
    outputs: list[tuple[str, Any]] = list(zip(names, results, strict=True))
    tensors = [*inputs, *outputs]
    for name, value in tensors:
        if not torch.is_tensor(value):
            raise LoadFailed(f"{name!r} of the exported program is a {type(value).__name__}, expected a tensor")
    # One symbol leads them all: that axis counts rows.
    leading = {str(value.shape[0]) if value.ndim else "0" for _, value in tensors}
    batched = len(leading) == 1 and not leading.pop().isdigit()
    return Signature(
        tuple(_spec(name, value, batched) for name, value in inputs),
        tuple(_spec(name, value, batched) for name, value in outputs),
        batched,
    )


def _spec(name: str, value: Any, batched: bool) -> TensorSpec:
    if value.dtype not in _TYPES:
        raise LoadFailed(f"{name!r} of the exported program has type {value.dtype}, which no datatype describes")
    shape: list[int | str] = [axis if isinstance(axis, int) else str(axis) for axis in value.shape]
    if batched:
        shape[0] = "batch"
    return TensorSpec(name, _TYPES[value.dtype], tuple(shape))


def _load_script(spec: LoadSpec, content: bytes, device: str) -> Runtime:
    if spec.signature is None:
        raise LoadFailed(f"{spec.entry!r} is TorchScript, which does not tell its signature; give one, or an example")
    try:
        module = torch.jit.load(io.BytesIO(content), map_location=device)
    except Exception as error:  # anything may come out of a file that is none
        raise LoadFailed(
            f"torch {torch.__version__} cannot load {spec.entry!r} as TorchScript: {_short(error)}; pickled modules "
            f"and state dicts are not served: export the model with torch.export.save to a .pt2 file"
        ) from error
    module.eval()
    names = [tensor.name for tensor in spec.signature.inputs]
    return TorchRuntime(module, spec.signature, device, names, [])


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:1000]}"
