"""A version and all that it was made from, as nodes and edges: what the terminal tree and the picture are drawn from.

Pure. A node belongs to a kind and a column: what goes in (data, code, parameters, environment), what is done (features,
the run), what comes out (the version, its metrics). A parent version stands where it went in.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gateway.registry.lineage.kinds import read_kinds
from gateway.registry.lineage.places import Code, DataInput, Environment, Kinds

__all__ = ["Graph", "Node", "draw_graph", "short"]

MAX_ROWS = 12
"""Lines of one node; what is more is counted."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Node:
    """``name`` is unique in the graph; ``lines`` are for people, ``digest`` in full."""

    name: str
    kind: str
    title: str
    lines: tuple[str, ...] = ()
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """``edges`` run from what was used to what used it. The first node is the version."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        nodes = [asdict(node) | {"lines": list(node.lines)} for node in self.nodes]
        return {"nodes": nodes, "edges": [list(edge) for edge in self.edges]}


def draw_graph(version: Json, parents: Sequence[Json] = ()) -> Graph:
    """``version`` and ``parents`` as the admin API gives them (model, version, digest, aliases, manifest), the nearest
    parent first."""
    kinds = read_kinds(version["manifest"]["lineage"], version["manifest"]["evaluation"])
    inputs = list(_inputs(version, kinds))
    work = list(_work(kinds))
    metrics = list(_metrics(version["manifest"]["evaluation"]))
    nodes = [_version(version), *inputs, *work, *metrics]
    name = nodes[0].name
    edges: list[tuple[str, str]] = []
    last = work[-1].name if work else name
    for node in inputs:
        fitted = work and work[0].kind == "features" and node.kind == "data"
        edges.append((node.name, work[0].name if fitted else last))
    edges += [(one.name, two.name) for one, two in itertools.pairwise(work)]
    edges += [(last, name)] if work else []
    edges += [(name, node.name) for node in metrics]
    return _with_parents(nodes, edges, last, version, parents)


def short(digest: str | None) -> str:
    """``sha256:ab12cd34ef56``: enough to tell apart and to look up."""
    if digest is None:
        return ""
    algorithm, colon, number = digest.partition(":")
    return f"{algorithm}:{number[:12]}" if colon else digest[:12]


def _version(version: Json) -> Node:
    manifest = version["manifest"]
    size = sum(file["size_bytes"] for file in manifest["files"])
    lines = [f"{manifest['format']}, {_count(len(manifest['files']), 'file')}, {size} bytes"]
    aliases = [f"@{alias}" for alias in version.get("aliases") or ()]
    lines += [" ".join(aliases)] if aliases else []
    lineage = manifest["lineage"]
    lines += [f"by {lineage['author']}"] if isinstance(lineage.get("author"), str) else []
    return Node("version", "version", f"{version['model']}/{version['version']}", tuple(lines), version["digest"])


def _inputs(version: Json, kinds: Kinds) -> Iterator[Node]:
    lineage = version["manifest"]["lineage"]
    for number, row in enumerate(kinds.data[:MAX_ROWS]):
        yield Node(f"data {number}", "data", row.name, tuple(_data_lines(row)), row.digest)
    if len(kinds.data) > MAX_ROWS:
        yield Node("data more", "data", f"{len(kinds.data) - MAX_ROWS} more data inputs")
    if "code" in kinds.digests:
        yield Node("code", "code", _code_title(kinds.code), tuple(_code_lines(kinds.code)), kinds.digests["code"])
    if "parameters" in kinds.digests:
        lines = [f"{name} = {_value(value)}" for name, value in kinds.parameters.values.items()]
        lines += [f"seed {name} = {_value(value)}" for name, value in kinds.parameters.seeds.items()]
        yield Node("parameters", "parameters", "parameters", _some(lines), kinds.digests["parameters"])
    if "environment" in kinds.digests:
        lines = list(_environment_lines(kinds.environment))
        digest = kinds.environment.lock or kinds.digests["environment"]
        yield Node("environment", "environment", "environment", tuple(lines), digest)
    source = lineage.get("source")
    if isinstance(source, Mapping):
        title = f"{source.get('system')}: {source.get('name')}"
        lines = [f"version {source['version']}"] if source.get("version") else []
        foreign = source.get("digest")
        yield Node("source", "source", title, tuple(lines), None if foreign is None else str(foreign))


def _work(kinds: Kinds) -> Iterator[Node]:
    steps = [f"{step.get('name')}: {str(step.get('kind') or '').rpartition('.')[2]}" for step in kinds.features.steps]
    if steps:
        yield Node("features", "features", "features", _some(steps), kinds.features.digest)
    run = kinds.run
    if run.id or run.outputs or run.started_at:
        lines = [line for line in (run.system, run.started_at) if line]
        lines += [] if run.duration_s is None else [f"{run.duration_s:g} s"]
        lines += [f"made {row.name}" for row in run.outputs]
        yield Node("run", "run", f"run {run.id[:12]}" if run.id else "run", _some(lines))


def _metrics(evaluation: Sequence[Json]) -> Iterator[Node]:
    lines = []
    for row in evaluation:
        interval = row.get("interval")
        name = f"{row['metric']} [{row['slice']}]" if row.get("slice") else row["metric"]
        spread = f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""
        rows = f", n {row['n']}" if row.get("n") is not None else ""
        lines.append(f"{name} {row['value']:.6g}{spread}{rows}")
    if lines:
        yield Node(
            "metrics", "metrics", "metrics", _some(lines), next((row.get("dataset") for row in evaluation), None)
        )


def _with_parents(
    nodes: list[Node], edges: list[tuple[str, str]], last: str, version: Json, parents: Sequence[Json]
) -> Graph:
    named = version["manifest"]["lineage"].get("parent")
    below = last
    for parent in parents:
        node = Node(f"parent {parent['model']}/{parent['version']}", "parent", *_parent(parent))
        nodes.append(node)
        edges.append((node.name, below))
        below = node.name
    if not parents and named:
        nodes.append(Node("parent", "parent", f"parent {_value(named)}", ("not in this registry",)))
        edges.append(("parent", last))
    return Graph(tuple(nodes), tuple(edges))


def _parent(parent: Json) -> tuple[str, tuple[str, ...], str]:
    aliases = " ".join(f"@{alias}" for alias in parent.get("aliases") or ())
    return f"{parent['model']}/{parent['version']}", (aliases,) if aliases else (), parent["digest"]


def _data_lines(row: DataInput) -> Iterator[str]:
    size = [] if row.rows is None else [f"{row.rows} rows"]
    size += [] if row.size_bytes is None else [f"{row.size_bytes} bytes"]
    if size:
        yield ", ".join(size)
    if row.dvc:
        yield f"dvc {row.dvc.get('md5') or row.dvc.get('rev_lock') or row.dvc.get('file') or ''}".strip()
    if row.url:
        yield row.url


def _code_title(code: Code) -> str:
    point = code.entry_point
    return " ".join(point.command) if point is not None else "code"


def _code_lines(code: Code) -> Iterator[str]:
    if code.repository:
        yield code.repository
    if code.commit:
        yield f"commit {code.commit[:12]}" + {True: ", clean", False: ", with changes", None: ""}[code.clean]
    if code.patch:
        kept = "kept" if code.patch.get("content") else "not kept"
        yield f"patch {short(str(code.patch.get('digest')))} ({kept})"
    if code.untracked:
        yield f"{_count(len(code.untracked), 'file')} that Git does not know"
    if code.files:
        yield _count(len(code.files), "source file")


def _environment_lines(environment: Environment) -> Iterator[str]:
    if environment.python:
        yield f"Python {environment.python}"
    place = ", ".join(part for part in (environment.os, environment.machine) if part)
    if place:
        yield place
    if environment.cpu.get("model"):
        yield str(environment.cpu["model"])
    if environment.cuda:
        yield "CUDA " + ", ".join(f"{name} {value}" for name, value in environment.cuda.items())
    if environment.packages:
        yield _count(len(environment.packages), "package")


def _some(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(lines) if len(lines) <= MAX_ROWS else (*lines[: MAX_ROWS - 1], f"and {len(lines) - MAX_ROWS + 1} more")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
