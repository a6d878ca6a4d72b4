"""Desired state as it is read from snapshot to snapshot: what has not changed is not read again."""

from __future__ import annotations

from gateway.control.desired import Desired, read_desired
from gateway.control.memory_store import MemoryStore
from gateway.control.store import AuditEntry, Change, DocumentKey
from gateway.registry.catalogue import ModelDocument

KEY = DocumentKey("model", "digits")
ENTRY = AuditEntry("olga", "register", str(KEY))


async def test_of_a_model_that_has_one_version_more_the_others_are_not_read_again() -> None:
    """They are the very entries of before; what is read is what a fresh reading says; and a document that could not be
    read spoils none that can be again."""
    store, model = MemoryStore(), ModelDocument("digits")
    desired = Desired()
    for number in range(1, 6):
        model = model.add_version(f"sha256:{number:064x}", created_at=float(number))[0]
        await store.commit([Change(KEY, model.to_json(), number - 1)], ENTRY)
        before, desired = desired, read_desired(await store.snapshot(), desired)
        assert desired.models["digits"] == model
        if before.models:
            held = before.models["digits"].versions
            assert all(one is other for one, other in zip(held, desired.models["digits"].versions, strict=False))
    await store.commit([Change(KEY, {"schema": 1}, 5)], ENTRY)
    desired = read_desired(await store.snapshot(), desired)
    assert list(desired.unreadable) == [KEY]
    await store.commit([Change(KEY, model.to_json(), 6)], ENTRY)
    assert read_desired(await store.snapshot(), desired).models["digits"] == model
