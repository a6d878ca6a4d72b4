"""Kept requests and their batches on the road from the gateway to where spans are made: one message for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.events.records import BatchRecord, ShadowRecord
from gateway.messages import VersionRef
from gateway.recording.arrived import unpack_burst
from gateway.recording.bursts import pack_burst
from gateway.telemetry.tracing.tree import Kept

__all__ = ["EVENT", "Message", "pack", "unpack"]

EVENT = "traces"
"""The name under which a recorder's parts are told."""


class Message(NamedTuple):
    """Requests, the batches that they rode in, and copies of theirs that shadows answered."""

    kept: Sequence[Kept]
    batches: Sequence[BatchRecord]
    shadows: Sequence[ShadowRecord] = ()


def pack(message: Message) -> dict[str, Any]:
    """Plain values. Routing keys and contents stay behind."""
    return {
        "records": pack_burst([kept.record for kept in message.kept], bare=True),
        "sampled_by": [kept.sampled_by for kept in message.kept],
        "batches": [(tuple(batch.version), *batch[1:]) for batch in message.batches],
        "shadows": [_plain(shadow) for shadow in message.shadows],
    }


def unpack(body: Mapping[str, Any]) -> Message:
    """Raises ValueError."""
    try:
        records = unpack_burst(body["records"])
        kept = [Kept(*each) for each in zip(records, body["sampled_by"], strict=True)]
        batches = [BatchRecord(VersionRef(*version), *rest) for version, *rest in body["batches"]]
        shadows = [_shadow(*values) for values in body["shadows"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"no traces of this program: {error}") from error
    return Message(kept, batches, shadows)


def _plain(shadow: ShadowRecord) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, VersionRef) else value for value in shadow)


def _shadow(*values: Any) -> ShadowRecord:
    told = ShadowRecord(*values)
    return told._replace(answered=VersionRef(*told.answered), shadow=VersionRef(*told.shadow))
