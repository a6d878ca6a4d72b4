"""Settings of notifications: who is told of what, in which form, and for how long it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from gateway.settings_groups import Group, Seconds, SecretSource

__all__ = ["EVENTS", "NotificationSettings", "NotificationTarget", "check_address"]

EventName = Literal[
    "rollback",
    "rollback-impossible",
    "rollout-end",
    "drift",
    "drift-cleared",
    "data-pipeline",
    "data-pipeline-cleared",
    "decision-log",
    "decision-log-cleared",
    "gates",
    "gates-cleared",
    "lift",
    "follow-offer",
    "follow-trouble",
]
EVENTS: tuple[str, ...] = get_args(EventName)
"""All that can be told."""

MAX_TARGETS = 16
_NAMED = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class NotificationTarget(Group):
    """Who is told. ``name`` stands in metrics and logs; ``url`` is an address, or where one is that is a secret itself
    (Slack's are). ``secret`` signs what is sent. Of ``events`` and ``routes``, none named: all."""

    name: Annotated[str, Field(pattern=_NAMED)]
    url: str | SecretSource
    format: Literal["json", "slack", "cloudevents"] = "json"
    secret: SecretSource | None = None
    events: tuple[EventName, ...] = ()
    routes: tuple[str, ...] = ()

    @field_validator("url")
    @classmethod
    def _address(cls, url: str | SecretSource) -> str | SecretSource:
        return check_address(url) if isinstance(url, str) else url


class NotificationSettings(Group):
    """``public_url``: where people reach the admin plane, for links. What a target does not take within ``give_up_s``
    is given up, counted and written to the audit log."""

    targets: Annotated[tuple[NotificationTarget, ...], Field(max_length=MAX_TARGETS)] = ()
    public_url: str | None = None
    give_up_s: Seconds = 3600.0

    @field_validator("targets")
    @classmethod
    def _told_apart(cls, targets: Sequence[NotificationTarget]) -> Sequence[NotificationTarget]:
        names = [target.name for target in targets]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two targets are named {min(twice)!r}; give each a name of its own")
        return targets

    @field_validator("public_url")
    @classmethod
    def _public(cls, url: str | None) -> str | None:
        return None if url is None else check_address(url).rstrip("/")


def check_address(url: str) -> str:
    """Raises ValueError for what is no address of HTTP, or holds a password."""
    try:
        parts = urlsplit(url)
        reachable = parts.scheme in ("http", "https") and bool(parts.hostname)
        held = parts.password
    except ValueError:
        raise ValueError(f"{url!r:.100} is no address; write it as https://host/path") from None
    if not reachable:
        raise ValueError(f"{url!r:.100} is no address of HTTP; write it as https://host/path")
    if held is not None:
        raise ValueError("it holds a password, which logs would show; sign with a secret instead")
    return url
