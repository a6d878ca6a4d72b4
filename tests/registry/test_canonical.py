"""Canonical JSON: one value, one sequence of bytes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import RegistryError
from gateway.registry import canonical

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(values)
def test_what_is_written_reads_back_the_same(value: Any) -> None:
    """Reading canonical bytes gives the value, and writing that gives the bytes."""
    data = canonical.dumps(value)
    back = canonical.loads(data, what="text")
    assert back == value
    assert canonical.dumps(back) == data


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=6))
def test_order_of_keys_changes_nothing(body: dict[str, int]) -> None:
    """Keys are sorted, so insertion order is not part of the name."""
    assert canonical.dumps(dict(reversed(body.items()))) == canonical.dumps(body)


@settings(deadline=None)
@given(values)
def test_a_frozen_value_thaws_to_itself_and_writes_the_same(value: Any) -> None:
    """Freezing changes types, not content."""
    frozen = canonical.freeze(value)
    assert canonical.thaw(frozen) == json.loads(canonical.dumps(value))
    assert canonical.dumps(frozen) == canonical.dumps(value)


def test_the_form_itself() -> None:
    """UTF-8, sorted, no white space, -0.0 as 0.0."""
    written = canonical.dumps({"b": [1, -0.0, 1e22], "ä": None, "a": True})
    assert written == '{"a":true,"b":[1,0.0,1e+22],"ä":null}'.encode()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [math.nan]}, r"a\[0\]: nan is not a JSON number"),
        (math.inf, "the value: inf is not a JSON number"),
        ({"a": {"b": 2**64}}, r"a\.b: an integer outside 64 bits"),
        ({"a": "\ud800"}, "a: text that is not valid Unicode"),
        ({1: 2}, "key 1 is a int; keys are strings"),
        ({"a": b"x"}, "a: bytes is not a JSON type"),
    ],
)
def test_a_value_without_a_canonical_form_is_refused_by_its_place(value: Any, told: str) -> None:
    """The message names where the value stands."""
    with pytest.raises(RegistryError, match=told):
        canonical.dumps(value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"a":1,"a":2}', "key 'a' appears twice"),
        (b'{"a":NaN}', "NaN is not a JSON number"),
        (b"[1e999]", r"\[0\]: inf is not a JSON number"),
        (b'{"a": 1}', "not in canonical form"),
        (b'{"b":1,"a":2}', "not in canonical form"),
        (b"[-0.0]", "not in canonical form"),
        (b"[1.00]", "not in canonical form"),
        (b'["\\u0061"]', "not in canonical form"),
        (b'["\\ud800"]', "not valid Unicode"),
        (b"\xff", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[" * 40 + b"]" * 40, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply|not valid JSON"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON|outside 64 bits"),
    ],
)
def test_bytes_that_canonical_writing_would_not_make_are_refused(data: bytes, told: str) -> None:
    """Duplicates, constants, white space, order, escapes, depth: each has a message."""
    with pytest.raises(RegistryError, match=told):
        canonical.loads(data, what="the text")


def test_a_text_past_the_size_limit_is_refused_before_it_is_parsed() -> None:
    """The limit and the size are in the message."""
    with pytest.raises(RegistryError, match="has 12 bytes; at most 10 are read"):
        canonical.loads(b'"0123456789"', what="the text", max_bytes=10)
