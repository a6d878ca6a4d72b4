"""Requests with everything wrong that can be written down, as hypothesis strategies of text and bytes."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass

from hypothesis import strategies as st

from gateway.messages import DATATYPES

__all__ = ["Sent", "anything_else", "inference", "prediction"]


@dataclass(frozen=True)
class Sent:
    path: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    method: str = "POST"
    chunk: int = 0


numbers = st.one_of(
    st.integers(-10, 10).map(str),
    st.sampled_from(
        [
            "0",
            "-0",
            "1.5",
            "1e39",
            "-1e300",
            "1e308",
            "1e999",
            "65520",
            "255",
            "256",
            "-129",
            "9007199254740993",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "1" * 400,
            "1e-400",
            "3.0",
        ]
    ),
)
words = st.sampled_from(
    [
        "true",
        "false",
        "null",
        "NaN",
        "Infinity",
        "-Infinity",
        '""',
        '"1"',
        '"\\ud800"',
        '"\\u0000"',
        '"\\""',
        '"ü"',
        '{"b64": "AA=="}',
        '{"b64": "!"}',
        '"' + "x" * 2000 + '"',
        "[]",
        "{}",
    ]
)
keys = st.sampled_from(["inputs", "x", "id", "key", "context", "parameters", "words", "v", "in_FP32", "\\u0000", ""])


def listed(items: list[str]) -> str:
    return "[" + ",".join(items) + "]"


def mapped(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}"


row = st.lists(numbers, min_size=4, max_size=4).map(listed)
odd_row = st.lists(st.one_of(numbers, words), max_size=5).map(listed)
rows = st.lists(st.one_of(row, row, odd_row, words), max_size=4).map(listed)
anything = st.recursive(
    st.one_of(numbers, words),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(listed), st.lists(st.tuples(keys, inner), max_size=3).map(mapped)
    ),
    max_leaves=6,
)
inputs = st.one_of(rows, rows, st.lists(st.tuples(keys, rows), max_size=2).map(mapped), anything)
extras = st.lists(st.tuples(keys, st.one_of(words, anything)), max_size=2)
envelope = st.builds(lambda value, more: mapped([("inputs", value), *more]), inputs, extras)
deep = st.builds(
    lambda depth, opening, closed: '{"inputs":' + opening * depth + "1" + closed * depth + "}",
    st.sampled_from([5, 17, 60, 1025, 50_000]),
    st.sampled_from(["[", '{"a":']),
    st.sampled_from(["]", "}", ""]),
)
body_text = st.one_of(envelope, envelope, envelope, anything, deep).map(lambda text: text.encode())
body = st.one_of(body_text, body_text, body_text, body_text, st.binary(max_size=60))

header = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                b"x-model-version",
                b"x-priority",
                b"x-key",
                b"x-context",
                b"x-request-id",
                b"traceparent",
                b"tracestate",
                b"x-user-id",
                b"accept-encoding",
                b"authorization",
                b"content-type",
                b"accept",
            ]
        ),
        st.one_of(
            st.sampled_from(
                [
                    b"1",
                    b"2",
                    b"-1",
                    b"99999999999999999999",
                    b"\xb2",
                    b"1.0",
                    b"high",
                    b"{",
                    b'{"a": [1]}',
                    b"[" * 5000,
                    b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01",
                    b"00-" + b"a" * 32 + b"-" + b"1" * 16 + b"-01",
                    b"-",
                    b"gzip",
                    b"gzip;q=0, deflate",
                    b"*",
                    b"Bearer ",
                    b"Bearer x",
                    b"Bearer locked-token",
                    b"Basic x",
                    b"application/json",
                    b"application/json; charset=utf-16",
                    b"text/html",
                    b";",
                    b"application/x+json",
                ]
            ),
            st.binary(max_size=12).filter(lambda value: b"\n" not in value and b"\r" not in value),
        ),
    ),
    st.just((b"x-timeout-ms", b"60000")),
    st.sampled_from([(b"x-timeout-ms", value) for value in (b"0", b"-5", b"soon", b"1e3", b"99999999999999", b"")]),
)
headers = st.lists(header, max_size=3)
predict_paths = st.sampled_from(
    [
        *["/predict"] * 4,
        *(f"/predict/{name}" for name in ("digits", "words", "alone", "every", "strange", "pinned", "locked", "falls")),
        *("/predict/", "/predict/nowhere", "/predict/a/b", "/predict/\udcff", "/predict/" + "x" * 3000),
    ]
)


def pack(raw: bytes, way: str) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """A body and its headers: compressed, cut, corrupt, or a bomb."""
    if way == "plain":
        return raw, ()
    if way == "bomb":
        return gzip.compress(raw + bytes(3_000_000), 1), ((b"content-encoding", b"gzip"),)
    if way == "unknown":
        return raw, ((b"content-encoding", b"br"),)
    if way == "not packed":
        return raw, ((b"content-encoding", b"gzip"),)
    name = b"deflate" if way.endswith("deflate") else b"gzip"
    packed = zlib.compress(raw) if name == b"deflate" else gzip.compress(raw)
    if way.startswith("cut"):
        packed = packed[: len(packed) // 2]
    if way.startswith("corrupt"):
        packed = packed[:-5] + b"\x00\xff\x00\xff\x00"
    return packed, ((b"content-encoding", name),)


packing = st.sampled_from(
    ["plain"] * 12
    + ["gzip", "deflate", "cut gzip", "cut deflate", "corrupt gzip", "corrupt deflate", "unknown", "not packed", "bomb"]
)


@st.composite
def prediction(draw: st.DrawFn) -> Sent:
    packed, more = pack(draw(body), draw(packing))
    chunk = draw(st.sampled_from([0, 0, 0, 7])) if len(packed) < 500 else 0
    return Sent(draw(predict_paths), packed, (*draw(headers), *more), chunk=chunk)


shape = st.one_of(
    st.sampled_from(["[1,4]", "[1,2]", "[3]", "[2,4]"]),
    st.lists(
        st.sampled_from(["0", "1", "2", "4", "-1", "9223372036854775807", "4294967296", "1.0", "true", "null"]),
        max_size=4,
    ).map(listed),
    words,
)
size = st.sampled_from(["0", "8", "16", "17", "-16", "1e3", '"16"', "true", "9223372036854775807"])
parameters = st.lists(
    st.tuples(
        st.sampled_from(["binary_data_size", "binary_data", "shared_memory_region", "classification", "other"]),
        st.one_of(size, words),
    ),
    max_size=2,
).map(mapped)
datatype = st.one_of(st.sampled_from([f'"{name}"' for name in DATATYPES]), st.sampled_from(['"FLOAT"', "null", "5"]))
tensor_name = st.sampled_from(['"x"'] * 4 + ['"words"', '"v"', '"in_FP32"', '""', "null", '"' + "n" * 2000 + '"'])
data = st.one_of(row, rows, odd_row, anything)


@st.composite
def tensor(draw: st.DrawFn) -> str:
    pairs = [
        ("name", draw(tensor_name)),
        ("datatype", draw(st.one_of(st.just('"FP32"'), datatype))),
        ("shape", draw(shape)),
    ]
    if draw(st.booleans()):
        pairs.append(("data", draw(data)))
    if draw(st.booleans()):
        pairs.append(("parameters", draw(parameters)))
    if draw(st.integers(0, 9)) == 0:
        pairs.append(pairs[0])
    return mapped(pairs)


request_parameters = st.lists(
    st.tuples(
        st.sampled_from(["binary_data_output", "key", "context", "priority", "sequence_id", "other"]),
        st.one_of(words, numbers, anything),
    ),
    max_size=2,
).map(mapped)


@st.composite
def protocol_head(draw: st.DrawFn) -> bytes:
    pairs = [("inputs", draw(st.one_of(st.lists(tensor(), max_size=2).map(listed), anything)))]
    if draw(st.booleans()):
        entries = st.lists(st.builds(lambda p: mapped([("name", '"y"'), ("parameters", p)]), parameters), max_size=2)
        pairs.append(("outputs", draw(st.one_of(entries.map(listed), anything))))
    if draw(st.booleans()):
        pairs.append(("parameters", draw(st.one_of(request_parameters, words))))
    if draw(st.booleans()):
        pairs.append(("id", draw(st.one_of(words, anything))))
    return mapped(pairs).encode()


infer_paths = st.sampled_from(
    [
        *["/v2/models/digits/infer"] * 4,
        *(f"/v2/models/{name}/infer" for name in ("words", "alone", "every", "strange", "pinned", "locked", "bytes")),
        *(f"/v2/models/digits/versions/{text}/infer" for text in ("1", "2", "0", "x", "-1", "²", "1" * 50)),
        *("/v2/models/infer", "/v2/models//infer", "/v2/models/digits/versions/infer", "/v2/models/\udcff/infer"),
    ]
)


@st.composite
def inference(draw: st.DrawFn) -> Sent:
    head = draw(st.one_of(protocol_head(), protocol_head(), protocol_head(), body))
    tail = draw(st.one_of(st.just(b""), st.binary(max_size=20), st.sampled_from([bytes(16), b"\xff" * 16])))
    packed, more = pack(head + tail, draw(packing))
    if tail or draw(st.booleans()):
        length = draw(
            st.one_of(
                st.just(str(len(head)).encode()),
                st.just(str(len(head)).encode()),
                st.sampled_from([b"0", b"-1", b"", b"x", b"1", b"99999999", b"\xb2", b"9" * 40]),
            )
        )
        more = (*more, (b"inference-header-content-length", length))
    return Sent(draw(infer_paths), packed, (*draw(headers), *more))


other_paths = st.one_of(
    st.sampled_from(
        [
            "/v2",
            "/v2/",
            "/v2/health/live",
            "/v2/models/stats",
            "/v2/models/digits",
            "/v2/models/digits/versions/x",
            "/v2/models/digits/versions/2147483648/ready",
            "/v2/models/nowhere/config",
            "/v2/models/\udcff/stats",
            "/v2/repository/index",
            "/v2/repository/models/digits/load",
            "/v2/repository/models/a/b/c/unload",
            "/v2/trace/setting",
            "/v2/logging",
            "/openapi.json",
            "/healthz",
            "/",
            "//",
            "/predict",
            "/\x00",
        ]
    ),
    st.text(max_size=12).map(lambda text: "/" + text),
)
anything_else = st.builds(
    Sent,
    other_paths,
    st.one_of(st.just(b""), body),
    headers.map(tuple),
    st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"]),
)
