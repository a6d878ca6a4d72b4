"""Blobs sealed at rest: digests stay those of the plain bytes, nothing can be altered unseen, keys can change."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.errors import IntegrityError, RegistryError, SettingsError
from gateway.registry.blobs import BlobState, BlobStore
from gateway.registry.loading import load_spec
from gateway.registry.sealing.copies import PlainCopies
from gateway.registry.sealing.forms import CHUNK_BYTES, MAGIC, Chunks
from gateway.registry.sealing.keys import SealingKey, SealingKeys
from gateway.registry.sealing.rekey import rekey
from gateway.registry.sealing.sealed import Sealed
from runtimes.files import VerifiedFiles
from tests.registry.builders import stored_manifest
from tests.registry.stores.conftest import Opened, Place, object_name

KEY, NEXT = SealingKey(b"k" * 32), SealingKey(b"n" * 32)


def sealed(key: SealingKey = KEY, *previous: SealingKey, most: int = 1 << 30) -> Sealed:
    return Sealed(SealingKeys.of(key, *previous), PlainCopies(most))


@settings(deadline=None, max_examples=30)
@given(
    size=st.sampled_from([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES]),
    flipped=st.integers(0, 1 << 30),
    cut=st.integers(1, 1 << 30),
)
def test_what_was_sealed_comes_back_or_is_refused(size: int, flipped: int, cut: int) -> None:
    """Whole: the same bytes, and the size told from outside. One bit flipped, or cut anywhere: never other bytes."""
    content, form, rest = os.urandom(size), sealed(), io.BytesIO()
    stored = form.write(io.BytesIO(content), rest)
    data = rest.getvalue()
    assert (stored.size_bytes, form.size(len(data))) == (size, size)
    assert b"".join(form.chunks(io.BytesIO(data))) == content
    place = flipped % len(data)
    altered = bytearray(data)
    altered[place] ^= 1 << flipped % 8
    for wrong in (bytes(altered), data[: cut % len(data)]):
        try:
            found = b"".join(form.chunks(io.BytesIO(wrong)))
        except IntegrityError:
            continue
        assert found == wrong, "what has no header of ours counts as plain, and its digest tells"
    assert size < 16 or content[:16] not in data


def test_chunks_cannot_change_places() -> None:
    """Nor be left out: each is sealed with its number."""
    form, rest = sealed(), io.BytesIO()
    form.write(io.BytesIO(os.urandom(3 * CHUNK_BYTES)), rest)
    data, one = rest.getvalue(), CHUNK_BYTES + 16
    head = len(data) - 3 * one
    first, second, last = (data[head + n * one : head + (n + 1) * one] for n in range(3))
    for order in ((second, first, last), (first, last), (first, second)):
        with pytest.raises(IntegrityError, match="sealed chunk"):
            list(form.chunks(io.BytesIO(data[:head] + b"".join(order))))


def test_a_sealed_store_is_the_same_store_to_everyone(tmp_path: Path) -> None:
    """Digests, sizes, reads and checks as ever; on the disk there is nothing of the bytes."""
    plain, blobs = BlobStore(tmp_path / "plain"), BlobStore(tmp_path / "sealed", form=sealed())
    content = b"weights of the model " * 1000
    assert blobs.put_bytes(content) == plain.put_bytes(content)
    digest = blobs.digests()[0]
    assert blobs.read(digest) == b"".join(blobs.stream(digest)) == content
    assert blobs.entry(digest) is not None
    assert blobs.statistics() == plain.statistics()
    assert blobs.verify(digest).state is BlobState.OK
    assert b"weights" not in blobs.standing(digest).read_bytes()
    blobs.copy_to(tmp_path / "copy")
    assert BlobStore(tmp_path / "copy").read(digest) == content


def test_a_child_reads_plain_bytes_that_are_on_no_disk(tmp_path: Path) -> None:
    """Its file is anonymous memory of this process, which nobody can write to and another process can open."""
    blobs = BlobStore(tmp_path, form=sealed())
    spec = load_spec(stored_manifest(blobs), blobs, allow_pickle=())
    assert VerifiedFiles(spec.files).read("script.echo.json") == b'{"delay_ms": 0}'
    path = spec.files[0].path
    read = [sys.executable, "-c", f"print(open({path!r}).read())"]
    assert subprocess.run(read, capture_output=True, text=True, check=True, timeout=100).stdout == '{"delay_ms": 0}\n'
    with Path(path).open("r+b", buffering=0) as file, pytest.raises(OSError, match="not permitted"):
        file.write(b"x")
    assert not Path(path).resolve().exists()
    blobs.close()
    assert not Path(path).exists()


def test_plain_copies_are_bounded_and_given_back() -> None:
    """One that is in use by a load stays; what nobody asked for of late is let go of; too large is said."""
    clock = ManualClock()
    copies = PlainCopies(1000, hold_s=10.0, now=clock.monotonic)
    digest = "sha256:" + "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    path = copies.path(digest, [b"a"], 1)
    assert path == copies.path(digest, [], 1)
    with pytest.raises(RegistryError, match=r"of 1001 bytes .*memory_bytes is 1000; raise it"):
        copies.path("sha256:" + "0" * 64, [], 1001)
    with pytest.raises(RegistryError, match="in use by loads of the last 10 s"):
        copies.path("sha256:" + "0" * 64, [], 1000)
    with pytest.raises(IntegrityError, match="was altered"):
        copies.path("sha256:" + "0" * 64, [b"b"], 1)
    clock.advance(11.0)
    assert copies.let_go() == 0
    copies.close()


def test_a_key_is_changed_while_versions_are_read(tmp_path: Path) -> None:
    """Plain and old blobs are sealed with the new key; then the old one is not needed, and ages are as they were."""
    first = BlobStore(tmp_path)
    one = first.put_bytes(b"stored before there was a key")
    two = BlobStore(tmp_path, form=sealed()).put_bytes(b"sealed with the key of before")
    os.utime(first.standing(one.digest), (1000.0, 1000.0))
    blobs = BlobStore(tmp_path, form=sealed(NEXT, KEY))
    assert blobs.read(one.digest).startswith(b"stored")
    assert (rekey(blobs, dry_run=True).files, rekey(blobs).files, rekey(blobs).kept) == (2, 2, 2)
    alone = BlobStore(tmp_path, form=sealed(NEXT))
    assert alone.read(two.digest) == b"sealed with the key of before"
    entry = alone.entry(one.digest)
    assert entry is not None
    assert entry.stored_at == 1000.0
    with pytest.raises(IntegrityError, match=r"registry\.encryption\.previous"):
        BlobStore(tmp_path, form=sealed(KEY)).read(one.digest)
    with pytest.raises(IntegrityError, match="it is sealed, and no key is set"):
        first.read(one.digest)
    with pytest.raises(SettingsError, match="name the key"):
        rekey(first)


def test_a_store_at_a_url_holds_sealed_bytes_only(opened: Opened, place: Place) -> None:
    """So does its cache; what a machine without the key gets is refused."""
    blobs = opened(form=sealed())
    stored = blobs.put_bytes(b"weights" * 1000)
    assert place.get(object_name(stored.digest)).startswith(MAGIC)
    assert blobs.standing(stored.digest).read_bytes().startswith(MAGIC)
    other = opened(form=sealed())
    assert other.path(stored.digest).read_bytes() == b"weights" * 1000
    assert other.verify(stored.digest).state is BlobState.OK
    with pytest.raises(IntegrityError):
        opened().read(stored.digest)
    for store in (blobs, other):
        store.form.close()


def test_a_key_is_changed_at_a_url_however_young_the_objects_are(opened: Opened, place: Place) -> None:
    """Both forms are of one size, so that nothing but the bytes tells them apart; then the old key is not needed."""
    first, plain = opened(form=sealed()), opened()
    old, bare = first.put_bytes(b"sealed with the key of before"), plain.put_bytes(b"stored before there was a key")
    blobs = opened(form=sealed(NEXT, KEY))
    assert blobs.path(old.digest).read_bytes() == b"sealed with the key of before"  # in its cache now, in the old form
    assert (rekey(blobs, dry_run=True).files, rekey(blobs).files, rekey(blobs).kept) == (2, 2, 2)
    alone = opened(form=sealed(NEXT))
    assert alone.read(old.digest) == b"sealed with the key of before"
    assert alone.read(bare.digest) == b"stored before there was a key"
    assert blobs.path(old.digest).read_bytes() == b"sealed with the key of before"
    for store in (first, blobs, alone):
        store.form.close()


def test_a_file_that_is_cut_off_or_whose_key_is_unknown_says_which(tmp_path: Path) -> None:
    """In the header, in the first chunk, between chunks; and another key: each is one sentence of its own."""
    content = os.urandom(2 * CHUNK_BYTES)
    blobs = BlobStore(tmp_path, form=sealed())
    stored = blobs.put_bytes(content)
    path = blobs.standing(stored.digest)
    whole = path.read_bytes()
    header = len(MAGIC) + 40
    for kept, said in (
        (len(MAGIC) + 20, "cut off in its header"),
        (header, "chunk 0"),
        (header + CHUNK_BYTES + 16, "chunk 0"),
    ):
        path.chmod(0o600)
        path.write_bytes(whole[:kept])
        check = blobs.verify(stored.digest, len(content))
        assert said in check.problem, (kept, check)
        with pytest.raises(IntegrityError, match=said):
            blobs.read(stored.digest)
    path.write_bytes(whole)
    assert "does not hold" in BlobStore(tmp_path, form=sealed(NEXT)).verify(stored.digest).problem


def test_a_large_file_passes_through_little_memory(tmp_path: Path) -> None:
    """Sealed and read again in chunks: 64 MiB with less than 8 of memory."""
    pieces = (bytes([number]) * CHUNK_BYTES for number in range(64))
    form, place = sealed(), tmp_path / "sealed"
    tracemalloc.start()
    with place.open("wb") as file:
        form.write(Chunks(pieces), file)
    with place.open("rb") as file:
        assert sum(len(chunk) for chunk in form.chunks(file)) == 64 * CHUNK_BYTES
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * CHUNK_BYTES


def test_a_key_is_32_bytes_in_one_of_two_spellings() -> None:
    """And never shown."""
    secret = os.urandom(32)
    for text in (secret.hex(), base64.b64encode(secret).decode() + "\n"):
        assert SealingKey.of_text(text.encode(), "place").secret == secret
    with pytest.raises(SettingsError, match=r"place: expected 32 random bytes .* openssl rand -base64 32"):
        SealingKey.of_text(b"password", "place")
    assert secret.hex() not in repr(SealingKey(secret))
