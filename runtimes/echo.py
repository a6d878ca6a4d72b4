"""A scripted version: answers with its inputs, and is late, raises, crashes, hangs or runs out of memory when told to.

Options (all optional; for tests, demonstrations and load tests):

    delay_ms, delay_per_row_ms    how long a batch takes
    hold                          path: a batch waits for as long as a file is there
    outputs        {"y": 7.5}     constants instead of the inputs
    allocate_bytes                held while loaded
    load_delay_ms, fail_load      how long loading takes; the message with which it fails
    fail, invalid, crash, hang    when a batch raises, refuses its input, kills its process, never ends
    oom_above_rows                larger batches are out of memory
    control                       path of a JSON file with any of these, read again for each batch

"When" is ``"always"``, ``"start"`` (crash and hang only: while loading), or an object: ``{"share": 0.05}``,
``{"after": 10}`` (batches), ``{"equals": 13}`` (some element of some input). So a running version can be made
to go wrong by writing a file.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from runtimes.base import (
    Array,
    Arrays,
    Files,
    InvalidInput,
    LoadFailed,
    LoadSpec,
    ModelFailed,
    OutOfMemory,
    Runtime,
)
from runtimes.signature import DATATYPES, Signature, TensorSpec

__all__ = ["DEFAULT_SIGNATURE", "Echo", "load"]

DEFAULT_SIGNATURE = Signature((TensorSpec("x", "FP32", ("batch", 4)),), (TensorSpec("y", "FP32", ("batch", 4)),))

_WHEN = ("fail", "invalid", "crash", "hang")
_KNOWN = {
    "delay_ms",
    "delay_per_row_ms",
    "hold",
    "outputs",
    "allocate_bytes",
    "load_delay_ms",
    "fail_load",
    "oom_above_rows",
    "control",
    *_WHEN,
}


class Echo:
    """See the module. The n-th output echoes the n-th input where type and rank agree, else it is zeros."""

    device = "cpu"

    def __init__(self, signature: Signature, options: Mapping[str, Any]) -> None:
        self.signature = signature
        self._options = dict(options)
        self._batches = 0
        self._ballast = b"\x01" * int(options.get("allocate_bytes", 0))

    def run(self, inputs: Arrays) -> dict[str, Array]:
        options = self._current()
        self._batches += 1
        if self._due(options.get("crash"), inputs):
            die()
        while self._due(options.get("hang"), inputs):
            time.sleep(3600)
        while "hold" in options and Path(options["hold"]).exists():
            time.sleep(0.001)
        rows = _rows(inputs)
        time.sleep((options.get("delay_ms", 0) + rows * options.get("delay_per_row_ms", 0)) / 1000)
        if rows > options.get("oom_above_rows", rows):
            raise OutOfMemory(f"{rows} rows do not fit, {options['oom_above_rows']} would (scripted)")
        if self._due(options.get("invalid"), inputs):
            raise InvalidInput("the echo refuses this input (scripted)")
        if self._due(options.get("fail"), inputs):
            raise ModelFailed("the echo fails (scripted)")
        return self._answer(inputs, rows, options.get("outputs", {}))

    def close(self) -> None:
        self._ballast = b""

    def _current(self) -> dict[str, Any]:
        control = self._options.get("control")
        if control is None:
            return self._options
        try:
            changed = json.loads(Path(control).read_text("utf-8") or "{}")
        except FileNotFoundError:
            changed = {}
        current: dict[str, Any] = self._options | changed
        return current

    def _due(self, when: Any, inputs: Arrays) -> bool:
        if when is None or when in (False, "start"):
            return False
        if when in (True, "always"):
            return True
        if "share" in when:
            # Evenly spread, so that a share of 0.1 is every tenth batch and no luck is needed.
            return int(self._batches * when["share"]) > int((self._batches - 1) * when["share"])
        if "after" in when:
            return self._batches > int(when["after"])
        wanted = when["equals"]
        value = wanted.encode() if isinstance(wanted, str) else wanted
        return any(bool(np.any(array == value)) for array in inputs.values())

    def _answer(self, inputs: Arrays, rows: int, constants: Mapping[str, Any]) -> dict[str, Array]:
        arrays = list(inputs.values())
        outputs: dict[str, Array] = {}
        for index, spec in enumerate(self.signature.outputs):
            source = arrays[index] if index < len(arrays) else None
            if spec.name not in constants and source is not None and _alike(source, spec):
                outputs[spec.name] = source
                continue
            shape = [axis if isinstance(axis, int) else 1 for axis in spec.shape]
            if self.signature.batched and shape:
                shape[0] = rows
            empty: Any = b"" if spec.datatype == "BYTES" else 0
            value = constants.get(spec.name, empty)
            outputs[spec.name] = np.full(shape, value, DATATYPES[spec.datatype])
        return outputs


def _rows(inputs: Arrays) -> int:
    first = next(iter(inputs.values()))
    return int(first.shape[0]) if first.ndim else 1


def _alike(array: Array, spec: TensorSpec) -> bool:
    return array.dtype == DATATYPES[spec.datatype] and array.ndim == len(spec.shape)


def die() -> NoReturn:
    """As a fault in native code would: no clean-up, no exit status."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise ModelFailed("unreachable: the process was killed")


def load(spec: LoadSpec, files: Files) -> Runtime:
    """``LoadFailed`` for unknown options, and when the script says so."""
    options = dict(spec.options)
    if spec.entry:
        options = json.loads(files.read(spec.entry) or b"{}") | options
    unknown = sorted(set(options) - _KNOWN)
    if unknown:
        raise LoadFailed(f"echo has no option {', '.join(unknown)}; it has {', '.join(sorted(_KNOWN))}")
    time.sleep(options.get("load_delay_ms", 0) / 1000)
    if options.get("crash") == "start":
        die()
    while options.get("hang") == "start":
        time.sleep(3600)
    if "fail_load" in options:
        raise LoadFailed(str(options["fail_load"]))
    return Echo(spec.signature or DEFAULT_SIGNATURE, options)
