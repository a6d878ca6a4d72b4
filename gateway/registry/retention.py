"""Which versions' files may go: those that nothing uses and no rule keeps. Pure.

Their manifests stay, with all that catalogues name beside them, so that what a version was can be told for ever; only
its files can be freed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.registry.catalogue import CatalogueEntry, ModelDocument

__all__ = ["RetentionRule", "surplus"]

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """A version stays while any of them holds. Neither ``keep_last`` nor ``keep_days``: every version stays."""

    keep_last: int | None = None
    keep_days: float | None = None
    keep_tags: Sequence[str] = ()

    @property
    def keeps_all(self) -> bool:
        return self.keep_last is None and self.keep_days is None


def surplus(model: ModelDocument, used: Mapping[int, Sequence[str]], rule: RetentionRule, *, now: float) -> list[int]:
    """Numbers of the versions to release, in order. ``used``: what uses a version, by number; ``now`` in seconds since
    the epoch."""
    if rule.keeps_all:
        return []
    newest = {entry.number for entry in model.versions[len(model.versions) - (rule.keep_last or 0) :]}
    return [
        entry.number
        for entry in model.versions
        if entry.released is None
        and not used.get(entry.number)
        and entry.number not in newest
        and not _young(entry, rule, now)
        and not any(_tagged(entry, tag) for tag in rule.keep_tags)
    ]


def _young(entry: CatalogueEntry, rule: RetentionRule, now: float) -> bool:
    return rule.keep_days is not None and now - entry.created_at < rule.keep_days * _DAY_S


def _tagged(entry: CatalogueEntry, tag: str) -> bool:
    name, given, value = tag.partition("=")
    return name in entry.tags and (not given or entry.tags[name] == value)
