"""Which versions a search means: terms on the catalogue's entries, and on what their manifests say. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from gateway.errors import FieldProblem, InvalidInput
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.facts import VersionFacts

__all__ = ["MetricTerm", "Query", "read_query"]

_METRIC = re.compile(r"([^<>=\[\]]+)(?:\[([^\]]*)\]\s*)?(<=|>=|<|>|=)\s*(\S+)")
"""Each character has one place to go: with blanks that had two, a kilobyte of them took minutes."""
_COMPARED: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f.]{4,}")
_COMMIT = re.compile(r"[0-9a-f]{4,64}")
_WORDS: Mapping[str, bool | None] = {"yes": True, "true": True, "no": False, "false": False, "any": None}


@dataclass(frozen=True, slots=True)
class MetricTerm:
    """``accuracy>=0.95``; ``accuracy[young]>=0.9`` for the figure of a slice."""

    metric: str
    slice: str | None
    compare: str
    value: float

    def holds(self, facts: VersionFacts) -> bool:
        compared = _COMPARED[self.compare]
        return any(
            metric == self.metric and part == self.slice and compared(value, self.value)
            for metric, value, part in facts.metrics
        )


@dataclass(frozen=True, slots=True)
class Query:
    """All terms must hold. ``name``: part of a model's name, or a pattern with ``*``; ``tags``: key and value, None for
    any value; ``data`` and ``commit`` may be cut short. Times in seconds since the epoch."""

    name: str | None = None
    tags: tuple[tuple[str, str | None], ...] = ()
    alias: str | None = None
    metrics: tuple[MetricTerm, ...] = ()
    data: tuple[str, ...] = ()
    commit: str | None = None
    format: str | None = None
    author: str | None = None
    source: str | None = None
    archived: bool | None = None
    registered_after: float | None = None
    registered_before: float | None = None

    def takes_model(self, name: str) -> bool:
        if self.name is None:
            return True
        return fnmatchcase(name, self.name) if set("*?[") & set(self.name) else self.name in name

    def takes(self, entry: CatalogueEntry, aliases: Sequence[str]) -> bool:
        """By the catalogue alone."""
        return (
            (self.archived is None or entry.archived == self.archived)
            and (self.alias is None or self.alias in aliases)
            and (self.registered_after is None or entry.created_at >= self.registered_after)
            and (self.registered_before is None or entry.created_at < self.registered_before)
            and all(key in entry.tags and value in (None, entry.tags[key]) for key, value in self.tags)
        )

    @property
    def asks_catalogue(self) -> bool:
        terms = (self.archived, self.alias, self.registered_after, self.registered_before)
        return bool(self.tags) or any(term is not None for term in terms)

    def holds(self, facts: VersionFacts) -> bool:
        """By the manifest."""
        return all(check(facts) for check in self.checks())

    def checks(self) -> Sequence[Callable[[VersionFacts], bool]]:
        """What ``holds`` looks at: for ten thousand manifests only what was asked is worth a look."""
        made: list[Callable[[VersionFacts], bool]] = [term.holds for term in self.metrics]
        made += [partial(_trained_on, digest) for digest in self.data]
        if self.format is not None:
            made.append(lambda facts: facts.format == self.format)
        if self.commit is not None:
            made.append(lambda facts: (facts.commit or "").startswith(self.commit or ""))
        if self.author is not None:
            made.append(lambda facts: (self.author or "") in (facts.author or ""))
        if self.source is not None:
            made.append(lambda facts: (facts.source or "").startswith(self.source or ""))
        return made


def _trained_on(digest: str, facts: VersionFacts) -> bool:
    for held in facts.data:  # noqa: SIM110 - a third of the time that any takes
        if held.startswith(digest):
            return True
    return False


def read_query(terms: Mapping[str, Sequence[str]]) -> Query:
    """Of texts by name, as a URL's query or a command's options have them. Raises InvalidInput naming the term."""
    found: dict[str, Any] = {}
    for name, texts in terms.items():
        if name == "tag":
            found["tags"] = tuple(_tag(text) for text in texts)
        elif name == "metric":
            found["metrics"] = tuple(_metric(text) for text in texts)
        elif name == "data":
            found["data"] = tuple(_matched(name, text, _DIGEST, "a digest like sha256:1f2e…") for text in texts)
        elif name in _SINGLE:
            if len(texts) != 1:
                raise _wrong(name, "one value", f"{len(texts)}")
            found[name] = _SINGLE[name](texts[0])
        else:
            raise _wrong(name, f"one of {', '.join(sorted((*_SINGLE, 'tag', 'metric', 'data')))}", "an unknown term")
    return Query(**found)


def _tag(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not key:
        raise _wrong("tag", "KEY=VALUE, or KEY", repr(text[:60]))
    return key, value if equals else None


def _metric(text: str) -> MetricTerm:
    parts = _METRIC.fullmatch(text.strip())
    if parts is None or not parts[1].strip():
        alone = "" if set("<>=") & set(text) else " alone (a shell takes > and < for itself: put the term in quotes)"
        raise _wrong("metric", "like accuracy>=0.95, or accuracy[slice]>=0.95", f"{text[:60]!r}{alone}")
    metric, part, compare, number = parts.groups()
    try:
        value = float(number)
    except ValueError:
        raise _wrong("metric", f"a number behind {compare}", repr(number[:60])) from None
    return MetricTerm(metric.strip(), part, compare, value)


def _matched(name: str, text: str, pattern: re.Pattern[str], expected: str) -> str:
    if not pattern.fullmatch(text):
        raise _wrong(name, expected, repr(text[:80]))
    return text


def _when(name: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise _wrong(name, "seconds since the epoch, or a date like 2026-01-31", repr(text[:60])) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    return read


def _archived(text: str) -> bool | None:
    if text.lower() not in _WORDS:
        raise _wrong("archived", "yes, no or any", repr(text[:60]))
    return _WORDS[text.lower()]


def _commit(text: str) -> str:
    return _matched("commit", text.lower(), _COMMIT, "4 to 64 hexadecimal digits")


_SINGLE: Mapping[str, Callable[[str], Any]] = {
    "name": str,
    "alias": lambda text: text.removeprefix("@"),
    "commit": _commit,
    "format": str,
    "author": str,
    "source": str,
    "archived": _archived,
    "registered_after": _when("registered_after"),
    "registered_before": _when("registered_before"),
}


def _wrong(name: str, expected: str, got: str) -> InvalidInput:
    return InvalidInput(f"{name[:60]}: expected {expected}, got {got}", FieldProblem(name[:60], expected, got))
