"""Forward migration: stored documents carry a schema number and are read by every later program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.errors import RegistryError

__all__ = ["Migration", "migrate"]

Migration = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From a body of one schema to a body of the next: pure, and it leaves its argument alone."""


def migrate(body: Mapping[str, Any], table: Mapping[int, Migration], current: int, *, what: str) -> Mapping[str, Any]:
    """The body in the current schema; the very same object when it is there already.

    RegistryError when the schema is no number, is newer than this program, or has no way forward.
    """
    schema = body.get("schema")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 0:
        raise RegistryError(f"{what}: schema is {schema!r}; expected a number up to {current}")
    if schema > current:
        raise RegistryError(
            f"{what} has schema {schema}; this program reads up to {current}. A newer Turnout wrote it: run that one."
        )
    for step in range(schema, current):
        if step not in table:
            raise RegistryError(f"{what} has schema {schema}, and nothing leads from {step} to {step + 1}")
        body = {**table[step](body), "schema": step + 1}
    return body
