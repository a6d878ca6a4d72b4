"""Artifacts sent as ``multipart/form-data``: streamed to disk as they come, within a limit, gone afterwards.

A part ``file`` (or ``source``, or ``artifact``) is an artifact file, its file name the name within the
version (several make a folder); a part with another name and a file name is an attachment (``eval`` is
``evaluation``, as on the command line); a part without is an option.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import BadRequest, RegistryError, TooLarge
from gateway.registry.disk import explained
from gateway.registry.names import check_file_name
from gateway.web.exchange import ClientLeft, Exchange

__all__ = ["Upload", "Uploads", "is_multipart"]

ARTIFACT = frozenset({"file", "source", "artifact"})
ATTACHMENTS = frozenset({"signature", "example", "golden", "reference", "evaluation", "lineage", "environment"})
MAX_FIELD_BYTES = 64 * 1024
MAX_PARTS = 10_000
_PREFIX = "upload-"


@dataclass(slots=True)
class Upload:
    """``artifact``: the folder of the files sent, ``names`` theirs; ``attachments`` by part name; ``fields`` texts."""

    artifact: Path
    names: list[str] = field(default_factory=list)
    attachments: dict[str, Path] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


def is_multipart(exchange: Exchange) -> bool:
    sent: str = exchange.headers.get("content-type", "")
    return sent.lower().startswith("multipart/form-data")


class Uploads:
    """``root`` is on the disk of the artifacts; ``max_bytes`` bounds one upload, ``idle_s`` the silence within it."""

    def __init__(self, root: Path, *, max_bytes: int, idle_s: float = 30.0) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._idle_s = idle_s

    def sweep(self) -> None:
        """Removes what uploads of a process that was killed left. For the start, before any upload."""
        for left in self._root.glob(f"{_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """A private folder for one registration. Removed in a thread: ten thousand files take a fifth of a second."""
        made = await asyncio.to_thread(self._make)
        try:
            yield made
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, made, ignore_errors=True))

    def _make(self) -> Path:
        with explained(f"keep uploads in {self._root}"):
            self._root.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._root))

    async def receive(self, exchange: Exchange, folder: Path) -> Upload:
        """Raises BadRequest, TooLarge, RegistryError (no space), and ClientLeft."""
        _, options = parse_options_header(exchange.headers.get("content-type", ""))
        boundary = options.get(b"boundary")
        if not boundary or len(boundary) > 200:
            raise BadRequest("multipart/form-data without a boundary; send one of at most 200 characters")
        declared = exchange.headers.get("content-length", "")
        if declared.isdigit() and len(declared) <= 18 and int(declared) > self._max_bytes:
            raise self._too_large()
        form = _Form(folder)
        parser = form.parser(boundary)
        try:
            with explained("keep the upload"):
                await self._feed(exchange, parser)
                parser.finalize()
            return form.finished()
        except FormParserError as error:
            raise BadRequest(f"the form cannot be read: {error}") from None
        finally:
            with suppress(OSError):  # on a full disk what is left in its buffer cannot be written either
                form.close()

    async def _feed(self, exchange: Exchange, parser: MultipartParser) -> None:
        size, more = 0, True
        while more:
            try:
                async with asyncio.timeout(self._idle_s):
                    message = await exchange.receive()
            except TimeoutError:
                raise BadRequest(f"nothing came for {self._idle_s:g} s; the upload was given up") from None
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > self._max_bytes:
                raise self._too_large()
            await asyncio.to_thread(parser.write, part)
            more = message.get("more_body", False)
        exchange.whole = True

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the upload is larger than the limit of {self._max_bytes} bytes (limits.upload_bytes); "
            "register it from a path on the gateway's machine (file:)"
        )


class _Form:
    """What the parser's callbacks build. They come in order: headers, data, end of each part."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._upload = Upload(folder / "artifact")
        self._upload.artifact.mkdir()
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._text: bytearray | None = None
        self._file: IO[bytes] | None = None
        self._parts = 0
        self._whole = False

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self.close,
                "on_end": self._on_end,
            },
        )

    def finished(self) -> Upload:
        """Raises BadRequest when the form's last boundary did not come: its last file may have been cut short."""
        if not self._whole:
            raise BadRequest("the form ends before its last boundary, so that a part of it is missing; send it again")
        return self._upload

    def _on_end(self) -> None:
        self._whole = True

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise TooLarge(f"the form has more than {MAX_PARTS} parts; send fewer files")
        self._headers = {}

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._name = "evaluation" if name == "eval" else name
        file_name = options.get(b"filename")
        if file_name is None:
            self._text = bytearray()
        else:
            name = file_name.decode("utf-8", "replace")
            try:
                self._file = self._target(name).open("xb")
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise BadRequest(f"{name[:100]!r} is sent as a file and as a folder; rename one") from None

    def _target(self, file_name: str) -> Path:
        if self._name in ARTIFACT:
            try:
                check_file_name(file_name)
            except RegistryError as error:
                raise BadRequest(str(error)) from None
            if file_name in self._upload.names:
                raise BadRequest(f"two files are named {file_name[:100]!r}; give each a name of its own")
            path = self._upload.artifact / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._upload.names.append(file_name)
            return path
        if self._name not in ATTACHMENTS or self._name in self._upload.attachments:
            known = ", ".join(sorted(ATTACHMENTS))
            raise BadRequest(f"part {self._name[:40]!r} with a file: expected file, or one each of {known}")
        # The suffix tells the format of an example (JSON or .npz); nothing else of the name is used.
        path = self._folder / f"{self._name}{Path(file_name).suffix[:10]}"
        self._upload.attachments[self._name] = path
        return path

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._text is not None:
            self._text += data[start:end]
            if len(self._text) > MAX_FIELD_BYTES:
                raise TooLarge(f"field {self._name[:40]!r} is longer than {MAX_FIELD_BYTES} bytes")

    def close(self) -> None:
        """Ends the part; also called when the upload is given up."""
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self._text is not None:
            self._upload.fields[self._name] = self._text.decode("utf-8", "replace")
            self._text = None
