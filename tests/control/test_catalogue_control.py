"""The catalogue for reading: pages, searches over real manifests, what is kept of them, and what is damaged."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.control.catalogue_control import INDEX_FILE, CatalogueControl, Page
from gateway.control.memory_store import MemoryStore
from gateway.control.sqlite_store import SqliteStore
from gateway.control.store import AuditEntry, Change, DocumentKey, Store
from gateway.errors import BadRequest, StoreUnavailable
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import ModelDocument
from gateway.registry.manifest import EvaluationRecord, Lineage, Manifest
from gateway.registry.registration import RegistrationOptions, prepare
from gateway.registry.search import read_query

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}],
}


class Home:
    """Models ``m0``, ``m1``, … of three versions each, whose accuracy is 0.90, 0.91, … in order."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store
        self.blobs = BlobStore(folder / "home")
        self.digests: list[str] = []

    @property
    def control(self) -> CatalogueControl:
        """Another one each time, as after a restart."""
        return CatalogueControl(self.store, self.blobs, self.folder / "home")

    def base(self) -> Manifest:
        (self.folder / "a.echo.json").write_text("{}")
        (self.folder / "signature.json").write_text(json.dumps(SIGNATURE))
        options = RegistrationOptions(signature=self.folder / "signature.json", prove=False)
        return prepare("m0", self.folder / "a.echo.json", options, self.blobs)

    async def fill(self, models: int) -> None:
        base = self.base()
        for model in range(models):
            document = ModelDocument(f"m{model}")
            for version in range(3):
                place = model * 3 + version
                manifest = replace(
                    base,
                    model=document.name,
                    evaluation=(EvaluationRecord("accuracy", (90 + place) / 100),),
                    lineage=Lineage(
                        data=[{"name": "d", "digest": f"sha256:{place % 2:064x}"}], code={"commit": "c" * 40}
                    ),
                )
                digest = self.blobs.put_bytes(manifest.canonical()).digest
                self.digests.append(digest)
                document, _ = document.add_version(digest, created_at=1000.0 + place, tags={"place": str(place)})
            await self.write(document.set_alias("champion", 3))

    async def write(self, document: ModelDocument) -> None:
        key = DocumentKey("model", document.name)
        found = await self.store.read(key)
        change = Change(key, document.to_json(), 0 if found is None else found.revision)
        await self.store.commit([change], AuditEntry("olga", "register", str(key)))


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    made = Home(tmp_path, MemoryStore())
    await made.fill(4)
    return made


def names(rows: Sequence[Any]) -> list[str]:
    return [f"{row['model']}/{row['version']}" for row in rows]


def flat(found: list[list[str]]) -> list[str]:
    return [name for page in found for name in page]


async def pages(control: CatalogueControl, limit: int, **terms: str) -> list[list[str]]:
    """Each page's versions, by following ``after``."""
    query, after, found = read_query({name: [text] for name, text in terms.items()}), None, []
    while True:
        listing = await control.search(query, Page(after, limit))
        found.append(names(listing.rows))
        if listing.following is None:
            return found
        after = listing.following


async def test_pages_add_up_to_the_whole_and_none_is_empty(home: Home) -> None:
    """Of models and of versions, whatever the size of a page."""
    control = home.control
    whole = await control.models(Page())
    first = await control.models(Page(limit=3))
    rest = await control.models(Page(after=first.following, limit=3))

    assert [row["name"] for row in (*first.rows, *rest.rows)] == [row["name"] for row in whole.rows]
    assert (first.following, rest.following, whole.following) == ("m2", None, None)
    everything = [f"m{model}/{version}" for model in range(4) for version in (1, 2, 3)]
    for limit in (1, 5, 6, 12, 100):
        found = await pages(control, limit)
        assert flat(found) == everything
        assert all(found)
    with pytest.raises(BadRequest, match="like fraud/12"):
        await control.search(read_query({}), Page(after="m1"))


async def test_a_model_in_few_words_says_how_many_and_the_newest(home: Home) -> None:
    """And in full all of them, in the shape that it always had."""
    (brief,) = (await home.control.models(Page(limit=1), brief=True)).rows
    (full,) = (await home.control.models(Page(limit=1))).rows

    assert (brief["count"], brief["newest"]["version"], brief["aliases"]) == (3, 3, {"champion": 3})
    assert full.keys() == {"model", "name", "revision", "versions", "aliases", "notes"}
    assert full["versions"][-1] == brief["newest"]


async def test_versions_are_found_by_what_their_manifests_say(home: Home) -> None:
    """Metrics, data, and both sides of the catalogue together."""
    control = home.control

    assert flat(await pages(control, 50, metric="accuracy>=1.0")) == ["m3/2", "m3/3"]
    assert flat(await pages(control, 50, data=f"sha256:{1:064x}")) == [
        "m0/2", "m1/1", "m1/3", "m2/2", "m3/1", "m3/3",
    ]  # fmt: skip
    assert flat(await pages(control, 50, metric="accuracy>=0.95", alias="champion", name="m[12]")) == [
        "m1/3",
        "m2/3",
    ]
    (row,) = (await control.search(read_query({"tag": ["place=4"]}), Page())).rows
    assert (row["model"], row["version"], row["format"], row["commit"]) == ("m1", 2, "echo", "c" * 40)
    assert row["metrics"] == [{"metric": "accuracy", "value": 0.94}]


async def test_a_manifest_is_read_once_and_what_it_says_is_kept_over_restarts(home: Home) -> None:
    """The blobs could be gone: what was found of them still is. A torn line costs that manifest alone."""
    await pages(home.control, 50, metric="accuracy>=0")
    index = home.folder / "home" / INDEX_FILE
    lines = index.read_bytes().splitlines()
    index.write_bytes(b"\n".join(lines)[:-20])
    for digest in home.digests[:-1]:
        home.blobs.path(digest).unlink()

    found = await pages(home.control, 50, metric="accuracy>=0.9")

    assert len(found[0]) == 12


async def test_a_damaged_manifest_is_counted_and_hides_no_other(home: Home) -> None:
    """Neither is one found that cannot be read, nor does the search fail."""
    home.blobs.path(home.digests[4]).unlink()

    listing = await home.control.search(read_query({"metric": ["accuracy>=0"]}), Page())

    assert listing.unreadable == 1
    assert len(listing.rows) == 11


async def test_a_damaged_model_hides_no_other(home: Home) -> None:
    """It is counted, and gone on from."""
    await home.store.commit([Change(DocumentKey("model", "m9"), {"schema": 1}, 0)], AuditEntry("x", "x", "x"))

    listing = await home.control.models(Page())

    assert [row["name"] for row in listing.rows] == ["m0", "m1", "m2", "m3"]
    assert listing.unreadable == 1


async def test_what_changes_is_seen_at_once_and_has_another_tag(home: Home) -> None:
    """The tag stays while the answer would; a change of any model gives another."""
    control = home.control
    before = await control.etag("models", Page())
    same = await control.etag("models", Page())
    document = (await control.models(Page(limit=1))).rows[0]
    moved = ModelDocument.from_json((await home.store.snapshot()).documents[DocumentKey("model", "m0")].body)
    await home.write(moved.set_alias("champion", 1))

    assert before == same != await control.etag("models", Page())
    assert before != await control.etag("models", Page(limit=1))
    assert (await control.models(Page(limit=1))).rows[0]["aliases"] == {"champion": 1} != document["aliases"]


async def test_a_snapshot_of_the_store_parses_what_has_changed_and_still_sees_damage(tmp_path: Path) -> None:
    """The same text is the same value; another text is read, wherever it came from."""
    store = SqliteStore(tmp_path / "store.sqlite3")
    home = Home(tmp_path, store)
    await home.fill(2)
    first, again = await store.snapshot(), await store.snapshot()
    key, other = DocumentKey("model", "m0"), DocumentKey("model", "m1")
    assert first.documents[key].body is again.documents[key].body

    await home.write(ModelDocument.from_json(first.documents[key].body).with_notes("changed"))
    changed = await store.snapshot()
    assert (changed.documents[key].body or {})["notes"] == "changed"
    assert changed.documents[other].body is first.documents[other].body
    await store.close()

    store = SqliteStore(tmp_path / "store.sqlite3")
    await store.snapshot()
    with sqlite3.connect(tmp_path / "store.sqlite3") as damaging:
        damaging.execute("UPDATE living SET body = '{' WHERE name = 'm1'")
    with pytest.raises(StoreUnavailable, match="not JSON"):
        await store.snapshot()
    await store.close()
