"""Loading a version and running one batch, with every foreign error translated at this border, once.

Used by the child's loop, by the inline engine and at registration, so that all three mean the same.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes import catalog
from runtimes.base import Array, Arrays, LoadFailed, LoadSpec, ModelFailed, OutOfMemory, Runtime, RuntimeFailure
from runtimes.device_memory import DeviceMemory
from runtimes.files import VerifiedFiles
from runtimes.signature import DATATYPES, Signature, TensorSpec, datatype_of

__all__ = ["Loaded", "conform", "execute", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A runtime, the digests of the bytes it was made from, and the memory that it took of a GPU."""

    runtime: Runtime
    digests: Mapping[str, str]
    device_memory_bytes: int = 0


def load(spec: LoadSpec) -> Loaded:
    """Raises ``LoadFailed`` (``IntegrityFailed`` for wrong bytes) and nothing else."""
    files, memory = VerifiedFiles(spec.files), DeviceMemory()
    try:
        runtime = catalog.load(spec, files)
        files.verify_rest()
    except LoadFailed:
        raise
    except MemoryError as error:
        raise LoadFailed(f"the version does not fit this machine's memory: {error or 'allocation failed'}") from error
    except (Exception, SystemExit) as error:  # model code and vendors raise anything
        traceback.print_exc(file=sys.stderr)
        raise LoadFailed(f"loading format {spec.format!r} raised {_told(error)}") from error
    taken = memory.taken() if runtime.device.startswith("cuda") else 0
    return Loaded(runtime, files.loaded, taken)


def execute(runtime: Runtime, inputs: Arrays, rows: int | None) -> dict[str, Array]:
    """One batch: outputs in the signature's order, types and rows. Raises a ``RuntimeFailure`` and nothing else."""
    if rows == 0 and runtime.signature.batched:
        return _nothing(runtime.signature)
    try:
        return conform(runtime.run(inputs), runtime.signature, rows)
    except RuntimeFailure:
        raise
    except MemoryError as error:
        raise OutOfMemory(f"the batch does not fit the memory: {error or 'allocation failed'}") from error
    except (Exception, SystemExit) as error:  # the batch boundary: model code raises anything, also exit()
        traceback.print_exc(limit=-8, file=sys.stderr)
        raise ModelFailed(_told(error)) from error


def _nothing(signature: Signature) -> dict[str, Array]:
    """The answer to no rows; few models take an empty batch, and those that do compute nothing."""
    return {
        spec.name: np.empty(
            (0, *(axis if isinstance(axis, int) else 0 for axis in spec.shape[1:])), DATATYPES[spec.datatype]
        )
        for spec in signature.outputs
    }


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {str(error)[:2000]}{place}"


def conform(outputs: Mapping[str, object], signature: Signature, rows: int | None) -> dict[str, Array]:
    """Outputs as the signature names them. ``ModelFailed`` when they are not: never an answer to the wrong caller."""
    if not isinstance(outputs, Mapping):
        raise ModelFailed(f"the model returned a {type(outputs).__name__}, expected a mapping of names to arrays")
    missing = [spec.name for spec in signature.outputs if spec.name not in outputs]
    if missing:
        raise ModelFailed(f"the model returned {_names(outputs)}; the signature also promises {', '.join(missing)}")
    expected_rows = rows if signature.batched else None
    return {spec.name: _conform_one(outputs[spec.name], spec, expected_rows) for spec in signature.outputs}


def _names(outputs: Mapping[str, object]) -> str:
    return ", ".join(str(name) for name in outputs) or "no outputs"


def _conform_one(value: Any, spec: TensorSpec, rows: int | None) -> Array:
    typed = type(value) is np.ndarray and spec.datatype != "BYTES" and value.dtype == DATATYPES[spec.datatype]
    if isinstance(value, np.ndarray) and typed and _fits(value.shape, spec.shape, rows):
        return value  # as most are: nothing to say about it, and nothing to make
    array = np.asarray(value)
    if rows is not None and (array.ndim == 0 or array.shape[0] != rows):
        raise ModelFailed(
            f"output {spec.name!r} has shape {list(array.shape)} for a batch of {rows} rows; its first axis must "
            f"count the rows, or the signature must say that the version is not batched"
        )
    if not _fits(array.shape, spec.shape, rows):
        raise ModelFailed(f"output {spec.name!r} has shape {list(array.shape)}, the signature says {list(spec.shape)}")
    return _typed(array, spec)


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...], rows: int | None) -> bool:
    if len(shape) != len(wanted) or (rows is not None and shape[:1] != (rows,)):
        return False
    for size, axis in zip(shape, wanted, strict=True):  # noqa: SIM110 - a generator costs three times as much
        if size != axis and type(axis) is int:
            return False
    return True


def _typed(array: Array, spec: TensorSpec) -> Array:
    wanted = DATATYPES[spec.datatype]
    if spec.datatype == "BYTES":
        if array.dtype.kind in "OSU":
            return _octets(array, spec)
    elif array.dtype == wanted:
        return array
    # Precision may be lost, as the signature asks; a number never turns into another kind of number.
    elif array.dtype.kind in "biuf" and np.can_cast(array.dtype, wanted, "same_kind"):
        return array.astype(wanted)
    try:
        told = datatype_of(array)
    except ValueError:
        told = str(array.dtype)
    raise ModelFailed(f"output {spec.name!r} has type {told}, the signature says {spec.datatype}")


def _octets(array: Array, spec: TensorSpec) -> Array:
    values = [value.encode() if isinstance(value, str) else value for value in array.ravel().tolist()]
    for value in values:
        if not isinstance(value, bytes):
            raise ModelFailed(f"output {spec.name!r} holds a {type(value).__name__}, the signature says BYTES")
    octets = np.empty(len(values), dtype=object)
    octets[:] = values
    return octets.reshape(array.shape)
