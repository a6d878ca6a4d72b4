"""Versions between stores: by reference, whole or not to be seen, and going on after any cut."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.errors import Conflict, IntegrityError, RegistryError, TurnoutError, UnknownModel, UnknownVersion
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.manifest import FileEntry, Manifest
from gateway.registry.remote.objects import ObjectPlace, ObjectStore
from gateway.registry.remote.remote_blobs import RemoteBlobs
from gateway.registry.sealing.forms import PLAIN
from gateway.registry.transfer.ends import BlobEnd, RemoteEnd
from gateway.registry.transfer.records import VersionRecord, choose
from gateway.registry.transfer.transfer import transfer
from gateway.registry.verify import verify
from tests.registry.builders import SIGNATURE, stored_manifest
from tests.registry.stores.conftest import Bucket, Folder, object_name, on_both

Place = Folder | Bucket
Ended = Callable[[str], RemoteEnd]


def record_of(manifest: Manifest, number: int = 1, **entry: object) -> VersionRecord:
    return VersionRecord(manifest.model, CatalogueEntry(number, manifest.digest, 1000.0, **entry))  # type: ignore[arg-type]


def large_version(blobs: BlobStore, files: int, size: int, model: str = "large") -> Manifest:
    """Many files, each of its own bytes."""
    entries = []
    for place in range(files):
        stored = blobs.put_bytes(os.urandom(size))
        entries.append(FileEntry(f"part-{place:04}.bin", stored.sha256, stored.size_bytes))
    script = blobs.put_bytes(b'{"delay_ms": 0}')
    entries.append(FileEntry("script.echo.json", script.sha256, script.size_bytes))
    manifest = Manifest(model, "echo", "script.echo.json", tuple(entries), SIGNATURE)
    blobs.put_bytes(manifest.canonical())
    return manifest


@pytest.fixture
def end(place: Place, tmp_path: Path) -> Iterator[Ended]:
    """The store at the place, or at a name beside it."""
    opened: list[ObjectStore] = []

    def open_end(name: str = "") -> RemoteEnd:
        url = f"{place.url}/{name}".rstrip("/")
        objects = ObjectStore(ObjectPlace(url, dict(place.options), silence_s=60.0))
        opened.append(objects)
        return RemoteEnd(RemoteBlobs(objects, tmp_path / "scratch", PLAIN))

    yield open_end
    for objects in opened:
        objects.close()


@on_both
def test_a_version_goes_there_and_comes_back_the_same(end: Ended, tmp_path: Path) -> None:
    """Every blob, the manifest and the record; what is there already is not sent again."""
    here, back = BlobStore(tmp_path / "here"), BlobStore(tmp_path / "back")
    first, second = stored_manifest(here), stored_manifest(here, b'{"delay_ms": 7}')
    there = end("store")
    done = transfer(BlobEnd(here), there, [record_of(first)])
    assert (done.versions, done.files, done.files_there) == (1, 2, 0)
    done = transfer(BlobEnd(here), there, [record_of(first), record_of(second, 2)])
    assert (done.versions, done.files, done.files_there) == (2, 1, 2)  # the example is the same
    arrived: list[VersionRecord] = []
    told: list[tuple[int, int]] = []
    transfer(there, BlobEnd(back, arrived.append), there.records(), progress=lambda *bar: told.append(bar))
    assert back.digests() == here.digests()
    assert sorted(map(str, arrived)) == ["digits/1", "digits/2"]
    assert told[-1][0] == told[-1][1] > 0


def test_a_version_that_lacks_a_file_is_not_to_be_seen(end: Ended, place: Folder, tmp_path: Path) -> None:
    """A damaged file stops its version, and what is sent under a false name is refused where it starts."""
    here, there = BlobStore(tmp_path / "here"), end()
    sound, damaged = stored_manifest(here), stored_manifest(here, b'{"delay_ms": 7}', "other")
    path = here.path(damaged.files[0].digest)
    path.chmod(0o644)
    path.write_bytes(b'{"delay_ms": 8}')
    with pytest.raises(IntegrityError, match=r"Nothing was sent: run turnout verify"):
        transfer(BlobEnd(here), there, [record_of(sound), record_of(damaged)], parallel=1)
    assert [str(record) for record in there.records()] == ["digits/1"]
    assert object_name(damaged.files[0].digest) not in place.names()
    assert object_name(damaged.digest) not in place.names()


def test_what_arrives_altered_is_refused(end: Ended, place: Folder, tmp_path: Path) -> None:
    """An object that somebody wrote over does not enter the home, and neither does its version."""
    here, back, there = BlobStore(tmp_path / "here"), BlobStore(tmp_path / "back"), end()
    manifest = stored_manifest(here)
    transfer(BlobEnd(here), there, [record_of(manifest)])
    place.put(object_name(manifest.files[0].digest), b'{"delay_ms": 8}')
    arrived: list[VersionRecord] = []
    with pytest.raises(IntegrityError, match="was altered"):
        transfer(there, BlobEnd(back, arrived.append), there.records())
    assert arrived == []
    assert manifest.digest not in back.digests()


def test_a_damaged_file_of_the_home_is_healed_by_pulling(end: Ended, tmp_path: Path) -> None:
    """What is there is hashed before it counts as there."""
    here, there = BlobStore(tmp_path / "here"), end()
    manifest = stored_manifest(here)
    transfer(BlobEnd(here), there, [record_of(manifest)])
    path = here.path(manifest.files[0].digest)
    path.chmod(0o644)
    path.write_bytes(b'{"delay_ms": 8}')
    transfer(there, BlobEnd(here), there.records())
    assert here.read(manifest.files[0].digest) == b'{"delay_ms": 0}'


def test_a_record_is_believed_only_where_it_belongs(end: Ended, place: Folder) -> None:
    """One copied to another model's place, one that is no JSON, one nested without end."""
    there = end()
    record = VersionRecord("fraud", CatalogueEntry(1, "sha256:" + "a" * 64, 1.0))
    for content in (record.to_bytes(), b"{", b"[" * 100_000):
        place.put(f"versions/digits/{'a' * 64}.json", content)
        with pytest.raises(RegistryError, match=f"versions/digits/{'a' * 64}.json"):
            there.records()


@on_both
def test_what_cannot_be_read_keeps_no_other_version_from_anybody(end: Ended, place: Place, tmp_path: Path) -> None:
    """Records that are no text, no JSON, of another model, too large: each is named with its reason, and the sound one
    is listed. To gc, which needs all of them, it is an error."""
    here, there = BlobStore(tmp_path / "here"), end()
    record = record_of(stored_manifest(here))
    transfer(BlobEnd(here), there, [record])
    hostile = {
        f"versions/digits/{'b' * 64}.json": (b"\xff\xfe", "is no text"),
        f"versions/other/{'c' * 64}.json": (b"{", "not valid JSON"),
        f"versions/other/{record.digest[7:]}.json": (record.to_bytes(), "does not belong there"),
        f"versions/other/{'d' * 64}.json": (b" " * (4 * 1024 * 1024 + 1), "bytes"),
        "versions/digits/deep.json": (b"[" * 100_000, "nested too deeply"),
        "aliases/digits/champion.json": (b"[]", "expected an object"),
    }
    for name, (content, _) in hostile.items():
        place.put(name, content)
    listing = there.listing()
    assert (listing.records, listing.aliases) == ([record], {})
    assert listing.unreadable.keys() == hostile.keys()
    for name, (_, said) in hostile.items():
        assert said in listing.unreadable[name]
    assert sorted(listing.about({"other"})) == sorted(name for name in hostile if "/other/" in name)
    with pytest.raises(RegistryError, match="nothing can be freed"):
        there.records()


def test_versions_that_lack_nothing_arrive_past_those_that_do(end: Ended, place: Folder, tmp_path: Path) -> None:
    """A file altered, a manifest gone, a version under another model's name: each is told with its reason, and a file
    that several share is not taken for damaged in all of them."""
    here, there = BlobStore(tmp_path / "here"), end()
    manifests = [stored_manifest(here, b'{"delay_ms": %d}' % delay) for delay in range(4)]
    records = [record_of(manifest, number) for number, manifest in enumerate(manifests, 1)]
    transfer(BlobEnd(here), there, records)
    place.put(object_name(manifests[1].files[0].digest), b'{"delay_ms": 8}')
    place.delete(object_name(manifests[2].digest))
    told: dict[str, str] = {}
    arrived: list[VersionRecord] = []
    report = transfer(
        there,
        BlobEnd(BlobStore(tmp_path / "back"), arrived.append),
        [*records, VersionRecord("trusted", records[0].entry)],
        parallel=1,
        refused=lambda record, error: told.update({str(record): str(error)}),
    )
    assert sorted(map(str, arrived)) == ["digits/1", "digits/4"]
    assert sorted(told) == ["digits/2", "digits/3", "trusted/1"]
    assert "was altered" in told["digits/2"]
    assert "not in that store" in told["digits/3"]
    assert "its manifest is of digits" in told["trusted/1"]
    assert (report.versions, report.files) == (2, 3)


def test_an_imported_and_gated_version_goes_there_with_the_blobs_that_it_names(end: Ended, tmp_path: Path) -> None:
    """Its entry holds digests that name no blob too (of the import's files, of a declaration): none of them is asked
    for, by a push or by verify."""
    blobs, there = BlobStore(tmp_path / "home"), end("")
    manifest = stored_manifest(blobs)
    kept = [blobs.put_bytes(text) for text in (b"a gate's record", b"a bundle", b"a profile")]
    rows = [{"digest": one.digest, "size_bytes": one.size_bytes} for one in kept]
    imported = {"system": "mlflow", "name": "fraud", "version": "7", "files": "sha256:" + "1" * 64}
    record = record_of(
        manifest,
        imported=imported,
        gates=({"record": kept[0].digest, "declaration": "sha256:" + "2" * 64, "basis": "sha256:" + "3" * 64},),
        signatures=(rows[1] | {"by": "alice", "at": 1.0},),
        profiles=(rows[2] | {"route": "live", "rows": 9, "captured_at": 1.0},),
    )
    assert record.beside == {one.digest for one in kept}
    assert transfer(BlobEnd(blobs), there, [record]).versions == 1
    assert verify(record.digest, there.remote, beside=record.beside).ok
    assert there.records() == [record]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"number": 2**63 - 1}, "number is"),
        ({"created_at": 1e300}, "created_at is"),
        ({"imported": ["mlflow"]}, "expected an object"),
        ({"signatures": ["alice"]}, "expected an object"),
        ({"signatures": [{"digest": "../x", "size_bytes": 1, "by": "alice", "at": 1.0}]}, "expected sha256"),
        ({"profiles": [{"digest": "sha256:" + "1" * 64, "size_bytes": 1}]}, "captured_at is missing"),
        ({"gates": [1]}, "expected the result of gates"),
        ({"gates": [{"record": {}}]}, "expected a digest"),
        ({"gates": [{"record": "../x"}]}, "expected sha256"),
    ],
)
def test_a_strangers_record_that_would_break_a_catalogue_is_refused(
    end: Ended, place: Folder, tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    """Others can write to the store: what a catalogue could not be read again with never enters one."""
    blobs, there = BlobStore(tmp_path / "home"), end("")
    record = record_of(stored_manifest(blobs))
    transfer(BlobEnd(blobs), there, [record])
    body = json.loads(place.get(record.name))
    place.put(record.name, json.dumps(body | {"entry": body["entry"] | changed}).encode())
    with pytest.raises(TurnoutError, match=said):
        there.records()


def test_what_a_gc_swept_at_the_target_meanwhile_is_sent_after_all(end: Ended, place: Folder, tmp_path: Path) -> None:
    """A file that was there, and belonged to nothing until this version's record, may go between the look and the
    record."""
    blobs, there = BlobStore(tmp_path / "home"), end("")
    manifest = stored_manifest(blobs)
    assert manifest.example is not None
    name = object_name(manifest.example.digest)
    place.put(name, blobs.read(manifest.example.digest))

    swept: list[str] = []

    def sweep(done: int, total: int) -> None:
        if done == total and not swept:
            swept.append(name)
            place.delete(name)

    report = transfer(BlobEnd(blobs), there, [record_of(manifest)], progress=sweep)
    assert (report.files, report.files_there) == (2, 0)
    assert verify(manifest.digest, there.remote).ok


def test_a_version_is_taken_under_its_own_models_name_alone(end: Ended, place: Folder, tmp_path: Path) -> None:
    """Settings allow things (pickles) to models by name: a record cannot lend a version another one."""
    blobs, there = BlobStore(tmp_path / "home"), end("")
    record = record_of(stored_manifest(blobs))
    transfer(BlobEnd(blobs), there, [record])
    false = VersionRecord("trusted", record.entry)
    place.put(false.name, false.to_bytes())
    with pytest.raises(IntegrityError, match="its manifest is of digits"):
        transfer(there, BlobEnd(BlobStore(tmp_path / "other")), [false])


def test_versions_are_chosen_by_number_alias_and_digest() -> None:
    """Two that share a number are told apart by their digests, never guessed."""
    digests = ["sha256:" + letter * 64 for letter in "abc"]
    records = [VersionRecord("fraud", CatalogueEntry(n, d, 1.0)) for n, d in zip((1, 2, 2), digests, strict=True)]
    aliases = {("fraud", "champion"): digests[0]}

    def found(reference: str) -> list[str]:
        return [record.digest for record in choose(reference, records, aliases, "the store")]

    assert found("fraud") == digests
    assert found("fraud/1") == found("fraud@champion") == found("fraud@" + "sha256:aaaa") == digests[:1]
    with pytest.raises(Conflict, match="fits several versions in the store"):
        found("fraud/2")
    with pytest.raises(UnknownVersion, match="it has 1, 2, 2"):
        found("fraud@staging")
    with pytest.raises(UnknownModel, match="'digits'"):
        found("digits/1")


SYNC = """
import os, sys
from pathlib import Path
from gateway.registry.blobs import BlobStore
from gateway.registry.remote.objects import ObjectPlace, ObjectStore
from gateway.registry.remote.remote_blobs import RemoteBlobs
from gateway.registry.sealing.forms import PLAIN
from gateway.registry.transfer.ends import BlobEnd, RemoteEnd
from gateway.registry.transfer.records import VersionRecord
from gateway.registry.transfer.transfer import transfer
from gateway.registry.verify import verify
import json
home, url, options, record, way, most = sys.argv[1:]

def cut(done, total):
    if done >= int(most) > 0:
        os.kill(os.getpid(), 9)

objects = ObjectStore(ObjectPlace(url, json.loads(options)))
remote = RemoteEnd(RemoteBlobs(objects, Path(home) / "transfers", PLAIN))
local = BlobEnd(BlobStore(Path(home)))
record = VersionRecord.from_bytes(Path(record).read_bytes(), sys.argv[4])
ends = (local, remote) if way == "push" else (remote, local)
print(json.dumps(transfer(*ends, [record], parallel=2, progress=cut).to_json()), flush=True)
objects.close()
"""


SIZE = 4096
"""Of each file."""


def _sync(home: Path, bucket: Bucket, record: Path, way: str, *, files: int = 0) -> subprocess.CompletedProcess[bytes]:
    """``files``: it kills itself (SIGKILL) when it has been told of the bytes of so many, with others under way."""
    words = [str(home), bucket.url, json.dumps(dict(bucket.options)), str(record), way, str(files * SIZE)]
    return subprocess.run([sys.executable, "-c", SYNC, *words], check=False, stdout=subprocess.PIPE, timeout=200)


def _cut(home: Path, bucket: Bucket, record: Path, way: str, *, files: int) -> None:
    assert _sync(home, bucket, record, way, files=files).returncode == -signal.SIGKILL


def _finished(home: Path, bucket: Bucket, record: Path, way: str) -> dict[str, int]:
    done = _sync(home, bucket, record, way)
    assert done.returncode == 0
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_a_sync_cut_twice_by_kill_9_goes_on_and_ends_equal(bucket: Bucket, tmp_path: Path) -> None:
    """To S3 and back: after each cut only whole files can be seen and no version, and the next run sends the rest."""
    home, back = tmp_path / "home", tmp_path / "back"
    blobs = BlobStore(home)
    manifest = large_version(blobs, files=120, size=SIZE)
    record = tmp_path / record_of(manifest).name
    record.parent.mkdir(parents=True)
    record.write_bytes(record_of(manifest).to_bytes())
    sent = 0
    for files in (20, 40):
        _cut(home, bucket, record, "push", files=files)
        names = bucket.names()
        assert not [name for name in names if not name.startswith("blobs/sha256/")]
        assert object_name(manifest.digest) not in names
        for name in names[:: max(1, len(names) // 10)]:
            assert hashlib.sha256(bucket.get(name)).hexdigest() == Path(name).name
        assert len(names) > sent
        sent = len(names)
    done = _finished(home, bucket, record, "push")
    assert (done["files"] + done["files_there"], done["files_there"] >= sent) == (121, True)
    wanted = sorted([*(object_name(digest) for digest in blobs.digests()), record_of(manifest).name])
    assert sorted(bucket.names()) == wanted

    here, sent = BlobStore(back), 0
    for files in (20, 40):
        _cut(back, bucket, record, "pull", files=files)
        assert manifest.digest not in here.digests()
        assert all(here.verify(digest).state == "ok" for digest in here.digests())
        assert len(here.digests()) > sent
        sent = len(here.digests())
    done = _finished(back, bucket, record, "pull")
    assert done["files_there"] >= sent
    assert here.digests() == blobs.digests()
