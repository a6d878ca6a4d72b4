"""Sources in an object store, as moto speaks S3: one object, a prefix, an archive, and what is refused."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import InvalidRegistration, SourceUnavailable
from gateway.registry.sources import SourceAccess, SourceLimits, opened, resolve_source
from loadtests.s3_server import S3Server

CONTENT = b"a model, as far as anyone here knows"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("models")
        running.ask("PUT", "models/fraud.onnx", CONTENT)
        running.ask("PUT", "models/fraud/model.onnx", CONTENT)
        running.ask("PUT", "models/fraud/weights/a.bin", b"1")
        running.ask("PUT", "models/fraud.zip", _zip())
        running.ask("PUT", "models/climbs/..%5Cevil.onnx", CONTENT)
        yield running


@pytest.fixture
def access(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceAccess:
    """With credentials where the vendor looks for them."""
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return SourceAccess(folder=tmp_path / "fetched")


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("fraud-1.2/model.onnx", CONTENT)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("place", "files", "algorithm"),
    [
        (f"s3://models/fraud.onnx#sha256={DIGEST}", {"fraud.onnx": CONTENT}, "sha256"),
        ("s3://models/fraud", {"model.onnx": CONTENT, "weights/a.bin": b"1"}, "etag"),
        ("s3://models/fraud.zip", {"model.onnx": CONTENT}, "sha256"),
    ],
)
def test_objects_come_as_they_are_with_the_marks_of_their_store(
    access: SourceAccess, place: str, files: dict[str, bytes], algorithm: str
) -> None:
    """One, all below a prefix, and an archive's members; what it is there is found again without fetching it."""
    with opened(place, access=access) as source:
        assert {file.name: file.path.read_bytes() for file in source.files} == files
        assert source.provenance is not None
        identity = dict(source.provenance.identity)
    assert (identity["system"], identity["algorithm"]) == ("s3", algorithm)
    assert identity["url"] == place.partition("#")[0]
    assert resolve_source(place, access).identity["version"] == identity["version"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("s3://models/nowhere.onnx", "there is nothing"),
        ("s3://nobody/model.onnx", "there is nothing"),
        (f"s3://models/fraud.onnx#sha256={'0' * 64}", f"its digest is sha256:{DIGEST}, expected"),
        ("s3://models/climbs", "outside its folder"),
        (f"s3://models/fraud#sha256={DIGEST}", "several files, which have no digest together"),
    ],
)
def test_objects_that_are_not_what_was_asked_for_are_refused(access: SourceAccess, place: str, words: str) -> None:
    """In words that say why; nothing is left of them."""
    with pytest.raises(InvalidRegistration, match=words), opened(place, access=access):
        pass
    assert access.folder is not None
    assert not list(access.folder.iterdir())


def test_more_objects_than_are_taken_are_refused_before_they_are_fetched(access: SourceAccess) -> None:
    """By what the store lists."""
    with (
        pytest.raises(InvalidRegistration, match="over 1 files or"),
        opened("s3://models/fraud", access=access, limits=SourceLimits(files=1)),
    ):
        pass


def test_a_store_that_is_gone_is_unavailable(access: SourceAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is concluded from silence."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match="does not answer"), opened("s3://models/fraud.onnx", access=access):
        pass
