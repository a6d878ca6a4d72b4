"""Outputs as JSON that is always valid.

JSON knows neither NaN nor infinity: they become ``null``. BYTES become strings where they
are UTF-8 and ``{"b64": "…"}`` where they are not, as ``/predict`` takes them, too. FP16 and BF16 are numbers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from gateway.codec.faults import shorten
from gateway.messages import Array, Arrays

__all__ = ["dump_json", "jsonable", "write_predict"]

_JOINED_BYTES = 16 * 1024


def write_predict(head: bytes, outputs: Arrays) -> bytes:
    """``head``, the text of an object as far as its last member's value, with ``outputs`` as that; arrays nested by
    row."""
    try:
        text = orjson.dumps(outputs, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        # Strings, scalars, and arrays that do not lie as orjson reads them.
        written = {name: jsonable(array) for name, array in outputs.items()}
        text = orjson.dumps(written, option=orjson.OPT_SERIALIZE_NUMPY)
    # A sum copies both at each sign: for 10 MB that is 17 ms of the loop's time beside 45, and joining them one.
    return head + text + b"}" if len(text) < _JOINED_BYTES else b"".join((head, text, b"}"))


def jsonable(array: Array) -> Any:
    """What orjson writes by itself, or lists of it."""
    if array.dtype.kind in "OSU":
        return _text(array.tolist())
    if array.ndim == 0:
        item = array.item()
        return item if not isinstance(item, float) or np.isfinite(item) else None
    return array if array.flags.c_contiguous and array.dtype.isnative else np.ascontiguousarray(array)


def dump_json(value: Any) -> bytes:
    """JSON of what may hold any client's text: lone surrogates are replaced rather than raised."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return orjson.dumps(_encodable(value), option=orjson.OPT_SERIALIZE_NUMPY)


def _text(item: Any) -> Any:
    if isinstance(item, list):
        return [_text(child) for child in item]
    if isinstance(item, str):
        return item.encode("utf-8", "replace").decode()
    try:
        return item.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(item).decode("ascii")}


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {shorten(str(name)): _encodable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value
