"""From the settings of sinks to the plain options that cross to the recorder, secrets read. The node's part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.secret_reading import SecretReader, any_secret, secret_of
from gateway.settings import SinkSettings
from gateway.telemetry.export_headers import headers_of

__all__ = ["options_of", "secrets_of"]


def options_of(sinks: Sequence[SinkSettings], read: SecretReader = secret_of) -> list[dict[str, Any]]:
    """Raises SettingsError for a secret that is not there."""
    return [{**_options(one), **_secrets(one, read)} for one in sinks]


def secrets_of(sinks: Sequence[SinkSettings], read: SecretReader) -> dict[str, dict[str, Any]]:
    """Of their options what may change while they are at work, by the sink's name. Raises SettingsError."""
    return {one.name: _secrets(one, read) for one in sinks}


def _secrets(sink: SinkSettings, read: SecretReader) -> dict[str, Any]:
    place = f"telemetry.decisions.sinks.{sink.name}"
    secret = None
    if sink.secret is not None:
        secret = read(sink.secret, f"{place}.secret", fits=any_secret).decode("utf-8", "replace")
    return {"secret": secret, "headers": headers_of(sink.headers, f"{place}.headers", read)}


def _options(sink: SinkSettings) -> dict[str, Any]:
    return {
        "name": sink.name,
        "kind": sink.kind,
        "url": sink.url,
        "certificate": None if sink.certificate is None else str(sink.certificate),
        "key": sink.key,
        "max_records": sink.max_records,
        "timeout_s": sink.timeout_s,
        "batch_records": sink.batch_records,
        "batch_bytes": sink.batch_bytes,
        "hold_bytes": sink.hold_bytes,
        "from_start": sink.from_start,
    }
