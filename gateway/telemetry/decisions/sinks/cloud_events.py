"""Decisions as CloudEvents 1.0 over HTTP: a batch of events a request, signed.

Content mode: batched (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md,
3.3). An event's id is its decision's, so a receiver knows one that comes twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.signatures import HEADER, sign
from gateway.telemetry.decisions.fields import decoded, named
from gateway.telemetry.decisions.sinks.http_line import HttpLine, checked
from gateway.telemetry.decisions.sinks.trail import Entry

__all__ = ["TYPE", "CloudEvents", "make"]

TYPE = "io.turnout.decision"


def make(options: Mapping[str, Any], labels: Mapping[str, str]) -> CloudEvents:
    return CloudEvents(options, labels)


class CloudEvents:
    """``options``: ``url``, ``timeout_s``, ``headers``, ``secret`` (None: unsigned), ``certificate``."""

    def __init__(self, options: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        self._line = HttpLine(
            options["url"], timeout_s=options["timeout_s"], certificate=options.get("certificate") or None
        )
        self.renew(options)
        self._source = f"/turnout/{labels['instance']}" if labels.get("instance") else "/turnout"

    def __repr__(self) -> str:
        return f"<CloudEvents {self._line!r}>"

    def renew(self, secrets: Mapping[str, Any]) -> None:
        headers = {"content-type": "application/cloudevents-batch+json", **secrets.get("headers", {})}
        secret = secrets.get("secret")
        self._lasting: tuple[Mapping[str, str], bytes | None]  # one reference, for both threads
        self._lasting = headers, None if secret is None else str(secret).encode()

    def send(self, entries: Sequence[Entry]) -> int:
        content = orjson.dumps([self._event(entry) for entry in entries])
        lasting, secret = self._lasting
        headers = dict(lasting)
        if secret is not None:
            headers[HEADER] = sign(secret, int(time.time()), content)
        checked(self._line.post(content, headers))
        return 0

    def abort(self) -> None:
        self._line.abort()

    def close(self) -> None:
        self._line.close()

    def _event(self, entry: Entry) -> dict[str, Any]:
        record = {name: value for name, value in named(decoded(entry.line)).items() if value is not None}
        event = {
            "specversion": "1.0",
            "id": record.get("decision") or f"line-{entry.sequence}",
            "source": self._source,
            "type": TYPE,
            "time": _when(record.get("started")),
            "subject": record.get("route"),
            "datacontenttype": "application/json",
            "sequence": str(entry.sequence),
            "data": record,
        }
        return {name: value for name, value in event.items() if value}


def _when(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
