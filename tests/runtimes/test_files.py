"""Hashing what is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from runtimes.base import IntegrityFailed, LoadFailed
from runtimes.files import VerifiedFiles
from tests.runtimes.versions import stored


def test_bytes_that_match_are_given_and_noted(tmp_path: Path):
    """Nested names, prefixed digests."""
    refs = stored(tmp_path, {"model.bin": b"abc", "data/vocab.txt": b""})
    files = VerifiedFiles(refs)
    assert files.read("model.bin") == b"abc"
    assert files.loaded == {"model.bin": hashlib.sha256(b"abc").hexdigest()}
    files.verify_rest()
    assert set(files.loaded) == set(files.names())
    assert repr(files) == "<VerifiedFiles [2 of 2 read]>"


@pytest.mark.parametrize("change", [b"abd", b"ab", b"abcd", b""])
def test_a_flipped_byte_or_a_truncated_file_names_both_digests(tmp_path: Path, change: Any):
    """Read or only listed: it is not that version."""
    refs = stored(tmp_path, {"model.bin": b"abc"})
    Path(refs[0].path).write_bytes(change)
    for attempt in (lambda files: files.read("model.bin"), lambda files: files.verify_rest()):
        with pytest.raises(IntegrityFailed) as failure:
            attempt(VerifiedFiles(refs))
        assert hashlib.sha256(b"abc").hexdigest() in str(failure.value)
        assert hashlib.sha256(change).hexdigest() in str(failure.value)
        assert "restore the file" in str(failure.value)


def test_a_missing_file_is_told_with_its_place(tmp_path: Path):
    """On disk, or in the version."""
    refs = stored(tmp_path, {"model.bin": b"abc"})
    Path(refs[0].path).unlink()
    with pytest.raises(LoadFailed, match=r"'model.bin' cannot be read from .*No such file"):
        VerifiedFiles(refs).read("model.bin")
    with pytest.raises(LoadFailed, match=r"not part of this version; its files are: model.bin"):
        VerifiedFiles(refs).read("other.bin")
