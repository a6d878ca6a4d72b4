"""An artifact store at a URL: the same BlobStore to everyone, whose cache is bounded and never believed."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.errors import IntegrityError, RegistryError
from gateway.registry.blobs import BlobState
from gateway.registry.remote.cached import CachedBlobStore
from gateway.registry.remote.objects import ObjectPlace, ObjectStore
from gateway.registry.remote.remote_blobs import RemoteBlobs
from gateway.registry.sealing.forms import PLAIN
from gateway.registry.verify import verify
from loadtests.live_gateway import wait_until
from tests.registry.builders import stored_manifest
from tests.registry.stores.conftest import Bucket, Folder, Opened, object_name, on_both

Place = Folder | Bucket

MISSING = "sha256:" + "0" * 64


def _spoil(path: Path, content: bytes = b"spoiled") -> None:
    path.chmod(0o644)
    path.write_bytes(content)


@on_both
def test_what_one_machine_stores_another_reads(opened: Opened) -> None:
    """Bytes, list, size and file are there through a cache that has never seen them."""
    here, there = opened(), opened()
    stored = here.put_bytes(b"weights" * 1000)
    assert there.read(stored.digest) == b"weights" * 1000
    assert there.path(stored.digest).read_bytes() == b"weights" * 1000
    assert b"".join(there.stream(stored.digest)) == b"weights" * 1000
    assert there.digests() == (stored.digest,)
    assert there.statistics().bytes == 7000
    assert (there.cache_statistics().fetches, here.cache_statistics().fetches) == (1, 0)


@on_both
def test_a_version_is_verified_where_it_lies(opened: Opened, place: Place) -> None:
    """verify reads the object, not the cache: an altered, a cut and a missing object are told apart."""
    blobs = opened()
    manifest = stored_manifest(blobs)
    assert verify(manifest.digest, blobs).ok
    file, example = manifest.files[0].digest, manifest.example
    assert example is not None
    place.put(object_name(file), b'{"delay_ms": 9}')
    place.delete(object_name(example.digest))
    states = {finding.expected: finding.state for finding in verify(manifest.digest, blobs).findings}
    assert (states[file], states[example.digest]) == (BlobState.ALTERED, BlobState.MISSING)
    place.put(object_name(file), b"{")
    assert blobs.verify(file, manifest.files[0].size_bytes).state is BlobState.TRUNCATED


def test_a_cached_file_that_was_altered_is_fetched_again(opened: Opened) -> None:
    """Whoever wrote into the cache: the bytes that come out are the right ones."""
    blobs = opened()
    stored = blobs.put_bytes(b"weights")
    _spoil(blobs.standing(stored.digest))
    assert blobs.read(stored.digest) == b"weights"
    _spoil(blobs.standing(stored.digest), b"altered")  # of the same size
    assert blobs.path(stored.digest).read_bytes() == b"weights"
    assert blobs.cache_statistics().healed == 2


def test_an_object_that_was_altered_is_never_handed_out(opened: Opened, place: Place) -> None:
    """IntegrityError names store, object and both digests, and nothing of it is kept."""
    blobs, fresh = opened(), opened()
    stored = blobs.put_bytes(b"weights")
    place.put(object_name(stored.digest), b"altered")
    found = "sha256:" + hashlib.sha256(b"altered").hexdigest()
    with pytest.raises(IntegrityError, match=rf"{re.escape(place.url)}.*{found}"):
        fresh.path(stored.digest)
    assert list(fresh.root.rglob("*/sha256/*/*")) == []


def test_what_is_not_there_is_said_to_be_missing(opened: Opened) -> None:
    """With the store's address, and what to do."""
    with pytest.raises(IntegrityError, match=r"missing from the artifact store file://.*Push the version there again"):
        opened().read(MISSING)


def test_the_cache_keeps_to_its_bound_and_lets_the_oldest_go(opened: Opened) -> None:
    """What was asked for last stays; all of it can still be read."""
    clock = ManualClock()
    blobs = opened(cache_bytes=3000, hold_s=10.0, now=clock.wall)
    stored = []
    for letter in b"abc":
        stored.append(blobs.put_bytes(bytes([letter]) * 1000))
        clock.advance(20.0)
    blobs.read(stored[0].digest)
    clock.advance(20.0)
    blobs.put_bytes(b"d" * 1000)
    assert blobs.cache_statistics().bytes == 3000
    assert blobs.standing(stored[0].digest).exists()
    assert not blobs.standing(stored[1].digest).exists()
    assert blobs.read(stored[1].digest) == b"b" * 1000
    assert blobs.cache_statistics().bytes <= 3000


def test_what_a_load_may_be_about_to_open_is_not_let_go_of(opened: Opened) -> None:
    """Refused with the figures instead; once the time is over there is room."""
    clock = ManualClock()
    blobs = opened(cache_bytes=2000, hold_s=10.0, now=clock.wall)
    first = blobs.put_bytes(b"a" * 1500)
    assert blobs.path(first.digest).exists()
    second = blobs.put_bytes(b"b" * 1000)
    with pytest.raises(RegistryError, match=r"full: 1500 of 2000 bytes .* last 10 s, and 1000 more"):
        blobs.path(second.digest)
    assert blobs.standing(first.digest).exists()
    clock.advance(11.0)
    assert blobs.path(second.digest).read_bytes() == b"b" * 1000
    with pytest.raises(RegistryError, match=r"cache_bytes\); raise it"):
        blobs.put_bytes(b"c" * 2001)


def test_more_than_the_cache_may_hold_goes_past_it(opened: Opened) -> None:
    """Put, found again, read and streamed at one go, though loads hold all the room; the bound stands throughout."""
    clock = ManualClock(wall=time.time())
    blobs = opened(cache_bytes=2000, hold_s=1000.0, now=clock.wall)
    loaded = blobs.put_bytes(b"x" * 1500)
    blobs.path(loaded.digest)
    stored = [blobs.put_bytes(bytes([letter]) * 1000) for letter in b"abcdef"]
    for letter, one in zip(b"abcdef", stored, strict=True):
        blobs.refresh(one.digest)
        assert blobs.read(one.digest) == b"".join(blobs.stream(one.digest)) == bytes([letter]) * 1000
        assert blobs.cache_statistics().bytes <= 2000
    clock.advance(3000.0)
    for one in (*stored, *reversed(stored)):
        blobs.refresh(one.digest)
        assert blobs.verify(one.digest).state is BlobState.OK
        assert blobs.cache_statistics().bytes <= 2000


def test_a_file_that_is_only_read_makes_room_for_one_that_is_loaded(opened: Opened) -> None:
    """A transfer through the cache never keeps a load out for the time that loads are given."""
    clock = ManualClock()
    blobs = opened(cache_bytes=2000, hold_s=1000.0, now=clock.wall)
    one, two = blobs.put_bytes(b"a" * 1500), blobs.put_bytes(b"b" * 1500)
    assert blobs.path(one.digest).exists()
    clock.advance(2000.0)
    assert blobs.read(two.digest) == b"b" * 1500
    clock.advance(11.0)
    assert blobs.path(one.digest).read_bytes() == b"a" * 1500
    assert blobs.read(one.digest) == b"a" * 1500
    clock.advance(11.0)
    with pytest.raises(RegistryError, match="is full"):
        blobs.path(two.digest)


def test_several_who_fetch_at_once_keep_to_the_bound_together(opened: Opened) -> None:
    """Room is kept for what is under way: of two that do not fit together, one is told so."""
    blobs, other = opened(), opened(cache_bytes=150_000)
    stored = [blobs.put_bytes(os.urandom(100_000)) for _ in range(2)]
    refused: list[RegistryError] = []

    def load(digest: str) -> None:
        try:
            other.path(digest)
        except RegistryError as error:
            refused.append(error)

    with other.remote.fetched(stored[0].digest):  # the first to load it waits for this one, with its room taken
        first = threading.Thread(target=load, args=[stored[0].digest])
        first.start()
        place = str(other.root / "blobs" / "tmp" / f"fetching-{stored[0].sha256}")
        wait_until(lambda: _opened_by_this_process(place) == 2, what="the first to wait for its turn")
        load(stored[1].digest)
    first.join()
    assert len(refused) == 1
    assert "100000 of 150000 bytes" in str(refused[0])
    assert other.cache_statistics().bytes == 100_000


def test_two_processes_of_one_cache_fetch_the_same_file_at_once(opened: Opened) -> None:
    """The second waits for the first, whose file then goes into its place: it fetches one of its own, and neither takes
    the other's away."""
    blobs = opened()
    stored = blobs.put_bytes(os.urandom(50_000))
    one, two = opened(), opened()
    two.remote = one.remote  # the same scratch folder, as two processes have it
    place = one.root / "blobs" / "tmp" / f"fetching-{stored.sha256}"
    read: list[bytes] = []
    with one.remote.fetched(stored.digest) as fresh:
        waiting = threading.Thread(target=lambda: read.append(two.read(stored.digest)))
        waiting.start()
        wait_until(lambda: _opened_by_this_process(str(place)) == 2, what="the second to wait for its turn")
        fresh.rename(one.root / "moved")
    waiting.join()
    assert [len(data) for data in read] == [50_000]


def _opened_by_this_process(place: str) -> int:
    found = 0
    for handle in Path("/proc/self/fd").iterdir():
        try:
            found += str(handle.readlink()) == place
        except OSError:
            continue
    return found


def test_a_fetch_that_was_cut_off_goes_on_where_it_ended(opened: Opened) -> None:
    """Only what is missing is asked for; a beginning that belongs to something else is thrown away."""
    blobs, other = opened(), opened()
    content = os.urandom(100_000)
    stored = blobs.put_bytes(content)
    partial = other.root / "blobs" / "tmp" / f"fetching-{stored.sha256}"
    partial.write_bytes(content[:60_000])
    told: list[int] = []
    with other.remote.fetched(stored.digest, told.append) as path:
        assert path.read_bytes() == content
    partial.write_bytes(os.urandom(60_000))
    assert other.read(stored.digest) == content


def test_a_fetch_that_nobody_went_on_with_is_removed(opened: Opened, tmp_path: Path) -> None:
    """After a week, from a cache and from the folder of a pull alike; a younger one is gone on with."""
    scratch = tmp_path / "transfers"
    scratch.mkdir()
    old, young = scratch / f"fetching-{'1' * 64}", scratch / f"fetching-{'2' * 64}"
    for path, age_s in ((old, 8 * 86_400), (young, 60)):
        path.write_bytes(b"a part")
        os.utime(path, (time.time() - age_s,) * 2)
    RemoteBlobs(opened().remote.objects, scratch, PLAIN)
    assert list(scratch.iterdir()) == [young]


def test_several_who_ask_at_once_fetch_once(opened: Opened) -> None:
    """Threads of one gateway that load two versions with the same file."""
    blobs, other = opened(), opened()
    stored = blobs.put_bytes(os.urandom(50_000))
    threads = [threading.Thread(target=other.path, args=[stored.digest]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.cache_statistics().fetches == 1


def test_the_same_bytes_are_sent_once_and_again_when_they_are_old(opened: Opened, place: Place) -> None:
    """An old blob that is put again becomes young, so that a gc under way elsewhere leaves it alone."""
    clock = ManualClock(wall=time.time())
    blobs = opened(now=clock.wall)
    stored = blobs.put_bytes(b"weights")
    place.put(object_name(stored.digest), b"another")  # of the same size: it is not looked at
    blobs.put_bytes(b"weights")
    assert place.get(object_name(stored.digest)) == b"another"
    clock.advance(3000.0)
    blobs.put_bytes(b"weights")
    assert place.get(object_name(stored.digest)) == b"weights"


def test_the_gateways_process_never_imports_a_stores_client(tmp_path: Path, bucket: Bucket) -> None:
    """Reading and writing S3 leaves neither fsspec nor s3fs nor asyncio's client in this process."""
    program = (
        "import sys; from pathlib import Path\n"
        "from gateway.registry.remote.cached import CachedBlobStore\n"
        "from gateway.registry.remote.objects import ObjectPlace, ObjectStore\n"
        f"store = ObjectStore(ObjectPlace({bucket.url!r}, {dict(bucket.options)!r}))\n"
        f"blobs = CachedBlobStore(Path({str(tmp_path)!r}), store, cache_bytes=1000)\n"
        "print(blobs.read(blobs.put_bytes(b'weights').digest))\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'fsspec', 's3fs', 'aiobotocore', 'botocore', 'aiohttp'}))\n"
        "blobs.close()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.splitlines() == ["b'weights'", "[]"]


def test_a_client_that_dies_is_replaced_at_the_next_call(opened: Opened) -> None:
    """Killed between two calls, or under one: the caller gets its answer, since every call may be made again."""
    blobs = opened()
    stored = blobs.put_bytes(b"weights")
    client = blobs.remote.objects._client
    assert client is not None
    client._process.kill()
    client._process.wait()
    blobs.standing(stored.digest).unlink()
    assert blobs.read(stored.digest) == b"weights"


def test_a_secret_that_was_rotated_is_the_next_clients(tmp_path: Path) -> None:
    """Without a restart: the client that was started with the one before ends, and calls go on."""
    now = {"token": "hunter1"}
    store = ObjectStore(ObjectPlace(Folder(tmp_path / "objects").url, secrets=lambda: dict(now)))
    store.write("x", "weights")
    before = store._client
    assert store.read("x") == b"weights"
    assert store._client is before is not None
    now["token"] = "hunter2"
    assert store.read("x") == b"weights"
    assert store._client is not before
    wait_until(lambda: not _runs(before._process.pid), what="the end of the client with the old secret")
    assert "hunter" not in f"{store.place}"
    store.close()


def test_the_client_ends_with_the_process_that_asked(place: Place) -> None:
    """kill -9 of a gateway leaves no client behind."""
    program = (
        "import os, sys; from gateway.registry.remote.objects import ObjectPlace, ObjectStore\n"
        f"store = ObjectStore(ObjectPlace({place.url!r}))\n"
        "store.stat('x'); print(store._client._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    client = int(done.stdout)
    wait_until(lambda: not _runs(client), what="the end of the client")


def _runs(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_store_that_cannot_be_reached_is_said_in_words(tmp_path: Path) -> None:
    """What cannot be done, where, and what to check; an unknown scheme and refused options likewise."""
    gone = {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s"}
    gone |= {"config_kwargs": {"retries": {"max_attempts": 1}}}  # type: ignore[dict-item]
    for url, options, words in (
        ("s3://nowhere/models", gone, "s3://nowhere/models: cannot"),
        ("nosuch://place/models", {}, "cannot open it: Protocol not known.*Check the url"),
    ):
        store = ObjectStore(ObjectPlace(url, options))
        blobs = CachedBlobStore(tmp_path / "cache", store, cache_bytes=1000)
        with pytest.raises(RegistryError, match=words):
            blobs.put_bytes(b"weights")
        blobs.close()
    assert "secret" not in repr(ObjectPlace("s3://b", gone))
