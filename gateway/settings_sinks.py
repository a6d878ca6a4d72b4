"""Settings of the decision log's sinks: where else its records go, besides its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.settings_groups import Group, Positive, Seconds, SecretSource

__all__ = ["MAX_SINKS", "SinkSettings", "told_apart"]

MAX_SINKS = 8
_SCHEMES = {"otlp": ("http", "https"), "cloudevents": ("http", "https"), "redis": ("redis", "rediss")}
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class SinkSettings(Group):
    """``name`` stands in metrics, logs and the file that keeps how far the sink has come. ``secret`` signs CloudEvents
    and is Redis's password; ``headers`` are secrets as well. ``key`` and ``max_records`` are a Redis stream's.

    A batch has at most ``batch_records`` of about ``batch_bytes``. While the receiver is away, so much of the log is
    held back from compaction (``hold_bytes``). ``from_start``: a new sink gets the records that are there already.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    kind: Literal["otlp", "redis", "cloudevents"]
    url: str
    secret: SecretSource | None = None
    headers: dict[HeaderName, SecretSource] = Field(default_factory=dict)
    certificate: Path | None = None
    key: Annotated[str, Field(min_length=1, max_length=200)] = "turnout:decisions"
    max_records: Positive = 1_000_000
    timeout_s: Seconds = 10.0
    batch_records: Annotated[int, Field(ge=1, le=10_000)] = 512
    batch_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    hold_bytes: Positive = 1024 * 1024 * 1024
    from_start: bool = False

    @model_validator(mode="after")
    def _reachable(self) -> SinkSettings:
        schemes = _SCHEMES[self.kind]
        try:
            parts = urlsplit(self.url)
            fine = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            fine = False
        if not fine:
            raise ValueError(
                f"url {self.url!r:.200} does not fit a sink of kind {self.kind}: expected {schemes[0]}://…"
            )
        return self

    @field_validator("url")
    @classmethod
    def _open(cls, url: str) -> str:
        try:
            held = urlsplit(url).password
        except ValueError:
            return url
        if held is not None:
            raise ValueError("the url holds a password, which logs would show; name a secret instead")
        return url


def told_apart(sinks: Sequence[SinkSettings]) -> Sequence[SinkSettings]:
    """Raises ValueError for two of one name: they would share how far they have come."""
    names = [sink.name for sink in sinks]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two sinks are named {min(twice)!r}; give each a name of its own")
    return sinks
