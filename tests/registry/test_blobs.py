"""The blob store: bytes under their own digest, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.errors import IntegrityError, RegistryError
from gateway.registry.blobs import BlobState, BlobStore

ROOT = Path(__file__).parents[2]
STEPS = ("created", "written", "synced", "renamed", "recorded")

WRITER = """
import os, signal, sys
from pathlib import Path
from gateway.registry.blobs import BlobStore

def step(name):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

BlobStore(Path(sys.argv[1]), step=step).put_bytes(b"weights" * 1000)
print("stored")
"""
OPENER = """
import sys
from pathlib import Path
from gateway.registry.blobs import BlobStore

print(len(BlobStore(Path(sys.argv[1])).digests()))
"""
CONTENT = b"weights" * 1000
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


def _leftovers(root: Path) -> list[str]:
    return [file.name for file in (root / "blobs" / "tmp").iterdir()]


def test_bytes_are_stored_once_under_their_digest(tmp_path: Path) -> None:
    """Same bytes, same place; read-only; read back verified."""
    blobs = BlobStore(tmp_path)
    first, second = blobs.put_bytes(CONTENT), blobs.put_bytes(CONTENT)
    assert first == second
    assert (first.digest, first.size_bytes) == (DIGEST, len(CONTENT))
    assert blobs.digests() == (DIGEST,)
    path = blobs.path(DIGEST)
    assert path == tmp_path / "blobs" / "sha256" / first.sha256[:2] / first.sha256
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert blobs.read(DIGEST) == CONTENT
    assert (blobs.statistics().blobs, blobs.statistics().bytes) == (1, len(CONTENT))
    assert _leftovers(tmp_path) == []


def test_a_file_is_copied_with_its_progress_told(tmp_path: Path) -> None:
    """Progress rises to the file's size; the source stays as it was."""
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(2_500_000))
    told: list[tuple[int, int]] = []
    blobs = BlobStore(tmp_path / "home")
    stored = blobs.put_file(source, lambda done, total: told.append((done, total)))
    assert blobs.read(stored.digest) == source.read_bytes()
    assert told == sorted(told)
    assert told[-1] == (2_500_000, 2_500_000)


def test_an_empty_file_is_a_blob_like_any_other(tmp_path: Path) -> None:
    """Zero bytes have a digest too."""
    blobs = BlobStore(tmp_path)
    assert blobs.read(blobs.put_bytes(b"").digest) == b""


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The path and what to do are in the message."""
    with pytest.raises(RegistryError, match=r"cannot read .*gone.onnx: No such file or directory\. Check the path"):
        BlobStore(tmp_path).put_file(tmp_path / "gone.onnx")


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 64, "sha256:../" + "a" * 61])
def test_what_is_no_digest_names_no_path(tmp_path: Path, digest: str) -> None:
    """Nothing outside the store can be named."""
    with pytest.raises(RegistryError, match="expected sha256: and 64"):
        BlobStore(tmp_path).path(digest)


def test_a_flipped_byte_is_found_with_both_digests(tmp_path: Path) -> None:
    """Reading refuses, verifying tells, and storing the bytes again heals."""
    blobs = BlobStore(tmp_path)
    path = blobs.path(blobs.put_bytes(CONTENT).digest)
    path.chmod(0o644)
    damaged = b"W" + CONTENT[1:]
    path.write_bytes(damaged)
    found = "sha256:" + hashlib.sha256(damaged).hexdigest()
    with pytest.raises(IntegrityError, match=f"{found}, expected {DIGEST}. Restore it from a backup"):
        blobs.read(DIGEST)
    check = blobs.verify(DIGEST, len(CONTENT))
    assert (check.state, check.found) == (BlobState.ALTERED, found)
    blobs.put_bytes(CONTENT)
    assert blobs.verify(DIGEST).state is BlobState.OK


def test_truncated_and_missing_bytes_are_told_apart(tmp_path: Path) -> None:
    """A file cut short is truncated, one that is gone is missing."""
    blobs = BlobStore(tmp_path)
    path = blobs.path(blobs.put_bytes(CONTENT).digest)
    path.chmod(0o644)
    os.truncate(path, 10)
    assert blobs.verify(DIGEST, len(CONTENT)).state is BlobState.TRUNCATED
    assert blobs.delete(DIGEST) == 10
    assert blobs.delete(DIGEST) == 0
    assert blobs.verify(DIGEST, len(CONTENT)).state is BlobState.MISSING
    with pytest.raises(IntegrityError, match="cannot be read from the artifact store"):
        blobs.read(DIGEST)


@pytest.mark.parametrize("step", STEPS)
def test_a_writer_killed_at_any_step_leaves_the_whole_blob_or_none(tmp_path: Path, step: str) -> None:
    """``kill -9`` between create, write, fsync, rename and directory fsync; the next open sweeps."""
    ended = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path), step], cwd=ROOT, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    before_rename = STEPS.index(step) < STEPS.index("renamed")
    assert len(_leftovers(tmp_path)) == (1 if before_rename else 0)
    blobs = BlobStore(tmp_path)
    assert _leftovers(tmp_path) == []
    assert blobs.digests() == (() if before_rename else (DIGEST,))
    assert all(blobs.verify(digest).state is BlobState.OK for digest in blobs.digests())
    assert blobs.put_bytes(CONTENT).digest == DIGEST


def test_opening_the_store_leaves_a_living_writers_file_alone(tmp_path: Path) -> None:
    """A second process opens the store in the middle of a put; the put goes through."""
    reached, go_on = threading.Event(), threading.Event()

    def step(name: str) -> None:
        if name == "written":
            reached.set()
            go_on.wait(100)

    writer = threading.Thread(target=lambda: BlobStore(tmp_path, step=step).put_bytes(CONTENT))
    writer.start()
    assert reached.wait(100)
    opened = subprocess.run(
        [sys.executable, "-c", OPENER, str(tmp_path)], cwd=ROOT, check=True, timeout=60, capture_output=True, text=True
    )
    assert opened.stdout.strip() == "0"
    assert len(_leftovers(tmp_path)) == 1
    go_on.set()
    writer.join(100)
    assert BlobStore(tmp_path).digests() == (DIGEST,)


def test_many_writers_of_the_same_bytes_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Eight threads store one blob at once: one blob, sound, nothing left over."""
    blobs = BlobStore(tmp_path)
    threads = [threading.Thread(target=blobs.put_bytes, args=(CONTENT,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blobs.digests() == (DIGEST,)
    assert blobs.verify(DIGEST).state is BlobState.OK
    assert _leftovers(tmp_path) == []


def test_a_put_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    """Whatever the progress callback raises, the temporary file goes."""

    def stop(done: int, total: int) -> None:
        raise RuntimeError("stop")

    source = tmp_path / "model.bin"
    source.write_bytes(CONTENT)
    blobs = BlobStore(tmp_path / "home")
    with pytest.raises(RuntimeError, match="stop"):
        blobs.put_file(source, stop)
    assert blobs.digests() == ()
    assert _leftovers(tmp_path / "home") == []


def test_a_file_that_is_not_what_was_expected_is_not_stored(tmp_path: Path) -> None:
    """The check comes before the rename."""
    source = tmp_path / "model.bin"
    source.write_bytes(b"other")
    blobs = BlobStore(tmp_path / "home")
    with pytest.raises(IntegrityError, match=f"expected {DIGEST}"):
        blobs.put_file(source, expected=DIGEST)
    assert blobs.digests() == ()


def test_a_copy_holds_every_blob_and_refuses_damage(tmp_path: Path) -> None:
    """A backup is verified as it is made, and a second run writes nothing again."""
    blobs = BlobStore(tmp_path / "home")
    damaged = blobs.put_bytes(b"other").digest
    blobs.put_bytes(CONTENT)
    copied = blobs.copy_to(tmp_path / "backup")
    assert (copied.blobs, copied.bytes) == (2, len(CONTENT) + 5)
    kept = BlobStore(tmp_path / "backup").path(DIGEST).stat().st_mtime_ns
    assert blobs.copy_to(tmp_path / "backup") == copied
    assert BlobStore(tmp_path / "backup").path(DIGEST).stat().st_mtime_ns == kept
    blobs.path(damaged).chmod(0o644)
    blobs.path(damaged).write_bytes(b"OTHER")
    with pytest.raises(IntegrityError, match=f"expected {damaged}"):
        blobs.copy_to(tmp_path / "second")
    assert damaged not in BlobStore(tmp_path / "second").digests()


def test_a_collector_is_alone_or_told_that_it_is_not(tmp_path: Path) -> None:
    """While a registration is under way, collecting gives False at once; afterwards True."""
    blobs = BlobStore(tmp_path)
    with blobs.registering(), blobs.registering(), blobs.collecting() as alone:
        assert not alone
    with blobs.collecting() as alone:
        assert alone
        handle = os.open(tmp_path / "blobs" / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(handle)
