"""Compressed bodies cost no more than honest ones."""

from __future__ import annotations

import gzip
import zlib

import pytest

from gateway.codec.inflate import accepted_encoding, deflate, inflate, is_compressed
from gateway.codec.limits import CodecLimits
from gateway.errors import BadRequest, TooLarge, UnsupportedContent

LIMITS = CodecLimits(max_ratio=50, ratio_free_bytes=1000)
BODY = b'{"inputs": [[1, 2, 3]]}'


def test_gzip_zlib_and_bare_deflate_are_inflated() -> None:
    """Clients call two formats deflate."""
    bare = zlib.compressobj(wbits=-15)
    raw = bare.compress(BODY) + bare.flush()
    for packed, encoding in (
        (gzip.compress(BODY), "gzip"),
        (gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), "x-gzip"),
        (zlib.compress(BODY), "deflate"),
        (raw, "Deflate"),
    ):
        assert is_compressed(encoding)
        assert inflate(packed, encoding, max_bytes=1000, limits=LIMITS) == BODY


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_too_large(encoding: str) -> None:
    """By its size, and by its ratio long before."""
    bomb = deflate(bytes(10_000_000), encoding)

    with pytest.raises(TooLarge, match="inflates past"):
        inflate(bomb, encoding, max_bytes=100_000, limits=LIMITS)
    with pytest.raises(TooLarge, match="inflates past"):
        inflate(bomb, encoding, max_bytes=100_000_000, limits=LIMITS)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("spoil", ["cut", "corrupt", "tail", "empty", "plain"])
def test_a_broken_stream_is_a_bad_request(encoding: str, spoil: str) -> None:
    """Cut short, corrupt, followed by more, empty, or not compressed at all."""
    packed = deflate(BODY, encoding)
    spoiled = {
        "cut": packed[:-3],
        "corrupt": packed[:-6] + b"\x00\x00\x00\x00\x00\x00",
        "tail": packed + b"tail",
        "empty": b"",
        "plain": BODY,
    }[spoil]

    with pytest.raises(BadRequest):
        inflate(spoiled, encoding, max_bytes=1000, limits=LIMITS)


def test_many_members_are_refused() -> None:
    """Each would copy the rest of the body."""
    with pytest.raises(BadRequest, match="members"):
        inflate(gzip.compress(b"") * 1000, "gzip", max_bytes=1000, limits=LIMITS)


def test_a_body_of_exactly_the_limit_passes() -> None:
    """The limit is what may be, not what may not."""
    body = bytes(range(256)) * 4

    assert inflate(gzip.compress(body), "gzip", max_bytes=len(body), limits=LIMITS) == body


def test_an_encoding_that_is_not_handled_is_said_so() -> None:
    """415, with what is handled."""
    assert not is_compressed("identity")
    for encoding in ("br", "zstd", "gzip, gzip"):
        with pytest.raises(UnsupportedContent):
            is_compressed(encoding)


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [("gzip, deflate", "gzip"), ("br, deflate;q=0.5", "deflate"), ("gzip;q=0", None), ("identity", None), ("", None)],
)
def test_accept_encoding_chooses_the_answers(accept: str, encoding: str | None) -> None:
    """A weight of zero means no."""
    assert accepted_encoding(accept) == encoding
