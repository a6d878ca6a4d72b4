"""Settings of the artifact store: where the bytes of versions are, sealed or not, who signed, how long they stay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.settings_groups import Group, Positive, Seconds, SecretSource

__all__ = ["ArtifactSettings", "EncryptionSettings", "PlaceSettings", "RetentionSettings", "SigningSettings"]

PlaceName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")]


class EncryptionSettings(Group):
    """Blobs are sealed with ``key`` (32 random bytes as base64 or hexadecimal); what one of ``previous`` has sealed is
    read too, until ``turnout rekey`` has sealed it anew. Plain copies for versions that load take at most
    ``memory_bytes`` of memory."""

    key: SecretSource | None = None
    previous: tuple[SecretSource, ...] = ()
    memory_bytes: Positive = 8 * 1024 * 1024 * 1024

    @model_validator(mode="after")
    def _whole(self) -> EncryptionSettings:
        if self.previous and self.key is None:
            raise ValueError("previous keys are named, and no key: name the key that seals")
        return self


class PlaceSettings(Group):
    """An artifact store by its URL: ``s3://bucket/folder``, ``gs://``, ``az://``, ``file:///folder`` or whatever else
    fsspec reaches. ``options`` and, kept out of sight, ``secrets`` go to its client (s3fs: ``endpoint_url``, ``key``,
    ``secret``); without them the client finds credentials as it does (environment, its own files, the machine's
    role)."""

    url: str
    options: dict[str, Any] = Field(default_factory=dict)
    secrets: dict[str, SecretSource] = Field(default_factory=dict)
    encryption: EncryptionSettings = EncryptionSettings()

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        return check_place(url)


class SigningSettings(Group):
    """Public keys (PEM, elliptic curve) of those whose signatures count, by name. ``require`` says when a version must
    have one: when it comes from another store (``pull``), before an alias, a rollout or a target takes it
    (``promotion``), whenever it is loaded (``load``)."""

    keys: dict[PlaceName, Path] = Field(default_factory=dict)
    require: tuple[Literal["pull", "promotion", "load"], ...] = ()

    @model_validator(mode="after")
    def _known(self) -> SigningSettings:
        if self.require and not self.keys:
            raise ValueError("signatures are required, and no key is named that they could be checked with")
        return self


class RetentionSettings(Group):
    """What ``turnout gc`` keeps of versions that nothing uses: the newest ``keep_last`` of each model, those younger
    than ``keep_days``, and those with one of the tags ``keep_tags`` (``name``, or ``name=value``). Unless one of the
    first two is set, the files of every version stay."""

    keep_last: Annotated[int, Field(ge=0)] | None = None
    keep_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    keep_tags: tuple[str, ...] = ()


class ArtifactSettings(Group):
    """``blobs``: where the bytes of versions are, if not in the home: a directory that all replicas of one store share.
    Or at ``url``, with a cache of at most ``cache_bytes`` in ``cache`` (in the home, unless it says); a call to it that
    tells nothing for ``silence_s`` is given up, and ``parallel`` of them run at once. ``stores``: other artifact
    stores, by the name that ``turnout push``, ``pull`` and ``sync`` use."""

    blobs: Path | None = None
    url: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    secrets: dict[str, SecretSource] = Field(default_factory=dict)
    cache: Path | None = None
    cache_bytes: Positive = 20 * 1024 * 1024 * 1024
    silence_s: Seconds = 120.0
    parallel: Annotated[int, Field(ge=1, le=64)] = 8
    stores: dict[PlaceName, PlaceSettings] = Field(default_factory=dict)
    encryption: EncryptionSettings = EncryptionSettings()
    signing: SigningSettings = SigningSettings()
    retention: RetentionSettings = RetentionSettings()

    @field_validator("url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        return None if url is None else check_place(url)

    @model_validator(mode="after")
    def _one_place(self) -> ArtifactSettings:
        if self.url is not None and self.blobs is not None:
            raise ValueError("url and blobs are set: the bytes of versions are in one place; set one of them")
        return self


def check_place(url: str) -> str:
    """Raises ValueError for what names no store, or says a secret."""
    try:
        parts = urlsplit(url)
        held = parts.password
    except ValueError:
        raise ValueError(f"got {url!r:.200}; expected s3://bucket/folder or the like") from None
    if held is not None:
        raise ValueError("the url holds a password, which logs would show; name it under secrets instead")
    if not parts.scheme or not (parts.netloc or parts.path.strip("/")) or parts.query or parts.fragment:
        raise ValueError(f"got {url!r:.200}; expected s3://bucket/folder, gs://…, az://… or file:///folder")
    return url
