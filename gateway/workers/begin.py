"""What of the settings a web worker begins with. Sent by the node, so that both read the same, overrides included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from gateway.codec.limits import CodecLimits
from gateway.recording.road import LIMIT_BYTES
from gateway.settings import FlagSettings, LimitSettings, ServerSettings, Settings
from gateway.web.services import WebLimits

__all__ = ["Beginning", "web_limits"]

_BODIES_AT_ONCE = 4
_LEAST_UNDER_WAY_BYTES = 256 * 1024 * 1024
"""However small one may be, many clients send at a time: 400 images of 600 KB."""


class Beginning(BaseModel):
    model_config = ConfigDict(frozen=True)

    server: ServerSettings
    limits: LimitSettings
    readiness_s: float
    trace_ratio: float
    flags: FlagSettings = FlagSettings()
    recorded: frozenset[str] = frozenset()
    recorder_bytes: int = LIMIT_BYTES

    @classmethod
    def of(cls, settings: Settings, *, recorded: Iterable[str] = ()) -> dict[str, Any]:
        """As it is sent. ``recorded``: the parts of the recorder."""
        beginning = cls(
            server=settings.server,
            limits=settings.limits,
            readiness_s=settings.runtimes.readiness_s,
            trace_ratio=settings.telemetry.trace_ratio,
            flags=settings.flags,
            recorded=frozenset(recorded),
            recorder_bytes=settings.telemetry.recorder_bytes,
        )
        return beginning.model_dump(mode="json")

    def web_limits(self) -> WebLimits:
        return web_limits(self.limits)


def web_limits(limits: LimitSettings) -> WebLimits:
    codec = CodecLimits(max_depth=limits.depth, max_elements=limits.elements, max_ratio=limits.compression_ratio)
    return WebLimits(
        body_bytes=limits.body_bytes,
        under_way_bytes=max(_BODIES_AT_ONCE * limits.body_bytes, _LEAST_UNDER_WAY_BYTES),
        receive_s=limits.receive_s,
        codec=codec,
        decode_elsewhere_bytes=limits.decode_elsewhere_bytes,
    )
