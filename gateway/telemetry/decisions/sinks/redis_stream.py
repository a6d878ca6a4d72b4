"""Decisions into a Redis stream: one pipeline a batch, the stream trimmed to about so many records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.telemetry.decisions.fields import decoded, named
from gateway.telemetry.decisions.sinks.delivery import Unavailable
from gateway.telemetry.decisions.sinks.trail import Entry

__all__ = ["RedisStream", "make"]

_FIELDS = ("decision", "route", "version", "code")
"""Stand beside the whole record, so that a consumer may choose without reading it."""


def make(options: Mapping[str, Any], labels: Mapping[str, str]) -> RedisStream:
    return RedisStream(options, labels)


class RedisStream:
    """``options``: ``url``, ``key``, ``max_records``, ``timeout_s``, ``password`` and ``certificate`` or None.

    An entry has ``sequence`` (its line in the log of ``instance``) and ``record`` (canonical JSON by name). A batch
    whose answer was lost is written again: who reads tells it by ``decision``.
    """

    def __init__(self, options: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        self._options = options
        self._password = self._used = options.get("secret")
        self._client = self._made()
        self._key = str(options["key"])
        self._max_records = int(options["max_records"])
        self._instance = labels.get("instance", "")

    def __repr__(self) -> str:
        return f"<RedisStream {self._key}>"

    def renew(self, secrets: Mapping[str, Any]) -> None:
        """Of the next connection: one that stands is not cut by a change of the password, there neither."""
        self._password = secrets.get("secret")

    def send(self, entries: Sequence[Entry]) -> int:
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for entry in entries:
                    pipeline.xadd(self._key, self._entry(entry), maxlen=self._max_records, approximate=True)
                pipeline.execute()
        except (redis.RedisError, OSError) as fault:
            if self._used != self._password:  # a client keeps the password that it was made with
                self.close()
                self._used = self._password
                self._client = self._made()
            raise Unavailable(f"{type(fault).__name__}: {fault}"[:300]) from fault
        return 0

    def abort(self) -> None:
        with suppress(redis.RedisError, OSError):
            self._client.connection_pool.disconnect(inuse_connections=True)

    def close(self) -> None:
        with suppress(redis.RedisError, OSError):
            self._client.close()

    def _made(self) -> Any:
        options = self._options
        tls = {"ssl_ca_certs": options["certificate"]} if options.get("certificate") else {}
        return redis.Redis.from_url(
            options["url"],
            password=self._used,
            socket_timeout=options["timeout_s"],
            socket_connect_timeout=options["timeout_s"],
            retry=Retry(NoBackoff(), 0),
            **tls,
        )

    def _entry(self, entry: Entry) -> dict[str, Any]:
        record = {name: value for name, value in named(decoded(entry.line)).items() if value is not None}
        chosen = {name: record[name] for name in _FIELDS if name in record}
        return {"sequence": entry.sequence, "instance": self._instance, **chosen, "record": orjson.dumps(record)}
