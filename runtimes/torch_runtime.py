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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from runtimes.base import Array, Arrays, Files, InvalidInput, LoadFailed, LoadSpec, ModelFailed, OutOfMemory, Runtime
from runtimes.devices import CPU, cuda_index
from runtimes.example import synthetic_inputs
from runtimes.padding import sizes_alone_vary
from runtimes.signature import Signature
from runtimes.torch_lane import CudaLane, HostLane, Lane
from runtimes.torch_signature import DTYPES, arguments, default_names, own_signature

__all__ = ["TorchRuntime", "load"]

_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_PICKLE_ADVICE = (
    "loading that runs whatever code its author put in: export the model with tensors and plain values alone, "
    "or allow pickles for this model by name in the settings (allow_pickle)"
)

_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Arguments(NamedTuple):
    """The inputs as ``forward`` takes them: in order, and by keyword."""

    positional: tuple[str, ...]
    named: tuple[str, ...] = ()


class TorchRuntime:
    """``precision``: what floating-point inputs are cast to; outputs are cast back to the signature's types."""

    def __init__(
        self,
        call: Callable[..., Any],
        signature: Signature,
        lane: Lane,
        device: str,
        arguments: Arguments,
        *,
        precision: Any = None,
    ) -> None:
        self._call: Callable[..., Any] | None = call
        self.signature = signature
        self.device = device
        self._lane = lane
        self._arguments = arguments
        self._precision = precision
        self._bfloat = {spec.name for spec in signature.inputs if spec.datatype == "BF16"}
        self._types = {spec.name: DTYPES.get(spec.datatype) for spec in signature.outputs}

    def run(self, inputs: Arrays) -> dict[str, Array]:
        if self._call is None:
            raise ModelFailed("this runtime is closed")
        taken = {name: inputs[name] for name in (*self._arguments.positional, *self._arguments.named)}
        try:
            with torch.inference_mode():
                return self._lane.run(self.program, taken)
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
        self._lane.close()

    def program(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The model on tensors of its device, in the precision asked for."""
        if self._call is None:
            raise ModelFailed("this runtime is closed")
        cast = {name: self._cast(name, tensor) for name, tensor in tensors.items()}
        named = {name: cast[name] for name in self._arguments.named}
        return self._outputs(self._call(*(cast[name] for name in self._arguments.positional), **named))

    def _cast(self, name: str, tensor: Any) -> Any:
        if self._precision is not None and tensor.is_floating_point():
            return tensor.to(self._precision)
        return tensor.to(torch.bfloat16) if name in self._bfloat else tensor

    def _outputs(self, returned: Any) -> dict[str, Any]:
        names = [spec.name for spec in self.signature.outputs]
        if isinstance(returned, Mapping):
            return {str(key): self._given(str(key), value) for key, value in returned.items() if torch.is_tensor(value)}
        values = list(returned) if isinstance(returned, tuple | list) else [returned]
        names = names or default_names(len(values))
        if len(values) != len(names):
            raise ModelFailed(f"the model returned {len(values)} outputs, the signature names {', '.join(names)}")
        return {name: self._given(name, value) for name, value in zip(names, values, strict=True)}

    def _given(self, name: str, value: Any) -> Any:
        if not torch.is_tensor(value):
            raise ModelFailed(f"the model returned a {type(value).__name__} where a tensor was expected")
        wanted = self._types.get(name)
        if self._precision is None or wanted is None or not value.is_floating_point():
            return value
        return value.to(wanted)


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
    try:
        index = cuda_index(asked)
    except ValueError as error:
        raise LoadFailed(str(error)) from None
    if index is None:
        return "cuda:0" if asked == "auto" and torch.cuda.is_available() else CPU
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= found:
        raise LoadFailed(f"device {asked} was asked for; torch {torch.__version__} finds {found} CUDA devices here")
    return f"cuda:{index}"


def _made(module: Any, spec: LoadSpec, signature: Signature, device: str, arguments: Arguments) -> TorchRuntime:
    """The runtime of a module that is on its device already, with its graphs captured."""
    precision = None if spec.precision is None else _PRECISIONS[spec.precision]
    if precision is not None:
        module.to(precision)
    # One compilation for all batch sizes, rather than one for each.
    call = torch.compile(module, dynamic=True) if spec.compiled else module
    index = cuda_index(device)
    lane: Lane = HostLane()
    if index is not None:
        _limit_memory(index, spec.memory_limit_bytes)
        lane = CudaLane(index)
    runtime = TorchRuntime(call, signature, lane, device, arguments, precision=precision)
    if isinstance(lane, CudaLane) and spec.graph_rows and sizes_alone_vary(signature):
        lane.capture(runtime.program, lambda rows: synthetic_inputs(signature, rows), spec.graph_rows)
    return runtime


def _limit_memory(index: int, most_bytes: int | None) -> None:
    if most_bytes is not None:
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, most_bytes / total), index)


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
    positional, named = arguments(program)
    own = own_signature(program)
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
    return _made(program.module(), spec, signature, device, Arguments(tuple(positional), tuple(named)))


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
    if spec.compiled:
        raise LoadFailed(f"{spec.entry!r} is TorchScript, which torch.compile does not take; export it to a .pt2 file")
    return _made(module, spec, spec.signature, device, Arguments(tuple(names)))


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:1000]}"
