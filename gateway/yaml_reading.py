"""YAML in which a key stands once: of equal ones the parser keeps the last, and half of what was written is lost."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["OnceLoader", "read_yaml"]

_MERGE = "tag:yaml.org,2002:merge"


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


def read_yaml(text: str) -> Any:
    """The one document of a text, None where there is none."""
    return yaml.load(text, Loader=OnceLoader)  # noqa: S506 (a safe loader)
