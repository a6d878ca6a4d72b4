"""The artifact store that the settings describe: on this machine or at a URL, plain or sealed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.errors import RegistryError
from gateway.live_secrets import LiveSecrets
from gateway.registry.blobs import BlobStore
from gateway.registry.remote.cached import CachedBlobStore
from gateway.registry.remote.objects import ObjectPlace, ObjectStore
from gateway.registry.remote.remote_blobs import RemoteBlobs
from gateway.registry.sealing.copies import PlainCopies
from gateway.registry.sealing.forms import PLAIN, Form
from gateway.registry.sealing.keys import SealingKey, SealingKeys
from gateway.registry.sealing.sealed import Sealed
from gateway.secret_reading import secret_of
from gateway.settings import SecretSource, Settings
from gateway.settings_artifacts import EncryptionSettings, PlaceSettings

__all__ = ["open_blobs", "open_place"]

_BEYOND_A_LOAD_S = 60.0


def open_blobs(settings: Settings, secrets: LiveSecrets | None = None) -> BlobStore:
    """``secrets`` are watched where a gateway serves: other keys, of the store at a URL and of sealed blobs, are taken
    up without a restart. Raises SettingsError for a secret that is not there, RegistryError. A store at a URL is not
    asked yet."""
    registry = settings.registry
    hold_s = settings.runtimes.load_timeout_s + _BEYOND_A_LOAD_S
    form = _form(registry.encryption, "registry.encryption", hold_s, secrets)
    if registry.url is None:
        return BlobStore(registry.blobs or settings.home, form=form)
    place = PlaceSettings(url=registry.url, options=registry.options, secrets=registry.secrets)
    return CachedBlobStore(
        registry.cache or settings.home / "cache",
        _objects(place, "registry", settings, secrets),
        cache_bytes=registry.cache_bytes,
        hold_s=hold_s,
        form=form,
    )


def open_place(name: str, settings: Settings, scratch: Path) -> RemoteBlobs:
    """Another store, by its name under ``registry.stores``, a URL, or the path of a folder."""
    known = settings.registry.stores.get(name)
    where = f"registry.stores.{name}"
    if known is None:
        known, where = _unnamed(name, settings), "registry"
    form = _form(known.encryption, f"{where}.encryption", settings.runtimes.load_timeout_s, None)
    return RemoteBlobs(_objects(known, where, settings), scratch, form)


def _unnamed(text: str, settings: Settings) -> PlaceSettings:
    if "://" not in text and "/" not in text and text != ".":
        known = ", ".join(settings.registry.stores) or "none"
        raise RegistryError(
            f"no store is named {text!r} (registry.stores has {known}); expected one of them, a URL like "
            "s3://bucket/folder, a folder's path (./folder), or home"
        )
    try:
        return PlaceSettings(url=text if "://" in text else Path(text).absolute().as_uri())
    except ValueError as error:
        raise RegistryError(f"{text!r} names no store: {error}") from None


def _objects(place: PlaceSettings, where: str, settings: Settings, secrets: LiveSecrets | None = None) -> ObjectStore:
    if secrets is not None:
        kept = secrets.values(place.secrets, f"{where}.secrets")
    else:
        kept = {name: secret_of(source, f"{where}.secrets.{name}") for name, source in place.secrets.items()}
    registry = settings.registry
    return ObjectStore(
        ObjectPlace(
            place.url.rstrip("/"),
            place.options,
            parallel=registry.parallel,
            silence_s=registry.silence_s,
            secrets=lambda: {name: value.decode("utf-8", "replace") for name, value in kept.items()},
        )
    )


def _form(encryption: EncryptionSettings, where: str, hold_s: float, secrets: LiveSecrets | None) -> Form:
    if encryption.key is None:
        return PLAIN
    key = _key(encryption.key, f"{where}.key", secrets)
    previous = [_key(one, f"{where}.previous[{place}]", secrets) for place, one in enumerate(encryption.previous)]
    keys = SealingKeys(lambda: (key(), [one() for one in previous]))
    return Sealed(keys, PlainCopies(encryption.memory_bytes, hold_s=hold_s))


def _key(source: SecretSource, place: str, secrets: LiveSecrets | None) -> Callable[[], SealingKey]:
    if secrets is None:
        found = SealingKey.of_text(secret_of(source, place), place)
        return lambda: found
    live = secrets.secret(source, place, fits=SealingKey.of_text)
    return lambda: SealingKey.of_text(live.value, place)
