"""The client of addresses: ``https:`` with a digest, and archives of this machine; it needs no vendor.

    https://host/model.onnx#sha256=HEX        what comes must have that digest
    …/model.tar.gz, .tgz, .tar, .zip          unpacked, within limits (``unpacking``)

What an address has beside its path (a password, a signature) is used, and not kept.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import unpacking

Told = Callable[[int, int], None]

_CHUNK = 1024 * 1024
_DIGEST = re.compile(r"sha256[=:]([0-9a-f]{64})")
_IDLE_S = 60.0


@dataclass(frozen=True)
class Address:
    """``url`` as it is asked; ``shown`` without what is secret in it; ``expected`` is the digest that it says."""

    url: str
    shown: str
    name: str
    scheme: str
    expected: str | None


def fetch(request: dict[str, Any], told: Told) -> dict[str, Any]:
    address, folder = address_of(request["place"]), Path(request["folder"])
    target = folder / "files" / address.name
    if address.scheme == "file":
        digest = _copy_here(address, target, request, told)
    else:
        digest = _download(address, target, request["limits"], told)
    finish(address, folder, digest, request["limits"])
    return {"identity": identity(address, digest, digest, "sha256")}


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    address = address_of(request["place"])
    return {"identity": identity(address, address.expected, address.expected, "sha256")}


def finish(address: Address, folder: Path, digest: str | None, limits: Mapping[str, int]) -> None:
    """Checks the digest, where the address says one (None: of several files), and unpacks an archive."""
    if address.expected not in (None, digest):
        found = f"its digest is sha256:{digest}" if digest else "it has several files, which have no digest together"
        raise ValueError(
            f"it is not what its address says: {found}, expected sha256:{address.expected}; nothing was kept"
        )
    if digest is not None and unpacking.is_archive(address.name):
        packed = folder / "packed"
        (folder / "files" / address.name).replace(packed)
        unpacking.unpack(packed, address.name, folder / "files", limits)
        packed.unlink()


def identity(address: Address, version: str | None, digest: str | None, algorithm: str) -> dict[str, Any]:
    return {
        "name": address.name if address.scheme == "file" else address.shown,
        "version": version,
        "digest": digest,
        "algorithm": algorithm if digest else None,
        "url": None if address.scheme == "file" else address.shown,
    }


def address_of(place: str) -> Address:
    parts = urlsplit(place)
    told = _DIGEST.fullmatch(parts.fragment)
    if parts.fragment and told is None:
        raise ValueError(f"it ends with #{parts.fragment[:80]}; expected #sha256= and 64 hexadecimal digits")
    if parts.scheme in ("http", "https") and told is None:
        raise ValueError(
            "what an address of the web gives may be another thing tomorrow, so it needs its digest: add #sha256=HEX "
            "(sha256sum FILE tells it)"
        )
    host = parts.hostname or ""
    host = host if parts.port is None else f"{host}:{parts.port}"
    shown = urlunsplit((parts.scheme, host, parts.path, "", ""))
    name = unquote(parts.path.rstrip("/").rpartition("/")[2]) or "model"
    return Address(
        urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, "")),
        shown,
        unpacking.checked(name),
        parts.scheme,
        told[1] if told else None,
    )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """From https: to https: only; the digest tells a wrong file, but not who read the request on its way."""

    def redirect_request(  # noqa: PLR0917 - the base's
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise ValueError(f"it leads from https: to {urlsplit(newurl).scheme}:, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(address: Address, target: Path, limits: Mapping[str, int], told: Told) -> str:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SafeRedirects(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(address.url, headers={"user-agent": "turnout"})  # noqa: S310 - http(s) alone
    try:
        answer = opener.open(request, timeout=_IDLE_S)
        if answer is None:
            raise ValueError("it leads to something else than http: or https:")
        with answer:
            length = answer.headers.get("content-length", "")
            return copied(answer, target, int(length) if length.isdigit() else None, limits, told)
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise LookupError(f"there is nothing: HTTP {error.code}") from error
        if error.code in (401, 403):
            raise PermissionError(f"the server does not give it: HTTP {error.code}") from error
        raise ConnectionError(f"the server answers HTTP {error.code}") from error
    except (urllib.error.URLError, http.client.HTTPException) as error:
        raise ConnectionError(f"the server cannot be reached, or went away: {error}") from error


def copied(source: IO[bytes], target: Path, size: int | None, limits: Mapping[str, int], told: Told) -> str:
    """The SHA-256 of what came; less than was said is an error, and more than is taken another."""
    if size is not None and size > limits["bytes"]:
        raise ValueError(f"it has {size} bytes; at most {limits['bytes']} are taken for one version")
    digest, done = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            done += len(chunk)
            if done > limits["bytes"]:
                raise ValueError(f"it has over {limits['bytes']} bytes, more than are taken for one version")
            file.write(chunk)
            digest.update(chunk)
            told(done, max(done, size or 0))
    if size is not None and done != size:
        raise ConnectionError(f"only {done} of its {size} bytes came")
    return digest.hexdigest()


def _copy_here(address: Address, target: Path, request: Mapping[str, Any], told: Told) -> str:
    """An archive of this machine; where ``file:`` may read was looked at before."""
    path = Path(unquote(urlsplit(address.url).path))
    with path.open("rb") as source:
        return copied(source, target, path.stat().st_size, request["limits"], told)
