"""Settings of traces: which requests are traced, and where their spans go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.settings_groups import Group, Seconds, SecretSource

__all__ = ["TracingSettings"]

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class TracingSettings(Group):
    """``trace_ratio`` of the requests are traced whose callers have not decided, with those of the callers that wish it
    ``trace_most_per_s`` at most; of the others, ``trace_kept_per_s`` at most that failed, and as many that were slow.
    ``trace_exporter`` says where to: ``otlp`` is OTLP over HTTP.

    The ``otlp_…`` say how the collector is reached; the values of headers (its credentials) are secrets. Variables of
    the environment that OpenTelemetry gave names to (``OTEL_…``) are not read.
    """

    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    trace_most_per_s: Annotated[float, Field(ge=0, le=10_000)] = 200.0
    trace_kept_per_s: Annotated[float, Field(ge=0, le=1000)] = 10.0
    trace_exporter: Literal["none", "console", "otlp", "otlp-grpc"] = "none"
    otlp_endpoint: str | None = None
    otlp_headers: dict[HeaderName, SecretSource] = Field(default_factory=dict)
    otlp_timeout_s: Seconds = 10.0
    otlp_compression: Literal["none", "gzip"] = "gzip"
    otlp_certificate: Path | None = None

    @field_validator("otlp_endpoint")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"got {url!r:.200}; expected http://HOST:PORT or https://HOST:PORT")
        if parts.password:
            raise ValueError("it has a password in it: set telemetry.otlp_headers instead")
        return url

    @model_validator(mode="after")
    def _used(self) -> TracingSettings:
        if self.trace_exporter == "otlp-grpc" and self.otlp_endpoint and urlsplit(self.otlp_endpoint).path.strip("/"):
            raise ValueError(
                f"otlp_endpoint {self.otlp_endpoint!r:.200} has a path, which gRPC does not take;"
                " expected http://HOST:PORT, or trace_exporter: otlp"
            )
        return self
