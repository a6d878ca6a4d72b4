"""YAML whose keys stand once."""

from __future__ import annotations

import pytest
import yaml

from gateway.yaml_reading import read_yaml


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 1\n", "c:\n  - {b: 1}\n  - d: {a: 1}\n    e: {a: 1,\n        a: 2}\n"]
)
def test_a_key_that_stands_twice_is_refused_at_any_depth(text: str) -> None:
    """With its name and both lines, also where both values are the same."""
    with pytest.raises(yaml.YAMLError, match=r"the key 'a' stands in line \d and again in line \d"):
        read_yaml(text)


def test_what_a_merge_brings_may_be_said_anew() -> None:
    """Also of a mapping that merges another, and is merged before it is built."""
    text = "base: &b {k: 1}\nouter: {x: &x {<<: *b, k: 2}}\ny: {<<: *x, k: 3}\nother: {1: a, '1': b}\n"
    assert read_yaml(text) == {
        "base": {"k": 1},
        "outer": {"x": {"k": 2}},
        "y": {"k": 3},
        "other": {1: "a", "1": "b"},
    }
