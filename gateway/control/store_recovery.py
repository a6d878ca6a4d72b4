"""What an operator does with a Redis that is not believed: take it as it is, or put a replica's state back into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.control.audit import canonical, seal
from gateway.control.coordination import Coordination
from gateway.control.last_state import KnownState
from gateway.control.redis_line import RedisLine
from gateway.control.redis_records import audit_entry, document_field, living_document
from gateway.control.redis_scripts import RESTORE
from gateway.control.redis_store import RedisStore
from gateway.control.store import AuditEntry, Document, DocumentKey
from gateway.errors import Conflict, StoreRefused

__all__ = ["adopt", "restore_from_replica"]

SUBJECT = "store"


@dataclass(frozen=True, slots=True)
class _Standing:
    """What stands in the Redis, believed or not. ``identity`` '' where it is empty."""

    identity: str
    revision: int
    head: str
    documents: Mapping[DocumentKey, Document]


async def adopt(store: RedisStore, *, actor: str, reason: str) -> int:
    """This replica takes the store as it is, and forgets what it knew; the revision of the record that says so.

    Conflict when the store is believed anyway. Raises StoreUnavailable.
    """
    await _require_refused(store)
    known = store.known
    store.believe(KnownState())
    try:
        await store.open()
        snapshot = await store.snapshot()
    except BaseException:
        store.believe(known)
        raise
    detail = {"known": {"identity": known.identity, "revision": known.revision}, "taken": snapshot.revision}
    return await store.commit([], AuditEntry(actor, "store-adopt", SUBJECT, reason, detail))


async def restore_from_replica(
    store: RedisStore, coordination: Coordination, *, actor: str, reason: str, clock: Clock, force: bool = False
) -> int:
    """Writes this replica's last state over what stands in the store, as a new revision later than all that was seen.

    Replicas of the same store believe it again by themselves. The audit goes on from the last record that this
    replica knew; what stood before is kept aside. Conflict when the store is believed, when a living replica has seen
    a later revision (unless ``force``), or when somebody writes at the same time.
    """
    await _require_refused(store)
    known, line = store.known, store.line
    others = {view.replica: view.revision for view in await coordination.replicas()}
    ahead = {name: revision for name, revision in others.items() if revision > known.revision}
    if ahead and not force:
        name, revision = max(ahead.items(), key=lambda item: item[1])
        raise Conflict(
            f"replica {name} has seen revision {revision}, this one {known.revision}: restore from that one, or force "
            "it and lose what came after"
        )
    standing = await _standing(line)
    base = max(known.revision, standing.revision, *others.values(), 0)
    detail = {"from": known.revision, "found": {"identity": standing.identity, "revision": standing.revision}}
    entry = AuditEntry(actor, "store-restore", SUBJECT, reason, detail)
    revision = await _put_back(line, known, standing, base=base, entry=entry, now=clock.wall())
    store.believe(known)
    return revision


async def _require_refused(store: RedisStore) -> None:
    try:
        await store.snapshot()
    except StoreRefused:
        return
    raise Conflict("the store is as it was known, and believed: there is nothing to decide")


async def _standing(line: RedisLine) -> _Standing:
    identity, revision, head = await line.command("HMGET", line.key("state"), "identity", "revision", "head")
    if identity is None:
        return _Standing("", 0, "", {})
    rows = await line.command("HGETALL", line.key("living"))
    pairs = rows.items() if isinstance(rows, dict) else zip(rows[::2], rows[1::2], strict=True)
    keys = {document_field(field): packed for field, packed in pairs}
    documents = {key: living_document(key, packed) for key, packed in keys.items()}
    return _Standing(identity.decode("ascii"), int(revision), head.decode("ascii"), documents)


async def _put_back(
    line: RedisLine, known: KnownState, standing: _Standing, *, base: int, entry: AuditEntry, now: float
) -> int:
    keys = sorted({*known.documents, *standing.documents})
    bodies = {key: known.documents[key].body if key in known.documents else None for key in keys}
    olds = {key: standing.documents.get(key) for key in keys}
    record = seal(
        sequence=base + 1,
        at=now,
        revision=base + 1,
        entry=entry,
        before={str(key): None if old is None else old.body for key, old in olds.items()},
        after={str(key): body for key, body in bodies.items()},
        previous=known.head,
    )
    steps = [(key, 0 if old is None else old.revision) for key, old in olds.items()]
    aside = line.key("audit", "before", str(base + 1))
    script_keys = [line.key(name) for name in ("state", "living", "order", "bodies", "audit")]
    script_keys += [aside, *(line.key("history", str(key)) for key in keys)]
    arguments: list[str | bytes | int] = [standing.identity, standing.revision if standing.identity else ""]
    arguments += [standing.head, record.revision, repr(now), record.digest, audit_entry(record, steps)]
    arguments += [line.key("changed"), f"{known.identity} {base} {known.head}", ""]
    for key in keys:
        body = bodies[key]
        arguments += [str(key), b"-" if body is None else b"+" + canonical(body), b""]
    outcome, found = await line.run(RESTORE, script_keys, arguments, once=True)
    if outcome != b"done":
        raise Conflict(
            f"somebody else writes to the store, which stands at revision {int(found)} now: look, then decide"
        )
    return base + 1
