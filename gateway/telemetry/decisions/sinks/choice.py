"""From the settings of sinks to the plain options that cross to the recorder, secrets read. The node's part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.settings import SinkSettings, secret_of

__all__ = ["options_of"]


def options_of(sinks: Sequence[SinkSettings]) -> list[dict[str, Any]]:
    """Raises SettingsError for a secret that is not there."""
    return [_options(one) for one in sinks]


def _options(sink: SinkSettings) -> dict[str, Any]:
    place = f"telemetry.decisions.sinks.{sink.name}"
    secret = None if sink.secret is None else secret_of(sink.secret, f"{place}.secret").decode("utf-8", "replace")
    headers = {name: secret_of(source, f"{place}.headers.{name}").decode() for name, source in sink.headers.items()}
    return {
        "name": sink.name,
        "kind": sink.kind,
        "url": sink.url,
        "secret": secret,
        "headers": headers,
        "certificate": None if sink.certificate is None else str(sink.certificate),
        "key": sink.key,
        "max_records": sink.max_records,
        "timeout_s": sink.timeout_s,
        "batch_records": sink.batch_records,
        "batch_bytes": sink.batch_bytes,
        "hold_bytes": sink.hold_bytes,
        "from_start": sink.from_start,
    }
