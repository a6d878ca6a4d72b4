"""Evaluation data as a declaration names it: a stored file, and what its columns mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidRegistration
from gateway.registry.fields import Fields
from gateway.registry.names import check_digest

__all__ = ["DataFile", "DataSet"]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A stored file; ``name`` is what its offerer called it, and its suffix says how to read it."""

    name: str
    digest: str
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "digest": self.digest, "size_bytes": self.size_bytes}

    @classmethod
    def from_json(cls, body: Any, place: str) -> DataFile:
        with Fields(body, place) as take:
            digest = check_digest(take.text("digest"))
            return cls(take.text("name"), digest, take.integer("size_bytes", at_least=0))


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows that a version is asked, and what it should answer.

    ``label``: the column with the truth. ``prediction``: the output that is held against it (default: one of the
    label's name, else the first); a row of several numbers stands for the place of its largest, named by ``classes`` if
    they are given. ``score``: the output with probabilities; of ``positive`` where the truth has two values.
    ``groups``: columns that name a group of people. ``key``: whose row it is; rows of one key are not independent.
    ``rows``: at most so many, from the first.
    """

    file: DataFile
    label: str
    prediction: str | None = None
    score: str | None = None
    positive: Any = 1
    classes: tuple[Any, ...] = ()
    groups: tuple[str, ...] = ()
    key: str | None = None
    rows: int | None = None

    @property
    def beside(self) -> tuple[str, ...]:
        """The columns that are not the version's."""
        return tuple(dict.fromkeys((self.label, *self.groups, *(() if self.key is None else (self.key,)))))

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"file": self.file.to_json(), "label": self.label, "positive": self.positive}
        body |= {name: value for name in ("prediction", "score", "key", "rows") if (value := getattr(self, name))}
        body |= {name: list(value) for name in ("classes", "groups") if (value := getattr(self, name))}
        return body

    @classmethod
    def from_json(cls, body: Any, place: str) -> DataSet:
        with Fields(body, place) as take:
            positive = take.anything("positive")
            return cls(
                file=DataFile.from_json(take.anything("file"), f"{place}.file"),
                label=take.text("label"),
                prediction=take.optional_text("prediction"),
                score=take.optional_text("score"),
                positive=1 if positive is None else _plain(positive, f"{place}.positive"),
                classes=_plains(take, "classes"),
                groups=_texts(take, "groups"),
                key=take.optional_text("key"),
                rows=take.optional_integer("rows", at_least=1),
            )


def _texts(take: Fields, key: str) -> tuple[str, ...]:
    found = take.anything(key) or ()
    if isinstance(found, str) or not all(isinstance(one, str) and one for one in found):
        raise InvalidRegistration(f"{take.place}.{key} is {found!r:.80}; expected a list of names")
    return tuple(found)


def _plains(take: Fields, key: str) -> tuple[Any, ...]:
    return tuple(_plain(row, place) for row, place in (take.rows(key) if take.anything(key) is not None else ()))


def _plain(value: Any, place: str) -> Any:
    if not isinstance(value, str | int | float | bool):
        raise InvalidRegistration(f"{place} is {value!r:.80}; expected a number, a string, true or false")
    return value
