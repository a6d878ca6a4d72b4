"""ONNX models on ONNX Runtime. The model tells its own signature.

Options: ``outputs`` (list of names) answers with these only, for models that also give what is no
tensor. Weights in separate files are handed over as verified bytes: nothing is read from disk by
ONNX Runtime itself.

On the CPU a batch is one ``run``: with I/O binding, to buffers bound anew for sizes that change, it costs the same 5 us
(``tiny``), and 2 us less only where every size keeps a binding of its own to memory that never moves. On CUDA both
sides are bound (``runtimes.onnx_cuda``).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from runtimes.base import Array, Arrays, Files, InvalidInput, LoadFailed, LoadSpec, ModelFailed, OutOfMemory, Runtime
from runtimes.bfloat16 import narrow, widen
from runtimes.devices import CPU, cuda_index
from runtimes.onnx_cuda import CudaBinding, provider_options, ungraphed
from runtimes.signature import Signature, TensorSpec

__all__ = ["OnnxRuntime", "load"]

_state = onnxruntime.capi.onnxruntime_pybind11_state
_OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate|bad_alloc|smaller than requested bytes", re.IGNORECASE)
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_NOWHERE = "/not-among-the-files-of-this-version"
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxRuntime:
    """One session. Inputs are read where they lie; only strings and BF16 are converted.

    ``binding``: moves batches to and from a device, for models whose tensors it can take. ``run_options`` are of the
    runs without it.
    """

    def __init__(
        self,
        session: Any,
        signature: Signature,
        device: str,
        binding: CudaBinding | None = None,
        *,
        run_options: Any = None,
    ) -> None:
        self._session = session
        # What ``session.run`` calls after checks that the gateway has made: three microseconds of seven (``tiny``). Of
        # its own errors it would turn none into another, since the fallback to other providers is off.
        self._run: Any = getattr(getattr(session, "_sess", None), "run", None) or session.run
        self._binding = binding
        self._run_options = run_options
        self.signature = signature
        self.device = device
        self._names = [spec.name for spec in signature.outputs]
        self._bfloat = any(spec.datatype == "BF16" for spec in (*signature.inputs, *signature.outputs))

    def run(self, inputs: Arrays) -> dict[str, Array]:
        feeds = {spec.name: _fed(inputs[spec.name], spec) for spec in self.signature.inputs}
        try:
            outputs = self._answers(feeds)
        except _state.InvalidArgument as error:
            raise InvalidInput(f"the model refuses this input: {_short(error)}") from error
        except (_state.RuntimeException, _state.Fail, _state.EPFail, RuntimeError) as error:
            if _OUT_OF_MEMORY.search(str(error)):
                raise OutOfMemory(f"the batch does not fit the device: {_short(error)}") from error
            raise ModelFailed(_short(error)) from error
        return {name: _given(value) for name, value in zip(self._names, outputs, strict=True)}

    def close(self) -> None:
        self._binding = None
        self._session = self._run = None

    def _answers(self, feeds: Arrays) -> list[Array]:
        if self._bfloat:
            return self._run_bfloat(feeds)
        if self._binding is not None:
            return self._binding.run(feeds)
        answers: list[Array] = self._run(self._names, feeds, self._run_options)
        return answers

    def _run_bfloat(self, feeds: Arrays) -> list[Array]:
        """numpy has no bfloat16, so these cross as raw 16-bit words."""
        values = {}
        for spec in self.signature.inputs:
            array = feeds[spec.name]
            values[spec.name] = (
                onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(narrow(array), _BFLOAT16)
                if spec.datatype == "BF16"
                else onnxruntime.OrtValue.ortvalue_from_numpy(array)
            )
        outputs = self._session.run_with_ort_values(self._names, values, self._run_options)
        return [
            _words(value) if spec.datatype == "BF16" else value.numpy()
            for spec, value in zip(self.signature.outputs, outputs, strict=True)
        ]


def _words(value: Any) -> Array:
    shape = tuple(value.shape())
    raw = ctypes.string_at(value.data_ptr(), int(np.prod(shape)) * 2)
    return widen(np.frombuffer(raw, np.uint16).reshape(shape))


def _short(error: BaseException) -> str:
    return str(error)[:2000]


def _fed(array: Array, spec: TensorSpec) -> Array:
    if spec.datatype != "BYTES":
        return array
    try:
        texts = [value if isinstance(value, str) else value.decode() for value in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input {spec.name!r}: expected UTF-8 text, got bytes that are not: {error}") from None
    fed = np.empty(len(texts), dtype=object)
    fed[:] = texts
    return fed.reshape(array.shape)


def _given(value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype != object:
        return array
    octets = np.empty(array.size, dtype=object)
    octets[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    return octets.reshape(array.shape)


def load(spec: LoadSpec, files: Files) -> Runtime:
    """``LoadFailed`` when the model cannot be read, or wants a device that is not here."""
    if spec.precision is not None:
        raise LoadFailed(
            f"precision {spec.precision} was asked for; an ONNX model has its precision in its file: convert the model "
            f"(onnxconverter_common.float16.convert_float_to_float16), and register it without a precision"
        )
    if spec.compiled:
        raise LoadFailed("compile was asked for, which is torch.compile; ONNX Runtime optimizes models by itself")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads
    options.inter_op_num_threads = 1
    # Idle threads that spin take the processor from the versions beside this one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # Else weights that the version does not have are looked for in the folder that this process happens to run in.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    model = files.read(spec.entry)
    others = [name for name in files.names() if name != spec.entry]
    buffers = [files.read(name) for name in others]
    if others:
        options.add_external_initializers_from_files_in_memory(others, buffers, [len(one) for one in buffers])
    session = _session(model, options, _providers(spec), spec)
    signature = _signature(session, spec)
    if not session.get_providers()[0].startswith("CUDA"):
        return OnnxRuntime(session, signature, "cpu")
    index = cuda_index(spec.device) or 0
    bindable = all(tensor.datatype not in ("BYTES", "BF16") for tensor in (*signature.inputs, *signature.outputs))
    binding = CudaBinding(session, signature, index, graph_rows=spec.graph_rows) if bindable else None
    return OnnxRuntime(session, signature, f"cuda:{index}", binding, run_options=ungraphed(spec.graph_rows))


def _session(model: bytes, options: Any, providers: Sequence[Any], spec: LoadSpec) -> Any:
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # its errors share no other base
        raise LoadFailed(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {spec.entry!r}: {_short(error)}"
        ) from error
    if spec.device.startswith("cuda") and not session.get_providers()[0].startswith("CUDA"):
        raise LoadFailed(f"device {spec.device} was asked for, and ONNX Runtime could not use it; see the log")
    # Else a device that fails later would quietly be left for the CPU, and the session would keep the file's bytes for
    # that: as much memory again as the model takes.
    session.disable_fallback()
    session._model_bytes = None  # noqa: SLF001 - nothing public lets go of them
    return session


def _providers(spec: LoadSpec) -> list[Any]:
    available = onnxruntime.get_available_providers()
    try:
        index = cuda_index(spec.device)
    except ValueError as error:
        raise LoadFailed(str(error)) from None
    if index is None and (spec.device == CPU or _CUDA not in available):
        return [_CPU]
    if _CUDA not in available:
        raise LoadFailed(f"device {spec.device} needs onnxruntime-gpu; this ONNX Runtime has {', '.join(available)}")
    preload = getattr(onnxruntime, "preload_dlls", None)  # since 1.21: the CUDA libraries that pip has installed
    if preload is not None:
        preload()
    return [(_CUDA, provider_options(spec, index or 0)), _CPU]


def _signature(session: Any, spec: LoadSpec) -> Signature:
    """The model's own, or the one given, if that names the same tensors with the same types."""
    own = _own_signature(session, spec.options.get("outputs"))
    given = spec.signature
    if given is None:
        return own
    for side, ours, theirs in (("input", own.inputs, given.inputs), ("output", own.outputs, given.outputs)):
        types = {tensor.name: tensor.datatype for tensor in ours}
        for tensor in theirs:
            if types.get(tensor.name) != tensor.datatype:
                raise LoadFailed(
                    f"the signature's {side} {tensor.name!r} ({tensor.datatype}) is not the model's; it has "
                    + ", ".join(f"{name} ({datatype})" for name, datatype in types.items())
                )
    missing = {tensor.name for tensor in own.inputs} - {tensor.name for tensor in given.inputs}
    if missing:
        raise LoadFailed(f"the signature lacks the model's input {', '.join(sorted(missing))}")
    return given if given.outputs else Signature(given.inputs, own.outputs, given.batched)


def _own_signature(session: Any, chosen: Sequence[str] | None) -> Signature:
    inputs = session.get_inputs()
    outputs = [node for node in session.get_outputs() if chosen is None or node.name in chosen]
    if not outputs:
        raise LoadFailed(f"options outputs {chosen} names no output of the model")
    batched = all(node.shape and not isinstance(node.shape[0], int) for node in (*inputs, *outputs))
    return Signature(
        tuple(_tensor(node, batched) for node in inputs), tuple(_tensor(node, batched) for node in outputs), batched
    )


def _tensor(node: Any, batched: bool) -> TensorSpec:
    datatype = _TYPES.get(node.type)
    if datatype is None:
        raise LoadFailed(
            f"{node.name!r} has type {node.type}, which is no tensor; convert the model without it (for scikit-learn: "
            f"zipmap=False), or name the outputs to keep in the option outputs"
        )
    shape = [
        axis if isinstance(axis, int) else str(axis) if axis else f"{node.name}_{index}"
        for index, axis in enumerate(node.shape)
    ]
    if batched:
        shape[0] = "batch"
    return TensorSpec(node.name, datatype, tuple(shape))
