"""How spans are exported, as plain values: what crosses to the recorder's process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.telemetry.tracing.conventions import Server

__all__ = ["ExportOptions"]


class ExportOptions(NamedTuple):
    """``exporter`` is ``otlp`` (over HTTP), ``otlp-grpc`` or ``console``; ``gateway`` this gateway's name, unique among
    its replicas; ``headers`` hold secrets, so that this is neither logged nor put on a command line. ``compression``
    is ``none`` or ``gzip``. Without an ``endpoint`` it is the local machine's, at the protocol's own port."""

    exporter: str
    gateway: str
    server: Server = Server()
    endpoint: str | None = None
    headers: Mapping[str, str] = {}
    timeout_s: float = 10.0
    compression: str = "none"
    certificate: str | None = None

    def __repr__(self) -> str:
        return f"<ExportOptions {self.exporter} {self.endpoint} [{len(self.headers)} headers]>"

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "headers": dict(self.headers), "server": list(self.server)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ExportOptions:
        return cls(**{**body, "server": Server(*body["server"])})
