"""A stand-in of the W&B server: the GraphQL and HTTP calls that the unmodified SDK makes to read an artifact, no more.

No W&B server runs on every machine, so tests drive the real SDK (its Python and its ``wandb-core``) against this one.
What it answers was seen by letting SDK 0.31 ask, call by call; what it does not know, it refuses with the query's name,
so that a newer SDK's new question fails a test instead of being answered with a guess. Against a real account, see
``docs/operations.md``.

    POST /graphql                Viewer, GetDefaultEntity, FetchOrgInfoFromEntity, ServerFeaturesQuery: who asks, and
                                 what the server can do
                                 ArtifactMembershipByName: an alias or a version becomes an artifact
                                 FetchArtifactManifest, GetArtifactMembershipFileUrls: where its manifest and files are
                                 ArtifactCreatedBy, Run, RunInputArtifacts, RunFiles: where it comes from
    GET /storage/manifest/ID     the manifest
    GET /storage/file/ID/NAME    a file of an artifact
    GET /storage/run/ID/NAME     a file of a run
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import xxhash

__all__ = ["API_KEY", "Artifact", "Run", "WandbStandIn"]

API_KEY = "0123456789abcdef" * 2 + "01234567"
_NAME = re.compile(r"(?:query|mutation)\s+(\w+)")
_AT = "2026-11-01T12:00:00Z"

Json = dict[str, Any]


@dataclass
class Artifact:
    """One version of a collection. ``digest`` and ``entries`` are the right ones until a test makes them wrong."""

    collection: str
    version: int
    files: dict[str, bytes]
    type: str = "model"
    run: Run | None = None
    aliases: set[str] = field(default_factory=set)
    description: str | None = None
    state: str = "COMMITTED"
    algorithm: str = "MANIFEST_MD5"
    entries: dict[str, Json] = field(default_factory=dict)
    digest: str = ""

    def __post_init__(self) -> None:
        self.entries = {name: _entry(data, self.algorithm) for name, data in self.files.items()}
        self.digest = self.own_digest()

    def own_digest(self) -> str:
        """As W&B defines it: over a line for each path, in order."""
        lines = "".join(f"{name}:{entry['digest']}\n" for name, entry in sorted(self.entries.items()))
        return str(_hash(b"wandb-artifact-manifest-v1\n" + lines.encode(), self.algorithm).hexdigest())

    @property
    def id(self) -> str:
        return base64.b64encode(f"Artifact:{self.collection}:{self.version}".encode()).decode()

    def manifest(self) -> Json:
        policy = {"storageLayout": "V2"}
        return {
            "version": 1,
            "storagePolicy": "wandb-storage-policy-v1",
            "storagePolicyConfig": policy,
            "contents": self.entries,
        }


@dataclass
class Run:
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    commit: str | None = None
    metadata: Mapping[str, Any] | None = None
    used: list[Artifact] = field(default_factory=list)


class WandbStandIn:
    """Serves what is put into it, on a port of its own, until the block ends. ``asked`` has the queries' names."""

    def __init__(self, entity: str = "acme", project: str = "fraud") -> None:
        self.entity = entity
        self.project = project
        self.artifacts: list[Artifact] = []
        self.runs: dict[str, Run] = {}
        self.links: dict[tuple[str, str], Artifact] = {}
        """By project and ``collection:alias``: what a registry's entry links to."""
        self.asked: list[str] = []
        self.outage: int | None = None
        """A status to answer everything with."""
        self.before: Callable[[str], None] = lambda _name: None
        """Called before each query is answered: what happens at the server meanwhile."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, artifact: Artifact) -> Artifact:
        self.artifacts.append(artifact)
        if artifact.run is not None:
            self.runs[artifact.run.name] = artifact.run
        return artifact

    def move(self, alias: str, to: Artifact) -> None:
        for artifact in self.artifacts:
            if artifact.collection == to.collection:
                artifact.aliases.discard(alias)
        to.aliases.add(alias)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                if self.path != "/graphql":
                    stand_in.asked.append(f"POST {self.path}")
                    self._say(404, b"")
                    return
                self._say(*stand_in.answer(json.loads(data), self.headers.get("authorization", "")))

            def do_GET(self) -> None:
                self._say(*stand_in.stored(urlsplit(self.path).path))

            def _say(self, status: int, data: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name above
                """Nothing is printed."""

        return Handler

    def answer(self, body: Json, authorization: str) -> tuple[int, bytes]:
        found = _NAME.search(body.get("query", ""))
        name = found[1] if found else "?"
        self.asked.append(name)
        self.before(name)
        key = base64.b64decode(authorization.removeprefix("Basic ") or b"").decode().removeprefix("api:")
        if self.outage is not None:
            return self.outage, b'{"error": "out of service"}'
        if key != API_KEY:
            return 401, b'{"error": "user is not logged in"}'
        reply = getattr(self, f"_{name}", None)
        if reply is None:
            return 200, json.dumps({"errors": [{"message": f"the stand-in does not know {name}"}]}).encode()
        return 200, json.dumps({"data": reply(body.get("variables") or {})}).encode()

    def stored(self, path: str) -> tuple[int, bytes]:
        _, _, kind, owner, *rest = [unquote(part) for part in path.split("/")]
        if kind == "run":
            return 200, json.dumps(self.runs[owner].metadata).encode()
        artifact = next(found for found in self.artifacts if found.id == owner)
        if kind == "manifest":
            return 200, json.dumps(artifact.manifest()).encode()
        data = artifact.files.get("/".join(rest))
        return (404, b"") if data is None else (200, data)

    def _Viewer(self, variables: Json) -> Json:  # noqa: N802 - named for the query
        return {
            "viewer": {"id": "1", "entity": self.entity, "username": "ada", "email": "", "flags": "{}", "teams": None}
        }

    def _GetDefaultEntity(self, variables: Json) -> Json:  # noqa: N802
        return {"viewer": {"id": "1", "entity": self.entity}}

    def _FetchOrgInfoFromEntity(self, variables: Json) -> Json:  # noqa: N802
        organization = {"name": "Acme", "orgEntity": {"name": self.entity}}
        return {"entity": {"organization": organization, "user": None}}

    def _ServerFeaturesQuery(self, variables: Json) -> Json:  # noqa: N802
        return {"serverInfo": {"features": [{"name": "ARTIFACT_DIGEST_ALGORITHM", "isEnabled": True}]}}

    def _ArtifactMembershipByName(self, variables: Json) -> Json:  # noqa: N802
        collection, _, alias = variables["name"].partition(":")
        linked = self.links.get((variables["project"], variables["name"]))
        if linked is not None:
            return {"project": {"artifactCollectionMembership": self._link(variables["project"], collection, linked)}}
        if (variables["entity"], variables["project"]) != (self.entity, self.project):
            return {"project": None}
        found = self._at(collection, alias)
        return {"project": {"artifactCollectionMembership": None if found is None else self._membership(found)}}

    def _FetchArtifactManifest(self, variables: Json) -> Json:  # noqa: N802
        place = f"{self.url}/storage/manifest/{quote(variables['id'], safe='')}"
        return {"artifact": {"currentManifest": {"file": {"directUrl": place}}}}

    def _GetArtifactMembershipFileUrls(self, variables: Json) -> Json:  # noqa: N802
        linked = self.links.get((variables["project"], f"{variables['collection']}:{variables['alias']}"))
        artifact = linked or self._at(variables["collection"], variables["alias"])
        names = [] if artifact is None else [name for name, entry in artifact.entries.items() if "ref" not in entry]
        edges = [
            {"node": {"__typename": "File", "name": name, "directUrl": self._url(artifact, name)}} for name in names
        ]
        files = {"pageInfo": _PAGE, "edges": edges}
        membership = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
        return {"project": {"artifactCollection": membership}}

    def _ArtifactCreatedBy(self, variables: Json) -> Json:  # noqa: N802
        artifact = next(found for found in self.artifacts if found.id == variables["id"])
        if artifact.run is None:
            return {"artifact": {"createdBy": None}}
        run = {"__typename": "Run", "id": artifact.run.name, "name": artifact.run.name, "project": self._project()}
        return {"artifact": {"createdBy": run}}

    def _Run(self, variables: Json) -> Json:  # noqa: N802
        run = self.runs.get(variables["name"])
        return {"project": {"run": None if run is None else _run(run)}}

    def _RunInputArtifacts(self, variables: Json) -> Json:  # noqa: N802
        used = self.runs[variables["run"]].used
        edges = [{"node": self._artifact(artifact)} for artifact in used]
        return {"project": {"run": {"artifacts": {"totalCount": len(used), "pageInfo": _PAGE, "edges": edges}}}}

    def _RunFiles(self, variables: Json) -> Json:  # noqa: N802
        run = self.runs[variables["name"]]
        edges = []
        if run.metadata is not None and "wandb-metadata.json" in variables["fileNames"]:
            place = f"{self.url}/storage/run/{run.name}/wandb-metadata.json"
            size = len(json.dumps(run.metadata))
            node = {"id": "1", "name": "wandb-metadata.json", "url": place, "sizeBytes": size, "directUrl": place}
            edges = [{"node": node | {"mimetype": None, "updatedAt": _AT, "md5": ""}, "cursor": "1"}]
        files = {"edges": edges, "pageInfo": _PAGE}
        return {"project": {"internalId": "1", "run": {"fileCount": len(edges), "files": files}}}

    def _at(self, collection: str, alias: str) -> Artifact | None:
        mine = [found for found in self.artifacts if found.collection == collection]
        if re.fullmatch(r"v\d+", alias):
            return next((found for found in mine if found.version == int(alias[1:])), None)
        return next((found for found in mine if alias in found.aliases), None)

    def _url(self, artifact: Artifact | None, name: str) -> str:
        return "" if artifact is None else f"{self.url}/storage/file/{quote(artifact.id, safe='')}/{quote(name)}"

    def _project(self, name: str | None = None) -> Json:
        return {"id": "1", "internalId": "1", "name": name or self.project, "entity": {"name": self.entity}}

    def _membership(self, artifact: Artifact) -> Json:
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": "1",
            "versionIndex": artifact.version,
            "createdAt": _AT,
            "aliases": [
                {"__typename": "ArtifactAlias", "id": name, "alias": name} for name in sorted(artifact.aliases)
            ],
            "artifactCollection": self._collection(artifact, "ArtifactSequence"),
            "artifact": self._artifact(artifact),
        }

    def _link(self, project: str, collection: str, artifact: Artifact) -> Json:
        """A registry counts versions of its own; the artifact behind is one of a project."""
        portfolio = {"__typename": "ArtifactPortfolio", "name": collection, "project": self._project(project)}
        return self._membership(artifact) | {"versionIndex": 4, "aliases": [], "artifactCollection": portfolio}

    def _collection(self, artifact: Artifact, kind: str) -> Json:
        return {"__typename": kind, "name": artifact.collection, "project": self._project()}

    def _artifact(self, artifact: Artifact) -> Json:
        return {
            "__typename": "Artifact",
            "id": artifact.id,
            "artifactSequence": self._collection(artifact, "ArtifactSequence"),
            "versionIndex": artifact.version,
            "artifactType": {"name": artifact.type},
            "description": artifact.description,
            "metadata": "{}",
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": artifact.state,
            "size": sum(len(data) for data in artifact.files.values()),
            "digest": artifact.digest,
            "digestAlgorithm": artifact.algorithm,
            "commitHash": "",
            "fileCount": len(artifact.files),
            "createdAt": _AT,
            "updatedAt": _AT,
            "aliases": [],
        }


_PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}


def _run(run: Run) -> Json:
    """As the public API reads it: configuration and summary are JSON within the JSON."""
    return {
        "projectId": "1",
        "id": run.name,
        "tags": [],
        "name": run.name,
        "displayName": run.name,
        "sweepName": None,
        "state": "finished",
        "config": json.dumps({name: {"value": value} for name, value in run.config.items()}),
        "group": None,
        "jobType": None,
        "commit": run.commit,
        "readOnly": True,
        "createdAt": _AT,
        "heartbeatAt": _AT,
        "description": None,
        "notes": None,
        "systemMetrics": "{}",
        "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": 0,
        "user": {"name": "Ada", "username": "ada"},
        "historyKeys": None,
    }


def _alias(name: str) -> Json:
    return {"__typename": "ArtifactAlias", "id": name, "alias": name}


def _entry(data: bytes, algorithm: str) -> Json:
    entry: Json = {"digest": base64.b64encode(_hash(data, algorithm).digest()).decode(), "size": len(data)}
    return entry | ({"extra": {"alg": "XXH128"}} if algorithm == "MANIFEST_XXH128" else {})


def _hash(data: bytes, algorithm: str) -> Any:
    return xxhash.xxh128(data) if algorithm == "MANIFEST_XXH128" else hashlib.md5(data, usedforsecurity=False)
