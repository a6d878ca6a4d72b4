"""The settings of where desired state is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from gateway.settings_groups import Group, Positive, Seconds, SecretSource

__all__ = ["StoreSettings"]


class StoreSettings(Group):
    """Desired state: SQLite under the home, or at ``url`` a Redis for many replicas. ``poll_ms``: how soon a change by
    another process is noticed (with Redis, one whose message was lost).

    Redis only: ``prefix`` of all keys; ``deadline_ms`` of a call and ``connect_ms`` of reaching it; ``lease_s``: how
    long a replica or a leader that is not heard of counts as living. No password stands in ``url``, which is shown:
    ``secret`` says where it is (``password_file`` is short for its ``file``).
    """

    url: str | None = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,60}$")] = "turnout"
    password: SecretStr | None = None
    password_file: Path | None = None
    secret: SecretSource | None = None
    tls_ca: Path | None = None
    deadline_ms: Positive = 2_000
    connect_ms: Positive = 1_000
    lease_s: Seconds = 3.0
    poll_ms: Positive = 200
    busy_timeout_ms: Positive = 5_000

    @field_validator("url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        expected = "expected redis://HOST:PORT/NUMBER or rediss://… (TLS), with USER@ before the host where it has one"
        try:
            parts = urlsplit(url)
            fine = parts.port is None or parts.port > 0
        except ValueError:
            raise ValueError(f"not an address; {expected}") from None
        if parts.password:
            raise ValueError("it has a password in it: set store.password_file, or TURNOUT_STORE__PASSWORD, instead")
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.query or parts.fragment or not fine:
            raise ValueError(f"got {url!r}; {expected}")
        if parts.path.strip("/") and not parts.path.strip("/").isdigit():
            raise ValueError(f"got {url!r}; the path is the number of a database; {expected}")
        return url

    @model_validator(mode="after")
    def _one_password(self) -> StoreSettings:
        given = [name for name in ("password", "password_file", "secret") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are set, and Redis has one password; keep one of them")
        return self
