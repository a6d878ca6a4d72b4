"""Route documents in YAML files: one or more documents, each ``route:`` with its spec, or ``{name: spec}``.

A spec without a name is the route that is named like its model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gateway.cli.failures import CommandFailed
from gateway.yaml_reading import PlainLoader

__all__ = ["read_route_file"]

Spec = Mapping[str, Any]


def read_route_file(path: Path) -> dict[str, Spec]:
    """Route name to spec, in the file's order; ``-`` reads standard input. Raises CommandFailed naming the place."""
    origin = "standard input" if str(path) == "-" else str(path)
    routes: dict[str, Spec] = {}
    for number, document in enumerate(_documents(path, origin), start=1):
        for name, spec in _named(document, f"{origin}, document {number}"):
            if name in routes:
                raise CommandFailed(f"{origin}, document {number}: route {name!r} is there twice; keep one of them")
            routes[name] = spec
    if not routes:
        raise CommandFailed(
            f"{origin}: no route in it; expected a document like 'route: NAME' with 'model' and 'split'"
        )
    return routes


def _documents(path: Path, origin: str) -> list[Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        return [document for document in yaml.load_all(text, PlainLoader) if document is not None]
    except OSError as error:
        raise CommandFailed(f"{origin}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandFailed(f"{origin}: not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise CommandFailed(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None


def _named(document: Any, place: str) -> Iterator[tuple[str, Spec]]:
    if not isinstance(document, dict):
        raise CommandFailed(f"{place}: expected a mapping, got {type(document).__name__}")
    if "route" in document and not isinstance(document["route"], dict):
        yield _one(document, place)
        return
    if isinstance(document.get("model"), str):
        yield document["model"], document
        return
    if "split" in document and not isinstance(document["split"], dict):
        raise CommandFailed(f"{place}: neither 'route: NAME' nor 'model: NAME' beside 'split'; add what it is of")
    for name, spec in document.items():
        if not isinstance(spec, dict):
            raise CommandFailed(f"{place}: route {name!r}: expected its spec (a mapping), got {type(spec).__name__}")
        yield str(name), spec


def _one(document: Mapping[str, Any], place: str) -> tuple[str, Spec]:
    name = document["route"]
    if not isinstance(name, str) or not name:
        raise CommandFailed(f"{place}: 'route': expected the route's name, got {name!r}")
    if "spec" not in document:
        return name, {key: value for key, value in document.items() if key != "route"}
    spec = document["spec"]
    extra = sorted(set(document) - {"route", "spec", "status"})
    if not isinstance(spec, dict) or extra:
        wrong = f"unknown key {extra[0]!r} beside 'spec'" if extra else f"'spec' is {type(spec).__name__}"
        raise CommandFailed(f"{place}: {wrong}; expected 'route' and 'spec', or the spec's own keys")
    return name, spec
