"""Object stores for tests: a folder (fsspec's ``file:``), and one S3 server with a bucket for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.registry.remote.cached import CachedBlobStore
from gateway.registry.remote.objects import ObjectPlace, ObjectStore
from loadtests.s3_server import S3Server

Opened = Callable[..., CachedBlobStore]
_numbers = itertools.count(1)


def object_name(digest: str) -> str:
    name = digest.removeprefix("sha256:")
    return f"blobs/sha256/{name[:2]}/{name}"


@dataclass(frozen=True)
class Folder:
    """What a test does to objects behind the back of the code under test."""

    root: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.root.as_uri()

    def put(self, name: str, content: bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content)

    def get(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def delete(self, name: str) -> None:
        (self.root / name).unlink()

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Bucket:
    server: S3Server
    name: str

    @property
    def options(self) -> Mapping[str, Any]:
        return self.server.options

    @property
    def url(self) -> str:
        return f"s3://{self.name}/models"

    def put(self, name: str, content: bytes) -> None:
        self.server.ask("PUT", f"{self.name}/models/{name}", content)

    def get(self, name: str) -> bytes:
        return self.server.ask("GET", f"{self.name}/models/{name}")

    def delete(self, name: str) -> None:
        self.server.ask("DELETE", f"{self.name}/models/{name}")

    def names(self) -> list[str]:
        return [name.removeprefix("models/") for name in self.server.names(self.name, "models/")]


@pytest.fixture(scope="package")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    name = f"bucket-{next(_numbers)}"
    s3.make_bucket(name)
    return Bucket(s3, name)


@pytest.fixture(params=["folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder | Bucket:
    """A folder; a test that asks for ``s3`` too is run on both."""
    if request.param == "folder":
        return Folder(tmp_path / "objects")
    found: Bucket = request.getfixturevalue("bucket")
    return found


Place = Folder | Bucket

on_both = pytest.mark.parametrize("place", ["folder", "s3"], indirect=True)


@pytest.fixture
def opened(place: Folder | Bucket, tmp_path: Path) -> Iterator[Opened]:
    """Opens a store over the place, each with a cache of its own, and closes them all."""
    objects = ObjectStore(ObjectPlace(place.url, dict(place.options), silence_s=60.0))
    stores: list[CachedBlobStore] = []

    def open_store(**options: Any) -> CachedBlobStore:
        made = CachedBlobStore(tmp_path / f"cache-{len(stores)}", objects, **{"cache_bytes": 1 << 30, **options})
        stores.append(made)
        return made

    yield open_store
    objects.close()
