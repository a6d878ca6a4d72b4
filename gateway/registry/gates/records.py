"""A report, signed by the home's key, as a blob: what a version showed, when, and that this gateway saw it.

The form is a signed note (https://c2sp.org/signed-note), as for checkpoints of the audit log: a line with the name of
what it is, a line of canonical JSON, an empty line, and an Ed25519 signature. A catalogue that somebody changed can
name any blob, but none with this home's signature that this home did not make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.checkpoints import Log, SigningKey, VerifyingKey
from gateway.errors import IntegrityError, InvalidInput, RegistryError
from gateway.registry import canonical
from gateway.registry.blobs import BlobStore, Stored

__all__ = ["GATES", "keep_record", "read_record"]

GATES = Log("turnout/gates", "gates-key", "gate records", "turnout gates --key")
SCHEMA = 1


def keep_record(report: Mapping[str, Any], key: SigningKey, blobs: BlobStore) -> Stored:
    """Stored; its digest is the record's name. Hold ``blobs.registering()`` until the catalogue names it."""
    body = canonical.dumps({"schema": SCHEMA, "report": report}).decode()
    return blobs.put_bytes(key.note(f"{GATES.origin}\n{body}\n").encode())


def read_record(digest: str, key: VerifyingKey, blobs: BlobStore) -> Mapping[str, Any]:
    """The report. IntegrityError when the blob is missing, altered or not signed by the key."""
    try:
        text = key.text_of(blobs.read(digest).decode("utf-8"))
        origin, line, *rest = text.split("\n")
        body = canonical.loads(line.encode(), what="the gate record")
        if origin != GATES.origin or rest != [""] or body["schema"] != SCHEMA:
            raise RegistryError("it is of another kind")
        report = body["report"]
    except (InvalidInput, RegistryError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"the gate record {digest} is not one of this home: {error}") from error
    if not isinstance(report, Mapping):
        raise IntegrityError(f"the gate record {digest} holds no report")
    return report
