"""A home as one archive and back: everything is there again, or nothing is."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.backup import read_backup, write_backup
from gateway.cli.failures import CommandFailed
from gateway.control.audit import Verification, verify_store
from gateway.control.sqlite_store import SqliteStore
from gateway.control.store import AuditEntry, Change, Document, DocumentKey
from gateway.control.store_access import store_path
from gateway.errors import IntegrityError
from gateway.registry.blobs import BlobStore
from gateway.registry.sealing.copies import PlainCopies
from gateway.registry.sealing.forms import CHUNK_BYTES, MAGIC
from gateway.registry.sealing.keys import SealingKey, SealingKeys
from gateway.registry.sealing.sealed import Sealed
from gateway.telemetry.decisions.verify import verify
from loadtests.live_gateway import LiveGateway, wait_until
from tests.cli.conftest import Turnout, echo_source

STORE = Path("store.sqlite")
KEY = DocumentKey("model", "digits")


def no_steps(label: str, total: int):
    return lambda _: None


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    store = SqliteStore(home / STORE)
    blobs = BlobStore(home)
    stored = blobs.put_bytes(b"weights" * 1000)
    blobs.put_bytes(b"")
    asyncio.run(
        store.commit([Change(KEY, {"digest": stored.digest}, 0)], AuditEntry("test", "register", "digits/1"))
    )  # fmt: skip
    yield home  # the store stays open: backups are made while a gateway runs
    asyncio.run(store.close())


async def looked_into(path: Path) -> tuple[Document | None, Verification]:
    store = SqliteStore(path)
    try:
        return await store.read(KEY), await verify_store(store)
    finally:
        await store.close()


def saved(home: Path, target: Path) -> Path:
    report = write_backup(home / STORE, BlobStore(home), target, no_steps)
    assert report.artifacts == 2
    return target


def test_a_restored_home_holds_the_same_documents_and_artifacts(home: Path, tmp_path: Path) -> None:
    """Store, history, audit chain and every blob."""
    archive = saved(home, tmp_path / "backup.tar")
    fresh = tmp_path / "fresh"
    read_backup(archive, fresh, STORE, no_steps)
    assert BlobStore(fresh).digests() == BlobStore(home).digests()
    document, verification = asyncio.run(looked_into(fresh / STORE))
    assert document is not None
    assert document.body is not None
    assert BlobStore(fresh).read(document.body["digest"]) == b"weights" * 1000
    assert verification.fault is None


def test_a_sealed_home_is_saved_in_plain_and_whole_also_before_rekey(home: Path, tmp_path: Path) -> None:
    """What was stored before there was a key stands there in plain beside what is sealed: each comes back by its
    digest."""
    before = set(BlobStore(home).digests())
    blobs = BlobStore(home, form=Sealed(SealingKeys.of(SealingKey(b"k" * 32)), PlainCopies(1 << 30)))
    sealed = blobs.put_bytes(os.urandom(2 * CHUNK_BYTES + 7))
    assert blobs.standing(sealed.digest).read_bytes().startswith(MAGIC)
    archive, fresh = tmp_path / "backup.tar", tmp_path / "fresh"
    assert write_backup(home / STORE, blobs, archive, no_steps).artifacts == 3
    assert read_backup(archive, fresh, STORE, no_steps).artifacts == 3
    plain = BlobStore(fresh)
    assert set(plain.digests()) == before | {sealed.digest}
    assert all(plain.verify(digest).state == "ok" for digest in plain.digests())


def test_a_home_whose_artifacts_are_at_a_url_says_that_they_are_not_in_it(local: Turnout) -> None:
    """The documents are; with the same store the restored home proves every byte."""
    url = {"TURNOUT_REGISTRY__URL": (local.folder / "objects").as_uri()}
    assert local("register", "digits", echo_source(local.folder, "first"), **url).status == 0
    saved = local("backup", "home.tar", **url)
    assert (saved.status, "not in the archive: turnout sync home" in saved.err) == (0, True), saved.err
    fresh = {"TURNOUT_HOME": str(local.folder / "fresh")}
    assert local("restore-backup", "home.tar", **fresh).status == 0
    proved = local("verify", "--all", **fresh, **url)
    assert (proved.status, "digits/1  ok" in proved.out) == (0, True), proved.out


def test_an_archive_can_be_read_by_its_owner_only(home: Path, tmp_path: Path) -> None:
    """It holds models and token hashes."""
    archive = saved(home, tmp_path / "backup.tar")
    assert archive.stat().st_mode & 0o777 == 0o600


def test_a_restore_never_touches_a_home_that_is_in_use(home: Path, tmp_path: Path) -> None:
    """Restoring over something is how backups destroy what was left."""
    archive = saved(home, tmp_path / "backup.tar")
    before = sorted(path.name for path in home.iterdir())
    with pytest.raises(CommandFailed, match="is not empty"):
        read_backup(archive, home, STORE, no_steps)
    assert sorted(path.name for path in home.iterdir()) == before


def test_a_damaged_artifact_fails_the_backup_and_leaves_the_old_archive(home: Path, tmp_path: Path) -> None:
    """A backup that restores wrong bytes is worse than a message."""
    archive = saved(home, tmp_path / "backup.tar")
    old = archive.read_bytes()
    blobs = BlobStore(home)
    victim = next(blobs.path(entry.digest) for entry in blobs.entries() if entry.size_bytes)
    victim.chmod(0o600)
    victim.write_bytes(b"wrongs!" * 1000)
    with pytest.raises(IntegrityError, match="altered"):
        write_backup(home / STORE, blobs, archive, no_steps)
    assert archive.read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "home"]


@pytest.mark.parametrize("place", ["start", "head", "store", "artifact"])
def test_an_archive_that_was_cut_short_restores_nothing(home: Path, tmp_path: Path, place: str) -> None:
    """Cut anywhere, it is refused, and no home is left behind."""
    archive = saved(home, tmp_path / "backup.tar")
    data = archive.read_bytes()
    store, artifact = data.index(b"SQLite format 3") + 2000, data.index(b"weightsweights") + 3000
    archive.write_bytes(data[: {"start": 0, "head": 600, "store": store, "artifact": artifact}[place]])
    with pytest.raises(CommandFailed, match="backup"):
        read_backup(archive, tmp_path / "fresh", STORE, no_steps)
    assert not (tmp_path / "fresh").exists()


def test_an_altered_archive_restores_nothing(home: Path, tmp_path: Path) -> None:
    """Each artifact is hashed again on its way in."""
    archive = saved(home, tmp_path / "backup.tar")
    archive.write_bytes(archive.read_bytes().replace(b"weightsweights", b"weightsWEIGHTS", 1))
    with pytest.raises(IntegrityError, match="altered"):
        read_backup(archive, tmp_path / "fresh", STORE, no_steps)
    assert not (tmp_path / "fresh").exists()


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    """Paths inside an archive are never followed: only what its head names is read."""
    (tmp_path / "secret").write_text("x")
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w") as archive:
        archive.add(tmp_path / "secret", "../../escape")
    with pytest.raises(CommandFailed, match="no backup made by turnout backup"):
        read_backup(other, tmp_path / "fresh", STORE, no_steps)
    assert not (tmp_path.parent / "escape").exists()


def test_labels_and_decisions_are_in_it_while_they_are_written(tmp_path: Path) -> None:
    """A restored home proves its log, from the first record to what was written last, and has the labels; the log may
    be left out. Keys that sign and hash are in neither."""
    with LiveGateway(tmp_path / "live", settings={"telemetry": {"decisions": {"segment_bytes": 65_536}}}) as gateway:
        gateway.register_echo("digits", "digits", {"outputs": {"y": 1.0}})
        gateway.put_route("digits", {"model": "digits", "split": [{"version": 1, "weight": 1}]})
        for _ in range(60):
            assert gateway.predict("digits", [[1, 2, 3, 4]]).status_code == 200
        wait_until(lambda: "gateway_decision_log_records_total 60.0" in gateway.metrics(), what="the records")
        home = gateway.home
        archive, small = tmp_path / "whole.tar", tmp_path / "small.tar"
        whole = write_backup(store_path(home), BlobStore(home), archive, no_steps, home=home)
        less = write_backup(store_path(home), BlobStore(home), small, no_steps, home=home, decisions=False)
    assert whole.records > less.records == 1
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    assert "home/labels.db" in names
    assert not [name for name in names if "key" in name or "secret" in name or "token" in name]
    fresh = tmp_path / "fresh"
    report = read_backup(archive, fresh, store_path(home).relative_to(home), no_steps)
    assert report.records == whole.records
    proved = verify(fresh / "decisions")
    assert (proved.faults, proved.records) == ([], 60)
    assert (fresh / "labels.db").stat().st_mode & 0o777 == 0o600
    read_backup(small, tmp_path / "other", store_path(home).relative_to(home), no_steps)
    assert not (tmp_path / "other" / "decisions").exists()


def test_an_archive_whose_records_are_cut_off_or_led_astray_makes_no_home(home: Path, tmp_path: Path) -> None:
    """Every file that it lists must be there, and none goes anywhere but its place."""
    archive = saved(home, tmp_path / "backup.tar")
    for names, listed in ((["home/../../outside"], "[]"), ([], '["labels.db"]'), ([], None)):
        changed = tmp_path / "changed.tar"
        with tarfile.open(archive) as source, tarfile.open(changed, "w") as target:
            for member in source:
                if member.name != "turnout-records.json":
                    target.addfile(member, source.extractfile(member))
            for name in names:
                target.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
            if listed is not None:
                member = tarfile.TarInfo("turnout-records.json")
                member.size = len(listed)
                target.addfile(member, io.BytesIO(listed.encode()))
        if names:
            read_backup(changed, tmp_path / "fine", STORE, no_steps)
            assert not (tmp_path / "outside").exists()
            continue
        with pytest.raises(CommandFailed, match="cut short"):
            read_backup(changed, tmp_path / "none", STORE, no_steps)
        assert not (tmp_path / "none").exists()
