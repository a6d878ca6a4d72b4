"""Sources behind an address: the web with a digest, archives from anywhere, and what strangers put in them."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.errors import InvalidRegistration, RegistryError, SourceUnavailable
from gateway.registry.sources import Source, SourceAccess, SourceLimits, opened, resolve_source
from gateway.registry.sources.fetching import _folder
from tests.listening import nobody

CONTENT = b"a model, as far as anyone here knows"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class _Answers(BaseHTTPRequestHandler):
    """``pages``: path to status, headers and body."""

    pages: Mapping[str, tuple[int, Mapping[str, str], bytes]] = {}

    def do_GET(self) -> None:
        status, headers, body = self.pages.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    _Answers.pages = {
        "/model.onnx": (200, {}, CONTENT),
        "/model.onnx?signature=secret": (200, {}, CONTENT),
        "/moved": (302, {"location": "/model.onnx"}, b""),
        "/away": (302, {"location": "file:///etc/passwd"}, b""),
        "/short.onnx": (200, {"content-length": "1000"}, CONTENT),
        "/broken": (500, {}, b""),
        "/private": (403, {}, b""),
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def _opened(place: object, folder: Path, **limits: int) -> Iterator[Source]:
    with opened(str(place), access=SourceAccess(folder=folder), limits=SourceLimits(**limits)) as source:
        yield source


def _refused(place: object, folder: Path, match: str, **limits: int) -> None:
    with pytest.raises(InvalidRegistration, match=match), _opened(place, folder, **limits):
        pass
    assert not list(folder.glob("fetching-*"))


def test_what_an_address_gives_has_the_digest_that_it_says(web: str, tmp_path: Path) -> None:
    """The bytes are hashed here; the identity has the address without the signature that let it be read."""
    with _opened(f"{web}/model.onnx?signature=secret#sha256={DIGEST}", tmp_path) as source:
        assert [(file.name, file.path.read_bytes()) for file in source.files] == [("model.onnx", CONTENT)]
        assert source.provenance is not None
        identity = dict(source.provenance.identity)
    assert identity == {
        "system": "http",
        "name": f"{web}/model.onnx",
        "version": DIGEST,
        "digest": DIGEST,
        "algorithm": "sha256",
        "url": f"{web}/model.onnx",
    }
    assert not list(tmp_path.iterdir())


def test_an_address_without_its_digest_is_refused(web: str, tmp_path: Path) -> None:
    """It may give another thing tomorrow."""
    _refused(f"{web}/model.onnx", tmp_path, r"needs its digest: add #sha256=HEX")
    _refused(f"{web}/model.onnx#md5=1", tmp_path, r"expected #sha256= and 64 hexadecimal digits")


def test_other_bytes_than_the_digest_names_are_refused(web: str, tmp_path: Path) -> None:
    """With both digests, so that somebody can find out which of the two is wrong."""
    other = "0" * 64
    _refused(f"{web}/model.onnx#sha256={other}", tmp_path, f"its digest is sha256:{DIGEST}, expected sha256:{other}")


def test_a_web_that_fails_is_told_from_one_that_refuses(web: str, tmp_path: Path) -> None:
    """Cut short, broken and not there come back later; not found and forbidden do not."""
    for path in ("short.onnx", "broken"):
        with pytest.raises(SourceUnavailable), _opened(f"{web}/{path}#sha256={DIGEST}", tmp_path):
            pass
    with nobody() as port, pytest.raises(SourceUnavailable, match="cannot be reached"):
        resolve_or_open(f"http://127.0.0.1:{port}/m.onnx#sha256={DIGEST}", tmp_path)
    _refused(f"{web}/nowhere#sha256={DIGEST}", tmp_path, "HTTP 404")
    _refused(f"{web}/private#sha256={DIGEST}", tmp_path, "HTTP 403")


def resolve_or_open(place: str, folder: Path) -> None:
    with _opened(place, folder):
        pass


def test_a_redirect_is_followed_on_the_web_and_nowhere_else(web: str, tmp_path: Path) -> None:
    """A server cannot make the gateway read a file of its own machine."""
    with pytest.raises(InvalidRegistration, match="speaks for no format"):
        resolve_or_open(f"{web}/moved#sha256={DIGEST}", tmp_path)
    with opened(f"{web}/moved#sha256={DIGEST}", access=SourceAccess(folder=tmp_path), format_name="onnx") as source:
        assert source.files[0].path.read_bytes() == CONTENT
    with pytest.raises(SourceUnavailable, match="HTTP 302"):
        resolve_or_open(f"{web}/away#sha256={DIGEST}", tmp_path)


def test_more_than_is_taken_is_refused_before_it_is_on_the_disk(web: str, tmp_path: Path) -> None:
    """By what the server says of its length, and by what comes."""
    _refused(f"{web}/model.onnx#sha256={DIGEST}", tmp_path, "at most 10 are taken", bytes=10)


def test_an_address_is_resolved_without_asking_anybody() -> None:
    """Its digest is its version."""
    found = resolve_source(f"https://models.example/m.onnx#sha256={DIGEST}")
    assert (found.identity["version"], found.alias) == (DIGEST, None)


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def _plain(name: str, data: bytes = CONTENT) -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def _zip(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _zip_link(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("model.onnx")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tgz"])
def test_an_archive_is_unpacked_whatever_its_one_folder_is_called(tmp_path: Path, suffix: str) -> None:
    """``fraud-1.2/model.onnx`` is ``model.onnx`` of the version; the identity is the archive's own digest."""
    path = tmp_path / f"fraud-1.2{suffix}"
    names = {"fraud-1.2/model.onnx": CONTENT, "fraud-1.2/weights/a.bin": b"1"}
    if suffix == ".zip":
        _zip(path, names)
    else:
        _tar(path, *(_plain(name, data) for name, data in names.items()))
    with _opened(path, tmp_path) as source:
        assert [file.name for file in source.files] == ["model.onnx", "weights/a.bin"]
        assert source.entry == "model.onnx"
        assert source.provenance is not None
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (source.provenance.identity["name"], source.provenance.identity["digest"]) == (path.name, digest)


def test_a_file_of_this_machine_that_is_no_archive_stays_what_it_is(tmp_path: Path) -> None:
    """No client is asked, and it has no provenance."""
    (tmp_path / "model.onnx").write_bytes(CONTENT)
    with _opened(tmp_path / "model.onnx", tmp_path) as source:
        assert source.provenance is None


HOSTILE: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "a zip that climbs": (lambda to: _zip(to / "a.zip", {"../../evil.onnx": CONTENT}), "outside its folder"),
    "a zip of an absolute name": (lambda to: _zip(to / "a.zip", {"/tmp/evil.onnx": CONTENT}), "outside its folder"),
    "a zip of backslashes": (lambda to: _zip(to / "a.zip", {"..\\evil.onnx": CONTENT}), "outside its folder"),
    "a zip with a link": (lambda to: _zip_link(to / "a.zip"), "link or a device"),
    "a tar that climbs": (lambda to: _tar(to / "a.tar.gz", _plain("../evil.onnx")), "outside its folder"),
    "a tar of an absolute name": (lambda to: _tar(to / "a.tgz", _plain("/tmp/evil.onnx")), "outside its folder"),
    "a tar with a link": (lambda to: _tar(to / "a.tgz", _link("m.onnx", "/etc/passwd")), "link, a device"),
    "a tar with a link above": (
        lambda to: _tar(to / "a.tgz", _link("up", ".."), _plain("up/evil.onnx")),
        "link, a device",
    ),
    "a tar with a hard link": (
        lambda to: _tar(to / "a.tgz", _link("m.onnx", "/etc/passwd", tarfile.LNKTYPE)),
        "link, a device",
    ),
    "a tar with a device": (lambda to: _tar(to / "a.tgz", _link("m.onnx", "", tarfile.CHRTYPE)), "link, a device"),
    "a tar with a pipe": (lambda to: _tar(to / "a.tgz", _link("m.onnx", "", tarfile.FIFOTYPE)), "link, a device"),
    "a name twice": (lambda to: _tar(to / "a.tgz", _plain("m.onnx"), _plain("m.onnx", b"2")), "two files named"),
    "a file that is a folder": (
        lambda to: _tar(to / "a.tgz", _plain("m.onnx"), _plain("m.onnx/x")),
        "as a file and as a folder",
    ),
    "an empty archive": (lambda to: _tar(to / "a.tgz"), "is empty"),
    "a zip cut short": (lambda to: _cut(_zip(to / "a.zip", {"m.onnx": CONTENT * 50})), "no archive that can be read"),
    "a tar cut short": (lambda to: _cut(_tar(to / "a.tgz", _plain("m.onnx", CONTENT))), "no archive that can be read"),
    "a bomb in a header": (lambda to: _swollen(to / "a.tgz"), "a header or a list of members that takes over"),
    "a bomb": (lambda to: _zip(to / "a.zip", {"m.onnx": bytes(80 * 1024 * 1024)}), "no model but a bomb"),
}


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _swollen(path: Path) -> Path:
    """A header of 2 GB, which the standard library reads whole: megabytes of packed zeros, made of one piece."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 2 * 1024**3
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    start = packer.compress(header.tobuf(tarfile.USTAR_FORMAT)) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(64 * 1024**2)) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(start + zeros * 32)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_means_harm_is_refused_whole(tmp_path: Path, name: str) -> None:
    """In words that say what it holds, with nothing written beside its folder and nothing left of it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    make, words = HOSTILE[name]
    _refused(make(tmp_path / "in"), tmp_path / "out", words)
    assert not list(tmp_path.rglob("evil*"))
    assert not Path("/tmp/evil.onnx").exists()


def test_an_archive_of_more_files_than_are_taken_is_refused(tmp_path: Path) -> None:
    """As soon as it passes the limit."""
    path = _zip(tmp_path / "a.zip", {f"{number}.onnx": b"" for number in range(11)})
    _refused(path, tmp_path, "over 10 files", files=10)


def test_what_a_dead_process_was_fetching_is_swept_away(tmp_path: Path) -> None:
    """A living one holds its folder by a lock; one that nobody holds is left over."""
    left = tmp_path / "fetching-dead"
    left.mkdir()
    (left / "half").write_bytes(b"half")
    path = _zip(tmp_path / "a.zip", {"m.onnx": CONTENT})
    with _opened(path, tmp_path), _opened(path, tmp_path):
        assert len(list(tmp_path.glob("fetching-*"))) == 2
        assert not left.exists()


def test_fetches_that_begin_together_leave_each_others_folders_alone(tmp_path: Path) -> None:
    """A folder is there for a moment before it is locked; whoever sweeps in that moment costs nobody a fetch."""
    access = SourceAccess(folder=tmp_path)

    def begin(_: int) -> None:
        for _ in range(100):
            with _folder(access) as folder:
                assert (folder / "files").is_dir()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("exec >&-; sleep 1000", "closed its output without an answer, and did not end"),
        ("sleep 1000 & exit 3", "ended without an answer, with exit status 3"),
        ("yes | tr -d '\\n'", "says more of it than"),
        ("yes >&2", "talks without end"),
        ("echo '{\"result\": 1}'", "expected"),
        ("echo '[1]'", "which is no answer"),
        ('echo \'{"result": {"identity": {"name": "x"}}}\'; sleep 1000', "is an empty folder"),
        ("dd if=/dev/zero of=./files/model.onnx bs=1M count=900", "File size limit exceeded|over 100000000 bytes"),
        ("sleep 1000", "nothing came of it within"),
    ],
)
def test_a_client_that_misbehaves_is_ended_and_said(tmp_path: Path, does: str, words: str) -> None:
    """One that never ends, that ends and leaves children, that never stops to talk, that answers nonsense, that fills
    the disk: whatever an interpreter of the settings turns out to be."""
    interpreter, patience = tmp_path / "python", 1.0 if does == "sleep 1000" else 200.0
    interpreter.write_text(f"#!/bin/sh\ncd {tmp_path}/out/fetching-* || exit 9\n{does}\n")
    interpreter.chmod(0o755)
    access = SourceAccess(interpreters={"url": str(interpreter)}, folder=tmp_path / "out", timeout_s=patience)
    limits, place = SourceLimits(bytes=100_000_000), f"https://x.example/m.onnx#sha256={DIGEST}"
    with pytest.raises(RegistryError, match=words), opened(place, access=access, limits=limits):
        pass
    assert not list((tmp_path / "out").iterdir())
