"""Files that an operator offers with a version: read within limits, refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gateway.errors import InvalidRegistration, RegistryError
from gateway.registry import canonical
from gateway.yaml_reading import OnceLoader

__all__ = ["parse_offered", "read_offered", "read_offered_json", "refusing"]


@contextmanager
def refusing(what: str = "") -> Iterator[None]:
    """What is wrong with an offered thing is the offerer's to put right, and not the registry's failure."""
    try:
        yield
    except InvalidRegistration:
        raise
    except (RegistryError, ValueError) as error:
        raise InvalidRegistration(f"{what}: {error}" if what else str(error)) from error


def read_offered(path: Path, what: str, max_bytes: int = canonical.MAX_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidRegistration(f"{what} {path} cannot be read: {error.strerror}; check the path") from error
    if len(data) > max_bytes:
        raise InvalidRegistration(f"{what} {path} is larger than the {max_bytes} bytes that are read")
    return data


def read_offered_json(path: Path, what: str) -> Any:
    """JSON, or YAML by its suffix; both give plain JSON values."""
    data = read_offered(path, what)
    with refusing(f"{what} {path}"):
        if path.suffix not in (".yaml", ".yml"):
            return canonical.loads_any(data, what="the text")
        return _yaml(data, f"{what} {path}")


def parse_offered(data: bytes, what: str) -> Any:
    """JSON, or YAML by its look: of bytes that have lost their name."""
    if data.lstrip()[:1] in (b"{", b"["):
        with refusing():
            return canonical.loads_any(data, what=what, max_bytes=max(len(data), canonical.MAX_BYTES))
    return _yaml(data, what)


def _yaml(data: bytes, what: str) -> Any:
    with refusing(what):
        try:
            # A safe loader: nothing but scalars, lists and mappings comes out of it.
            return canonical.thaw(canonical.freeze(yaml.load(data, Loader=_PlainLoader)))  # noqa: S506
        except RecursionError:
            raise InvalidRegistration(
                f"{what} is nested too deeply; at most {canonical.MAX_DEPTH} levels are read"
            ) from None
        except yaml.YAMLError as error:
            raise InvalidRegistration(f"{what} is not valid YAML: {error}") from error


class _PlainLoader(OnceLoader):
    """YAML that means JSON: dates stay text, and aliases (which can unfold without end) are refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - overrides the base's own table
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("anchors and aliases are not taken; write the value out")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node
