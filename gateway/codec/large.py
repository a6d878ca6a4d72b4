"""A large JSON body, read without making an object of every number in it. For a process of its own.

The long lists are cut out and read as numbers, the rest by the reader of its dialect. Whenever
anything of that fails or does not fit, the whole text is read as a small one would be: what comes out,
and every word of a refusal, is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gateway.codec.cut import Cut, cut_numbers
from gateway.codec.json_inputs import PredictEnvelope, read_lists
from gateway.codec.limits import CodecLimits
from gateway.codec.oip_json import InferEnvelope, WireTensor
from gateway.codec.oip_request import read_infer
from gateway.codec.rows import read_numbers
from gateway.errors import TurnoutError
from gateway.messages import Array, Arrays, Signature

__all__ = ["Envelope", "LargeText"]

Envelope = PredictEnvelope | InferEnvelope


class LargeText:
    """``text`` as ``protocol`` ("predict" or "v2") understands it. Raises on construction what the reader would raise.

    ``envelope`` has the facts; its tensors are typed by ``fit``.
    """

    def __init__(self, text: memoryview, protocol: str, limits: CodecLimits) -> None:
        self._text = text
        self._protocol = protocol
        self._limits = limits
        short = self._read_shortly()
        self._is_short = short is not None
        self.envelope: Envelope = self._read(bytes(text)) if short is None else short

    def __repr__(self) -> str:
        return f"<LargeText {self._protocol} [{len(self._text)} bytes | {'cut' if self._is_short else 'whole'}]>"

    def fit(self, signature: Signature) -> tuple[Arrays, int]:
        """As the envelope of a small body would. Raises InvalidInput or TooLarge."""
        if not self._is_short:
            return self.envelope.fit(signature)
        try:
            return self.envelope.fit(signature)
        except TurnoutError:
            # The lists tell where it is wrong; and some are right in a way that numbers cannot show.
            self.envelope, self._is_short = self._read(bytes(self._text)), False
            return self.envelope.fit(signature)

    def _read(self, text: bytes) -> Envelope:
        return read_lists(text, self._limits) if self._protocol == "predict" else read_infer(text, None, self._limits)

    def _read_shortly(self) -> Envelope | None:
        cut = cut_numbers(self._text)
        if cut is None:
            return None
        arrays = _arrays(cut)
        if arrays is None:
            return None
        values = cut.rest.count(b",") + sum(array.size for array in arrays.values())
        if values >= self._limits.max_elements:
            return None  # near the limit the text's own commas decide
        try:
            rest = self._read(cut.rest)
        except TurnoutError:
            return None
        fill = _Fill(cut, arrays)
        filled = fill.predict(rest) if isinstance(rest, PredictEnvelope) else fill.infer(rest)
        # One that was not asked for stands somewhere else, in the context perhaps.
        return filled if filled is not None and fill.used == len(arrays) else None


def _arrays(cut: Cut) -> dict[int, Array] | None:
    arrays: dict[int, Array] = {}
    for name, text in cut.lists.items():
        array = read_numbers(text)
        if array is None:
            return None
        arrays[name] = array
    return arrays


class _Fill:
    """Puts arrays where the rest has their stand-ins."""

    def __init__(self, cut: Cut, arrays: Mapping[int, Array]) -> None:
        self._cut = cut
        self._arrays = arrays
        self.used = 0

    def predict(self, rest: PredictEnvelope) -> PredictEnvelope:
        if type(rest.inputs) is dict:
            return rest._replace(inputs={name: self._value(value) for name, value in rest.inputs.items()})
        return rest._replace(inputs=self._value(rest.inputs))

    def infer(self, rest: InferEnvelope) -> InferEnvelope | None:
        tensors = [self._tensor(tensor) for tensor in rest.inputs]
        known = [tensor for tensor in tensors if tensor is not None]
        return replace(rest, inputs=tuple(known)) if len(known) == len(tensors) else None

    def _value(self, value: Any) -> Any:
        if self._cut.list_of(value) is None:
            return value
        self.used += 1
        return self._arrays[value[0]]

    def _tensor(self, tensor: WireTensor) -> WireTensor | None:
        """Data may be flat whatever the shape; None when it does not fill the shape."""
        data = self._value(tensor.data)
        if type(data) is not np.ndarray or data.shape == tensor.shape:
            return replace(tensor, data=data)
        if data.ndim != 1 or data.size != math.prod(tensor.shape):
            return None
        return replace(tensor, data=data.reshape(tensor.shape))
