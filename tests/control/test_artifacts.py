"""Room in the artifact store: exactly what nothing needs goes, whatever routes, aliases, reports and rules say."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.control.artifact_control import ArtifactControl
from gateway.control.memory_store import MemoryStore
from gateway.control.store import AuditEntry, Change, DocumentKey
from gateway.errors import Conflict, StoreUnavailable
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import ModelDocument
from gateway.registry.manifest import BlobRef, FileEntry, Manifest
from gateway.registry.retention import RetentionRule
from tests.registry.builders import SIGNATURE

NOW = 1_000_000.0
DAY_S = 86_400.0


@dataclass
class House:
    """A catalogue and its blobs, and beside them, told apart from the code under test, what every version needs."""

    folder: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(wall=NOW))

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)
        self.blobs = BlobStore(self.folder)
        self.models: dict[str, ModelDocument] = {}
        self.files: dict[tuple[str, int], frozenset[str]] = {}

    def control(self, rule: RetentionRule | None = None) -> ArtifactControl:
        return ArtifactControl(self.store, self.blobs, clock=self.clock, rule=rule)

    def put(self, data: bytes) -> BlobRef:
        stored = self.blobs.put_bytes(data)
        os.utime(self.blobs.standing(stored.digest), (0.0, 0.0))
        return BlobRef(stored.sha256, stored.size_bytes)

    def add(
        self, model: str, contents: list[int], *, age_days: float = 0.0, tags: Mapping[str, str] | None = None
    ) -> int:
        """A version of the files with these contents, its environment's lock file among its blobs."""
        files = []
        for content in contents:
            blob = self.put(b"file %d" % content)
            files.append(FileEntry(f"file-{content}.echo.json", blob.sha256, blob.size_bytes))
        lock = self.put(b"lock %d" % (contents[0] % 2))
        number = self.models.get(model, ModelDocument(model)).next_number
        example = self.put(b"example %s %d" % (model.encode(), number))
        manifest = Manifest(model, "echo", files[0].name, tuple(files), SIGNATURE, example=example, environment=lock)
        data = manifest.canonical()
        self.put(data)
        document, number = self.models.get(model, ModelDocument(model)).add_version(
            manifest.digest, created_at=NOW - age_days * DAY_S, tags=tags
        )
        self.models[model] = document
        self.files[(model, number)] = frozenset({*(file.digest for file in files), lock.digest, example.digest})
        return number

    def digest(self, model: str, number: int) -> str:
        return self.models[model].version(number).digest

    async def write(self, *others: tuple[DocumentKey, Any]) -> None:
        documents = [(DocumentKey("model", name), model.to_json()) for name, model in self.models.items()]
        snapshot = await self.store.snapshot()
        changes = [
            Change(key, body, found.revision if (found := snapshot.documents.get(key)) else 0)
            for key, body in (*documents, *others)
        ]
        await self.store.commit(changes, AuditEntry("test", "set", "all"))


def report(model: str, candidate: int, baseline: int, name: str) -> tuple[DocumentKey, Any]:
    return DocumentKey("report", f"live/{name}"), {"model": model, "candidate": candidate, "baseline": baseline}


@dataclass(frozen=True)
class Drawn:
    """A history: for each version its files, age and tag; aliases, reports, blobs named beside; the rule."""

    versions: list[tuple[list[int], float, bool, bool]]
    aliases: list[int]
    reports: list[tuple[int, int]]
    profiled: list[int]
    orphans: int
    rule: RetentionRule


drawn = st.builds(
    Drawn,
    versions=st.lists(
        st.tuples(
            st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True),
            st.sampled_from([0.0, 5.0, 40.0]),
            st.booleans(),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
    aliases=st.lists(st.integers(0, 5), max_size=2),
    reports=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=1),
    profiled=st.lists(st.integers(0, 5), max_size=2, unique=True),
    orphans=st.integers(0, 2),
    rule=st.builds(
        RetentionRule,
        st.sampled_from([None, 0, 1, 2]),
        st.sampled_from([None, 10.0]),
        st.sampled_from([(), ("keep",), ("keep=yes",), ("keep=no",)]),
    ),
)


def expected(house: House, asked: Drawn, used: set[int], beside: set[str]) -> tuple[set[str], set[int]]:
    """The blobs that must stay and the versions that must be released, said in the words of the documentation."""
    rule, count = asked.rule, len(house.models["fraud"].versions)
    released = set()
    for entry in house.models["fraud"].versions:
        newest = rule.keep_last is not None and entry.number > count - rule.keep_last
        young = rule.keep_days is not None and NOW - entry.created_at < rule.keep_days * DAY_S
        tagged = entry.tags.get("keep") == "yes" and rule.keep_tags in (("keep",), ("keep=yes",))
        anything = rule.keep_last is None and rule.keep_days is None
        if not (entry.number in used or newest or young or tagged or anything):
            released.add(entry.number)
    stay = {house.digest("fraud", entry.number) for entry in house.models["fraud"].versions} | beside
    for (model, number), files in house.files.items():
        if number not in released and model == "fraud":
            stay |= files
    return stay, released


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(asked=drawn)
def test_exactly_what_nothing_needs_goes(asked: Drawn) -> None:
    """Against a reference set: files shared among versions, environments' locks, profiles and signatures beside,
    aliases, reports of rollouts, archived versions, age, count and tags. What was shown is what went."""

    async def live(folder: Path) -> None:
        house = House(folder)
        for contents, age, tagged, archived in asked.versions:
            number = house.add("fraud", contents, age_days=age, tags={"keep": "yes"} if tagged else None)
            if archived:
                house.models["fraud"] = house.models["fraud"].archive(number)
        numbers = [entry.number for entry in house.models["fraud"].versions]
        used, beside = set[int](), set[str]()
        for place, index in enumerate(asked.aliases):
            entry = house.models["fraud"].version(numbers[index % len(numbers)])
            if not entry.archived:
                house.models["fraud"] = house.models["fraud"].set_alias(f"alias{place}", entry.number)
                used.add(entry.number)
        for index in asked.profiled:
            number = numbers[index % len(numbers)]
            kept = house.put(b"profile %d" % number)
            signed = house.put(b"signature %d" % number)
            record = {"digest": kept.digest, "size_bytes": 1, "route": "live", "rows": 1, "captured_at": 1.0}
            model = house.models["fraud"].with_profile(number, record)
            house.models["fraud"] = model.with_signature(number, {"digest": signed.digest, "size_bytes": 1})
            beside |= {kept.digest, signed.digest}
        told = []
        for candidate, baseline in asked.reports:
            pair = numbers[candidate % len(numbers)], numbers[baseline % len(numbers)]
            told.append(report("fraud", *pair, name="0"))
            used |= set(pair)
        for number in range(asked.orphans):
            house.put(b"orphan %d" % number)
        await house.write(*told)
        stay, released = expected(house, asked, used, beside)
        control = house.control(asked.rule)
        before = set(house.blobs.digests())
        shown = await control.garbage(grace_s=0.0)
        assert set(shown.releasing.get("fraud", ())) == released
        assert {entry.digest for entry in shown.found.free} == before - stay
        assert set(house.blobs.digests()) == before
        freed = await control.free(shown, actor="test")
        assert (set(house.blobs.digests()), freed) == (stay, shown.free_bytes)
        assert (await control.garbage(grace_s=0.0)).empty

    with TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))


async def test_a_version_that_is_used_again_since_it_was_shown_stays(tmp_path: Path) -> None:
    """An alias set while the operator reads the list: neither released nor freed."""
    house = House(tmp_path)
    house.add("fraud", [1], age_days=40)
    house.add("fraud", [2])
    await house.write()
    control = house.control(RetentionRule(keep_last=1))
    shown = await control.garbage(grace_s=0.0)
    assert shown.released == ["fraud/1"]
    house.models["fraud"] = house.models["fraud"].set_alias("champion", 1)
    await house.write()
    assert await control.free(shown, actor="test") == 0
    assert house.files[("fraud", 1)] <= set(house.blobs.digests())


async def test_a_released_version_comes_back_once_its_files_do(tmp_path: Path) -> None:
    """Until then the refusal names what is missing; its manifest can be read all the while."""
    house = House(tmp_path)
    house.add("fraud", [1, 3], age_days=40)
    house.add("fraud", [2])
    await house.write()
    control = house.control(RetentionRule(keep_last=1))
    await control.free(await control.garbage(grace_s=0.0), actor="test")
    assert house.blobs.read(house.digest("fraud", 1))
    with pytest.raises(Conflict, match=r"given up by gc.*file-1.echo.json: missing.*turnout pull"):
        await control.restore("fraud", 1, actor="test")
    for data in (b"file 1", b"file 3", b"lock 1", b"example fraud 1"):
        house.put(data)
    assert (await control.restore("fraud", 1, actor="test"))["archived"] is False
    (entry,) = [record.entry for record in await control.records() if record.entry.number == 1]
    assert (entry.archived, entry.released) == (False, None)
    assert [record.entry.action for record in await house.store.audit()][-2:] == ["release", "unarchive"]


async def test_nothing_goes_while_a_document_cannot_be_read(tmp_path: Path) -> None:
    """What it needs is not known."""
    house = House(tmp_path)
    house.add("fraud", [1])
    house.put(b"orphan")
    await house.write((DocumentKey("route", "live"), {"spec": 1}))
    with pytest.raises(StoreUnavailable, match="nothing was removed: route/live cannot be read"):
        await house.control().garbage(grace_s=0.0)
