"""The nouns that travel between the layers. Frozen values; nothing here acts.

What is made for each request is a NamedTuple: as immutable as a frozen dataclass, and made in a fifth of the time.
Where each request passes it is made by ``tuple.__new__`` of all its fields, since its own ``__new__`` is Python, and
takes twice as long; ``tests/test_made.py`` counts the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from runtimes.signature import DATATYPES, Signature, TensorSpec, datatype_of

__all__ = [
    "DATATYPES",
    "NOTHING",
    "Array",
    "Arrays",
    "Decision",
    "InferRequest",
    "InferResponse",
    "Signature",
    "TensorSpec",
    "Texts",
    "VersionRef",
    "datatype_of",
]

Array: TypeAlias = np.ndarray[Any, Any]
Arrays: TypeAlias = Mapping[str, Array]


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Texts(Protocol):
    """Read by name, as headers are."""

    def get(self, name: str, /) -> str | None: ...


class VersionRef(NamedTuple):
    """A version by model and number. Written ``digits/3``."""

    model: str
    number: int

    def __str__(self) -> str:
        return f"{self.model}/{self.number}"


class Decision(NamedTuple):
    """Which version answers a request, and why.

    ``reason`` is ``pin``, ``rule:<name>``, ``split`` or ``fallback``; ``bucket`` is the key's
    place in the key space, None where no split was asked; ``revision`` names the table, ``epoch``
    the route's assignment of keys to versions; ``flag_age_s`` is the age of the flag data that was
    asked, also when it chose no version; ``flag`` is the key, the variant and the provider's name of the
    flag that chose; ``flag_stale``: the data was too old, or none, so the known good answers.
    """

    route: str
    version: VersionRef
    reason: str
    bucket: int | None
    revision: int
    epoch: int = 0
    flag_age_s: float | None = None
    flag: tuple[str, str | None, str] | None = None
    flag_stale: bool = False


class InferRequest(NamedTuple):
    """One request as the data plane takes it: facts to decide on, and a body not yet decoded.

    The version's signature types the tensors, so decoding comes after deciding: ``decode``
    is pure and may run twice (once for a fallback version with another signature).
    ``deadline`` is on the monotonic clock. ``decision_id`` is made by the server. ``client`` is who
    asks, as far as known: work is shared fairly among clients.
    """

    route: str | None
    request_id: str
    decision_id: str
    deadline: float | None
    key: str | None = None
    context: Mapping[str, Any] = NOTHING
    headers: Texts = NOTHING
    pin: int | None = None
    pin_by_protocol: bool = False
    client_id: str | None = None
    trace: str | None = None
    priority: str | None = None
    client: str = ""


class InferResponse(NamedTuple):
    """One answer. ``digest`` is the chosen version's manifest digest."""

    decision: Decision
    outputs: Arrays
    signature: Signature
    rows: int
    queue_s: float
    compute_s: float
    fallback_from: VersionRef | None = None
