"""An answered request as the data plane has it, and what of it a copy keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.messages import Array, Arrays, Decision, Signature
from gateway.routing.table import Route
from gateway.serving.handle import Handle, VersionState

__all__ = ["Decode", "Given", "inputs_for", "owned"]

Decode = Callable[[Signature], "tuple[Arrays, int] | Awaitable[tuple[Arrays, int]]"]

COPIED_BYTES = 256 * 1024
"""An array up to here is copied when it is a view, so that it keeps neither a request's body nor a batch's outputs.
Larger ones are kept as they are: what they are views into is not written again while they live."""


class Given(NamedTuple):
    """``decision`` is of the version that answered, by ``handle``; ``trace`` the request's ``traceparent``."""

    route: Route
    decision: Decision
    handle: Handle
    decode: Decode
    inputs: Arrays
    rows: int
    outputs: Arrays
    trace: str | None = None
    decision_id: str | None = None


def inputs_for(handle: Handle, given: Given) -> tuple[Arrays, int] | None:
    """The request's inputs as the shadow takes them. None where it takes nothing now, and where another process would
    have to decode the body again, which clients need. An inline version may have written on the arrays that it was
    given, so these are not used twice. Raises InvalidInput."""
    if handle.state is not VersionState.ACTIVE:
        return None
    answered = given.handle
    if handle.signature.inputs == answered.signature.inputs and answered.spec.placement != "inline":
        if handle.spec.placement != "inline":
            return given.inputs, given.rows
        return {name: array.copy() for name, array in given.inputs.items()}, given.rows  # another shadow has them, too
    fitted = given.decode(handle.signature)
    if isinstance(fitted, tuple):
        return fitted
    close = getattr(fitted, "close", None)
    if close is not None:
        close()  # it never begins
    return None


def owned(arrays: Arrays) -> dict[str, Array]:
    return {
        name: array.copy() if array.base is not None and array.nbytes <= COPIED_BYTES else array
        for name, array in arrays.items()
    }
