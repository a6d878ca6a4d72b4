"""What the settings ask of the decision log, as plain options that cross to the recorder."""

from __future__ import annotations

from typing import Any

from gateway.secret_reading import SecretReader, secret_of
from gateway.settings import Settings
from gateway.telemetry.decisions.segments import FOLDER
from gateway.telemetry.decisions.sinks.choice import options_of

__all__ = ["decision_options"]

_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S


def decision_options(
    settings: Settings, *, instance: str, build: str, read: SecretReader = secret_of
) -> dict[str, Any] | None:
    """None where there is to be no log. ``instance`` and ``build`` name this gateway. Raises SettingsError."""
    wanted = settings.telemetry.decisions
    if not wanted.enabled:
        return None
    copy = wanted.checkpoint_copy
    return {
        "home": str(settings.home.absolute()),
        "folder": str(settings.home.absolute() / FOLDER),
        "labels": {"instance": instance, "build": build},
        "segment_bytes": wanted.segment_bytes,
        "segment_s": wanted.segment_s,
        "sync_s": wanted.sync_s,
        "checkpoint_s": wanted.checkpoint_s,
        "checkpoint_records": wanted.checkpoint_records,
        "copy": None if copy is None else str(settings.home.absolute() / copy),
        "compact": wanted.compact,
        "keep_s": None if wanted.keep_days is None else wanted.keep_days * _DAY_S,
        "keep_bytes": wanted.keep_bytes,
        "stands_s": settings.telemetry.clock_stands_h * _HOUR_S,
        "sinks": options_of(wanted.sinks, read),
    }
