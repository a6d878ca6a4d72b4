"""YAML in which a key stands once: of equal ones the parser keeps the last, and half of what was written is lost."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["OnceLoader", "PlainLoader", "read_yaml"]

_MERGE = "tag:yaml.org,2002:merge"
_BOOLEAN = "tag:yaml.org,2002:bool"


class OnceLoader(yaml.SafeLoader):
    """Raises ``yaml.YAMLError`` naming the key and both of its lines. A merge (``<<``) is no key: what it brings may be
    said anew, so keys are compared as they are written, before merges are taken in."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in first:
                raise yaml.YAMLError(f"the key {key.value!r} stands in line {first[name]} and again in line {line}")
            first[name] = line
        return node


class PlainLoader(OnceLoader):
    """YAML 1.2's booleans: ``on`` and ``off`` are texts, since flags have variants of these names."""


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_implicit_resolver(_BOOLEAN, re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))


def read_yaml(text: str | bytes, loader: type[OnceLoader] = OnceLoader) -> Any:
    """The one document of a text, None where there is none."""
    return yaml.load(text, Loader=loader)  # noqa: S506 (a safe loader)
