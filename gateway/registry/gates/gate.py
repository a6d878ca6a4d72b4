"""What every kind of gate is: a record that reads and writes its own JSON, strictly; and how its keys are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self

from gateway.errors import InvalidRegistration
from gateway.registry.fields import Fields
from gateway.registry.gates.datasets import DataFile, DataSet
from gateway.registry.gates.purposes import check_purposes

__all__ = [
    "Gate",
    "Reader",
    "read_batch_sizes",
    "read_file",
    "read_flag",
    "read_keys",
    "read_names",
    "read_number",
    "read_one_of",
    "read_settings",
    "read_text",
    "read_whole",
]

Reader = Callable[[Fields, str], Any]


@dataclass(frozen=True, slots=True)
class Gate:
    """``name`` is shown and is unique in a declaration. ``purposes`` (``for``): the changes that ask it; none: all."""

    kind: ClassVar[str] = ""
    readers: ClassVar[Mapping[str, Reader]] = {}

    name: str
    purposes: tuple[str, ...] = field(default=(), kw_only=True)

    def check(self, data: Mapping[str, DataSet]) -> None:
        """InvalidRegistration when the gate asks for what cannot be."""

    def blobs(self) -> tuple[DataFile, ...]:
        return ()

    def to_json(self) -> dict[str, Any]:
        """What is asked, without what is only a default."""
        body: dict[str, Any] = {"kind": self.kind, "name": self.name}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "name" and value != item.default:
                body["for" if item.name == "purposes" else item.name] = _plain(value)
        return body

    @classmethod
    def from_json(cls, body: Any, place: str) -> Self:
        with Fields(body, place) as take:
            take.text("kind")
            found: dict[str, Any] = {"name": take.optional_text("name") or cls.naming(body)}
            if take.anything("for") is not None:
                found["purposes"] = read_names(take, "for")
                check_purposes(found["purposes"], f"{place}.for")
            for key, read in cls.readers.items():
                if take.anything(key) is not None:
                    found[key] = read(take, key)
            needed = [item.name for item in fields(cls) if item.default is MISSING and item.name not in found]
            if needed:
                raise InvalidRegistration(f"{place}.{needed[0]} is missing; a gate of kind {cls.kind} needs it")
            return cls(**found)

    @classmethod
    def naming(cls, body: Mapping[str, Any]) -> str:
        """The name of a gate that was given none."""
        data = body.get("data")
        return cls.kind + (f" on {data}" if isinstance(data, str) else "")


def read_number(least: float = 0.0, most: float = 1e12) -> Reader:
    def read(take: Fields, key: str) -> float:
        value = take.number(key)
        if not least <= value <= most:
            raise InvalidRegistration(f"{take.place}.{key} is {value}; expected a number from {least:g} to {most:g}")
        return float(value)

    return read


def read_whole(least: int, most: int) -> Reader:
    return lambda take, key: take.integer(key, at_least=least, at_most=most)


def read_one_of(*words: str) -> Reader:
    def read(take: Fields, key: str) -> str:
        value = take.text(key)
        if value not in words:
            raise InvalidRegistration(f"{take.place}.{key} is {value!r:.60}; expected one of {', '.join(words)}")
        return value

    return read


def read_batch_sizes(take: Fields, key: str) -> tuple[int, ...]:
    found = take.anything(key)
    sizes = tuple(found) if isinstance(found, list | tuple) else (found,)
    if not 1 <= len(sizes) <= 16 or not all(type(size) is int and 1 <= size <= 65_536 for size in sizes):
        raise InvalidRegistration(f"{take.place}.{key} is {found!r:.80}; expected 1 to 16 batch sizes up to 65536")
    return sizes


def read_names(take: Fields, key: str) -> tuple[str, ...]:
    found = take.anything(key)
    names = (found,) if isinstance(found, str) else tuple(found) if isinstance(found, list | tuple) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidRegistration(f"{take.place}.{key} is {found!r:.80}; expected one or more names")
    return names


def read_keys(take: Fields, key: str) -> Mapping[str, str]:
    found = take.mapping(key)
    if not found or not all(isinstance(text, str) and "PUBLIC KEY" in text for text in found.values()):
        raise InvalidRegistration(f"{take.place}.{key}: expected public keys (PEM text), by the name of each author")
    return found


def read_text(take: Fields, key: str) -> str:
    return take.text(key)


def read_flag(take: Fields, key: str) -> bool:
    return take.boolean(key)


def read_file(take: Fields, key: str) -> DataFile:
    return DataFile.from_json(take.anything(key), f"{take.place}.{key}")


def read_settings(take: Fields, key: str) -> Mapping[str, Any]:
    return take.mapping(key)


def _plain(value: Any) -> Any:
    if isinstance(value, DataFile):
        return value.to_json()
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
