"""Strict reading of a JSON object: each key taken by type, whatever is left over is an error.

    with Fields(body, "manifest.files[0]") as take:
        name = take.text("name")

Leaving the block checks that no unknown key was there, and offers the nearest known name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from gateway.errors import RegistryError

__all__ = ["Fields"]


class Fields:
    """The keys of one object at ``place``. All methods raise RegistryError naming the key."""

    def __init__(self, body: Any, place: str) -> None:
        if not isinstance(body, Mapping):
            raise RegistryError(f"{place} is {_shown(body)}; expected an object")
        self.place = place
        self._body = body
        self._taken: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._refuse_leftovers()

    def _refuse_leftovers(self) -> None:
        unknown = sorted(self._body.keys() - self._taken)
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._taken, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(sorted(self._taken))}"
            raise RegistryError(f"{self.place}: unknown key {unknown[0]!r}; {hint}")

    def anything(self, key: str) -> Any:
        """Whatever stands there; None where nothing does."""
        self._taken.add(key)
        return self._body.get(key)

    def text(self, key: str) -> str:
        value = self.anything(key)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, value, "a non-empty string")
        return value

    def free_text(self, key: str) -> str:
        value = self.anything(key)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self.anything(key) is None else self.text(key)

    def boolean(self, key: str) -> bool:
        value = self.anything(key)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def optional_boolean(self, key: str) -> bool:
        """False where nothing stands."""
        return self.anything(key) is not None and self.boolean(key)

    def integer(self, key: str, *, at_least: int, at_most: int = 2**63 - 1) -> int:
        value = self.anything(key)
        if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
            expected = str(at_least) if at_least == at_most else f"an integer of at least {at_least}"
            raise self._wrong(key, value, expected)
        return value

    def optional_integer(self, key: str, *, at_least: int) -> int | None:
        return None if self.anything(key) is None else self.integer(key, at_least=at_least)

    def number(self, key: str) -> float:
        value = self.anything(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, value, "a number")
        return value

    def optional_pair(self, key: str) -> tuple[float, float] | None:
        value = self.anything(key)
        if value is None:
            return None
        pair = isinstance(value, list | tuple) and len(value) == 2
        if not pair or any(type(end) not in (int, float) for end in value):
            raise self._wrong(key, value, "two numbers")
        return (value[0], value[1])

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.anything(key)
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "an object")
        return value

    def optional_mapping(self, key: str) -> Mapping[str, Any] | None:
        return None if self.anything(key) is None else self.mapping(key)

    def rows(self, key: str) -> list[tuple[Any, str]]:
        """Each element of a list, with its place."""
        value = self.anything(key)
        if not isinstance(value, list | tuple):
            raise self._wrong(key, value, "a list")
        return [(row, f"{self.place}.{key}[{index}]") for index, row in enumerate(value)]

    def _wrong(self, key: str, value: Any, expected: str) -> RegistryError:
        if key not in self._body:
            return RegistryError(f"{self.place}.{key} is missing; expected {expected}")
        return RegistryError(f"{self.place}.{key} is {_shown(value)}; expected {expected}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
