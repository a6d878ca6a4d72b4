"""Signs manifests and checks signatures on them: one run of a process for each, since model-signing takes a second and
60 MB to import. A check's answer is remembered for as long as this process lives: the same bytes have the same one.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.errors import IntegrityError, RegistryError, SettingsError
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.disk import explained
from gateway.registry.inspection import end_group
from gateway.settings_artifacts import SigningSettings

__all__ = ["Authors", "sign_manifest"]

_CLIENT = Path(__file__).with_name("signing_client.py")
_TIMEOUT_S = 120.0
_MANIFEST = "manifest.json"


def sign_manifest(manifest: bytes, key: Path, *, password: str | None = None) -> bytes:
    """The bundle: a signature by the private key in the PEM file ``key``, of an elliptic curve: prime256v1, secp384r1
    or secp521r1. Blocks. RegistryError says what is wrong with the key."""
    if not key.is_file():
        raise RegistryError(
            f"no key at {key}; make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY, and its public "
            "half: openssl ec -in KEY -pubout -out KEY.pub"
        )
    with explained("sign with a temporary folder"), tempfile.TemporaryDirectory(prefix="turnout-sign-") as folder:
        signed, bundle = _laid_out(Path(folder), manifest)
        request = {"do": "sign", "key": str(key.absolute()), "password": password}
        answer = _asked({**request, "folder": str(signed), "bundle": str(bundle)})
        if "error" in answer:
            raise RegistryError(
                f"{key} cannot sign: {answer['message']}. Expected an elliptic curve's private key, PEM"
            )
        return bundle.read_bytes()


class Authors:
    """Whose signatures count: public keys, as PEM text, by name. Safe from several threads."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = dict(keys)
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, str], str | None] = {}  # manifest, bundle, keys → who, under the lock

    @classmethod
    def of_settings(cls, settings: SigningSettings) -> Authors:
        """Raises SettingsError for a key that cannot be read."""
        return cls({name: _read(name, path) for name, path in settings.keys.items()})

    def __repr__(self) -> str:
        return f"<Authors {', '.join(self._keys) or 'none'}>"

    def of(self, manifest: bytes, bundle: bytes, *, among: Iterable[str] | None = None) -> str | None:
        """Who signed this manifest, None if no author did. Blocks."""
        keys = {name: path for name, path in self._keys.items() if among is None or name in set(among)}
        if not keys:
            return None
        known = json.dumps(keys, sort_keys=True).encode()
        place = (_hash(manifest), _hash(bundle), _hash(known))
        with self._lock:
            if place in self._known:
                return self._known[place]
        who = self._checked(manifest, bundle, keys)
        with self._lock:
            self._known[place] = who
        return who

    def require(self, what: str, entry: CatalogueEntry, blobs: BlobStore, *, among: Iterable[str] | None = None) -> str:
        """Who signed the version, by its catalogue's signatures. IntegrityError when nobody who counts has; ``what`` it
        is for stands in the message."""
        wanted = sorted(self._keys if among is None else set(among))
        manifest = blobs.read(entry.digest)
        for record in reversed(entry.signatures):
            who = self.of(manifest, blobs.read(record["digest"]), among=among)
            if who is not None:
                return who
        held = f"none of its {len(entry.signatures)} signatures fits" if entry.signatures else "it has no signature"
        raise IntegrityError(
            f"{what}: version {entry.number} ({entry.digest}) must be signed by one of {', '.join(wanted)}, and "
            f"{held}. Have it signed: turnout sign MODEL/NUMBER --key FILE"
        )

    def _checked(self, manifest: bytes, bundle: bytes, keys: Mapping[str, str]) -> str | None:
        with explained("check with a temporary folder"), tempfile.TemporaryDirectory(prefix="turnout-sign-") as folder:
            signed, place = _laid_out(Path(folder), manifest)
            place.write_bytes(bundle)
            answer = _asked({"do": "verify", "keys": keys, "folder": str(signed), "bundle": str(place)})
        if answer.get("error") == "failed":
            raise RegistryError(f"a signature cannot be checked: {answer['message']}")
        who = answer.get("by")
        return None if who is None else str(who)


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"registry.signing.keys.{name}: {path} cannot be read: {error}") from error


def _laid_out(folder: Path, manifest: bytes) -> tuple[Path, Path]:
    """The folder that is signed, and where the bundle goes."""
    signed = folder / "version"
    signed.mkdir()
    (signed / _MANIFEST).write_bytes(manifest)
    return signed, folder / "bundle.json"


def _asked(request: Mapping[str, Any]) -> Mapping[str, Any]:
    command = [sys.executable, "-E", str(_CLIENT)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    )
    try:
        out, said = child.communicate(json.dumps(request).encode(), timeout=_TIMEOUT_S)
        found = json.loads(out)
    except subprocess.TimeoutExpired:
        raise RegistryError(f"model-signing did not answer within {_TIMEOUT_S:g} s; try again") from None
    except ValueError:
        words = said.decode("utf-8", "replace").strip()[-500:]
        raise RegistryError(
            f"model-signing does not work here: {words or 'it ended without an answer'}. Install it: pip install "
            "turnout[signing]"
        ) from None
    finally:
        end_group(child)
    return found if isinstance(found, dict) else {}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
