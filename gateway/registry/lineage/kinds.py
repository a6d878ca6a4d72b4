"""The kinds of lineage, typed: read from whatever JSON stands in a manifest, each with a digest.

Lineage arrives from our recorder, from other registries and from people, so reading is lenient: what has the expected
name and type becomes a field, and everything else stays in the JSON, which the digest covers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from gateway.registry import canonical
from gateway.registry.lineage.places import (
    KINDS,
    Code,
    DataInput,
    EntryPoint,
    Environment,
    Features,
    Kinds,
    NamedDigest,
    Parameters,
    RunRecord,
)

__all__ = ["data_digests", "read_kinds"]

_ALGORITHMS = ("sha256", "sha512", "sha1", "md5", "xxh128", "xxh64", "blake2b", "etag")
_HEXADECIMAL = re.compile(r"[0-9a-f]{8,128}(\.dir)?")
_SIZES = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}

Json = Mapping[str, Any]


def read_kinds(lineage: Any, evaluation: Sequence[Any] = ()) -> Kinds:
    """From a manifest's ``lineage`` and ``evaluation`` as JSON. Never raises for what it does not know."""
    body = lineage if isinstance(lineage, Mapping) else {}
    places = {kind: body.get(kind) for kind in (*KINDS[:-1], "features")} | {"metrics": list(evaluation)}
    digests = {kind: canonical.digest_of(canonical.dumps(place)) for kind, place in places.items() if place}
    return Kinds(
        code=_code(body.get("code")),
        data=tuple(_data(body.get("data"))),
        parameters=_parameters(body.get("parameters")),
        environment=_environment(body.get("environment")),
        features=_features(body.get("features")),
        run=_run(body.get("run")),
        digests=digests,
    )


def data_digests(lineage: Any) -> frozenset[str]:
    """Every digest by which a version's data inputs are known: what "trained on data sha256:…" is looked up in."""
    body = lineage if isinstance(lineage, Mapping) else {}
    found: set[str] = set()
    for row in _data(body.get("data")):
        reference = _digest(row.dvc) if row.dvc else None
        found |= {digest for digest in (row.digest, reference) if digest}
    return frozenset(found)


def _code(place: Any) -> Code:
    body = _object(place)
    files = body.get("files") or body.get("sha256")
    entry = _object(body.get("entry_point"))
    words = entry.get("command")
    point = None
    if isinstance(words, list | tuple) and words and all(isinstance(word, str) for word in words):
        point = EntryPoint(tuple(words), _text(entry, "folder") or ".")
    clean = body.get("clean")
    return Code(
        repository=_text(body, "repository", "url"),
        commit=_text(body, "commit", "git_commit", "revision"),
        tree=_text(body, "tree"),
        clean=clean if isinstance(clean, bool) else None,
        patch=_object(body.get("patch")),
        untracked=_named(body.get("untracked")),
        files={name: _spelled(str(digest), "sha256") or str(digest) for name, digest in _object(files).items()},
        entry_point=point,
    )


def _data(place: Any) -> Iterator[DataInput]:
    for row in _data_rows(place):
        schema = row.get("schema")
        yield DataInput(
            name=_text(row, "name", "path", "url") or "data",
            digest=_digest(row),
            rows=_integer(row, "rows") or _integer(row, "train_rows"),
            size_bytes=_integer(row, "size_bytes") or _integer(row, "size"),
            schema=_digest(schema) if isinstance(schema, Mapping) else schema if isinstance(schema, str) else None,
            path=_text(row, "path"),
            url=_text(row, "url", "source"),
            dvc=_object(row.get("dvc")) or None,
            croissant=_object(row.get("croissant")) or None,
        )


def _data_rows(place: Any) -> list[Json]:
    """A list of inputs; one of them; or inputs by name."""
    if isinstance(place, list | tuple):
        return [row if isinstance(row, Mapping) else {"name": str(row)} for row in place]
    body = _object(place)
    inputs = body.get("inputs")
    if isinstance(inputs, list | tuple):
        return _data_rows(inputs)
    if _digest(body) or "name" in body or "path" in body:
        return [body]
    rows: list[Json] = []
    for name, item in body.items():
        rows.append({"name": name, **item} if isinstance(item, Mapping) else {"name": name, "digest": item})
    return rows


def _digest(body: Any) -> str | None:
    """``{"digest": "sha256:…"}``, ``{"digest": "…", "algorithm": "md5"}`` or ``{"sha256": "…"}``."""
    if not isinstance(body, Mapping):
        return None
    algorithm = _text(body, "algorithm", "digest_algorithm", "hash")
    told = _text(body, "digest")
    if told is not None:
        return _spelled(told, algorithm) or told
    for name in _ALGORITHMS:
        value = _text(body, name)
        if value is not None:
            return _spelled(value, name) or f"{name}:{value}"
    return None


def _spelled(text: str, algorithm: str | None) -> str | None:
    if ":" in text:
        return text
    if algorithm is None and _HEXADECIMAL.fullmatch(text):
        algorithm = _SIZES.get(len(text.removesuffix(".dir")))
    return None if algorithm is None else f"{algorithm}:{text}"


def _parameters(place: Any) -> Parameters:
    body = _object(place)
    values, seeds = body.get("values"), body.get("seeds")
    if isinstance(values, Mapping) and body.keys() <= {"values", "seeds"}:
        return Parameters(values, _object(seeds))
    found = {name: value for name, value in body.items() if name == "seed" or name.endswith("_seed")}
    found |= {"random_state": body["random_state"]} if "random_state" in body else {}
    return Parameters({name: value for name, value in body.items() if name != "seeds"}, _object(seeds) or found)


def _environment(place: Any) -> Environment:
    body = _object(place)
    known = {item.name for item in fields(Environment)} | {"implementation", "libc", "threads", "cuda"}
    packages = body.get("packages")
    if not isinstance(packages, Mapping):  # as people write it: {"python": "3.11", "numpy": "2.1"}
        packages = {name: value for name, value in body.items() if name not in known and isinstance(value, str)}
    return Environment(
        lock=_text(body, "lock"),
        packages={name: str(version) for name, version in packages.items()},
        python=_text(body, "python"),
        os=_text(body, "os"),
        machine=_text(body, "machine"),
        cpu=_object(body.get("cpu")),
        cuda=_object(body.get("cuda")) or None,
    )


def _features(place: Any) -> Features:
    body = {"steps": place} if isinstance(place, list | tuple) else _object(place)
    steps = body.get("steps")
    rows = steps if isinstance(steps, list | tuple) else ()
    return Features(tuple(row if isinstance(row, Mapping) else {"name": str(row)} for row in rows), _digest(body))


def _run(place: Any) -> RunRecord:
    body = {"id": place} if isinstance(place, str) else _object(place)
    seconds = body.get("duration_s")
    return RunRecord(
        id=_text(body, "id", "run_id"),
        system=_text(body, "system"),
        started_at=_text(body, "started_at"),
        duration_s=float(seconds) if isinstance(seconds, int | float) else None,
        outputs=_named(body.get("outputs")),
        parent=body.get("parent"),
    )


def _named(rows: Any) -> tuple[NamedDigest, ...]:
    found = []
    for row in rows if isinstance(rows, list | tuple) else ():
        digest, name = _digest(row), _text(_object(row), "name")
        if digest is not None and name is not None:
            found.append(NamedDigest(name, digest, _integer(row, "size_bytes")))
    return tuple(found)


def _object(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def _text(body: Json, *names: str) -> str | None:
    for name in names:
        value = body.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _integer(body: Json, name: str) -> int | None:
    value = body.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
