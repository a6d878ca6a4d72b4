"""Loads a version and answers batches from standard input, one frame each, until it ends: for reference profiles.

A frame is a length (8 bytes, little-endian) and a body: a line of JSON, ``{"tensors": [[name, datatype, shape, bytes],
…]}``, and the tensors' bytes behind it. The first body that comes is the request, ``{"spec": LoadSpec}``; it and each
batch are answered with one frame, ``{"error": {"kind", "message"}}`` where it failed. A batch with ``"calls": n`` is
run n times and answered with its times and this process's memory, ``{"wall_s": […], "processor_s": […],
"resident_bytes", "peak_bytes"}``, in place of outputs.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from runtimes import execution
from runtimes.base import Array, Arrays, LoadSpec, Runtime, RuntimeFailure
from runtimes.channel import pack_strings, unpack_strings
from runtimes.process import be_nice, cap_threads, die_with
from runtimes.signature import DATATYPES

__all__ = ["main", "peak_bytes", "read_frame", "write_frame"]

MAX_FRAME_BYTES = 1 << 30


def write_frame(file: IO[bytes], head: Mapping[str, Any], tensors: Arrays | None = None) -> None:
    """``OSError`` when the other end is gone; ValueError for a tensor that has no form."""
    described, octets = [], []
    for name, array in (tensors or {}).items():
        plain = array.dtype != object
        packed = np.ascontiguousarray(array).tobytes() if plain else pack_strings(name, array)
        datatype = array.dtype.str if plain else "BYTES"
        described.append([name, datatype, list(array.shape), len(packed)])
        octets.append(packed)
    line = json.dumps({**head, "tensors": described}).encode() + b"\n"
    size = len(line) + sum(map(len, octets))
    file.write(b"".join([size.to_bytes(8, "little"), line, *octets]))
    file.flush()


def read_frame(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """None at the end; ValueError for what is no frame."""
    head = file.read(8)
    if not head:
        return None
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {size} bytes; at most {MAX_FRAME_BYTES} are read")
    body = file.read(size)
    if len(body) < size:
        raise ValueError(f"a frame of {size} bytes ended after {len(body)}")
    line, _, octets = body.partition(b"\n")
    told = json.loads(line)
    tensors, at = {}, 0
    for name, datatype, shape, length in told.pop("tensors"):
        tensors[str(name)] = _tensor(str(name), str(datatype), tuple(shape), octets[at : at + length])
        at += length
    return told, tensors


def _tensor(name: str, datatype: str, shape: tuple[int, ...], octets: bytes) -> Array:
    if datatype == "BYTES":
        return unpack_strings(octets, name, shape)
    dtype = np.dtype(datatype)
    if dtype not in DATATYPES.values() or math.prod(shape) * dtype.itemsize != len(octets):
        raise ValueError(f"tensor {name!r}: {len(octets)} bytes are no {datatype} {list(shape)}")
    return np.frombuffer(octets, dtype).reshape(shape)


def main(arguments: Sequence[str] = ()) -> None:
    """``--parent PID``: ends with that process. Prints of model code go to standard error."""
    if arguments[:1] == ["--parent"]:
        die_with(int(arguments[1]))
        be_nice()
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        _serve(sys.stdin.buffer, answers)
    os._exit(0)  # vendors' exit handlers and threads have nothing left to do


def _serve(batches: IO[bytes], answers: IO[bytes]) -> None:
    request = read_frame(batches)
    if request is None:
        return
    spec = LoadSpec.from_json(request[0]["spec"])
    cap_threads(spec.threads)
    try:
        runtime = execution.load(spec).runtime
    except RuntimeFailure as error:
        write_frame(answers, {"error": {"kind": error.kind, "message": str(error)}})
        return
    write_frame(answers, {"signature": runtime.signature.to_json()})
    while (batch := read_frame(batches)) is not None:
        inputs = batch[1]
        rows = len(next(iter(inputs.values()))) if runtime.signature.batched else None
        try:
            if "calls" in batch[0]:
                write_frame(answers, _measured(runtime, inputs, rows, int(batch[0]["calls"])))
            else:
                write_frame(answers, {}, execution.execute(runtime, inputs, rows))
        except RuntimeFailure as error:
            write_frame(answers, {"error": {"kind": error.kind, "message": str(error)}})


def _measured(runtime: Runtime, inputs: Arrays, rows: int | None, calls: int) -> dict[str, Any]:
    wall, processor = [], []
    for _ in range(calls):
        began, used = time.perf_counter(), time.process_time()
        execution.execute(runtime, inputs, rows)
        wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    return {"wall_s": wall, "processor_s": processor, **_memory()}


def peak_bytes() -> int:
    """The most that this process has held; 0 where the system does not tell. Not what getrusage says: that counts the
    parent too, as it was when it forked."""
    return _memory().get("peak_bytes", 0)


def _memory() -> dict[str, int]:
    """What this process holds and has held at most; nothing where the system does not tell."""
    names = {"VmRSS:": "resident_bytes", "VmHWM:": "peak_bytes"}
    try:
        lines = [line.split() for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines()]
    except OSError:
        return {}
    return {names[line[0]]: int(line[1]) * 1024 for line in lines if line and line[0] in names}


if __name__ == "__main__":
    main()
