"""What a gate is for: every change that takes a version, or only some (``for: [target:production]``). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import InvalidRegistration

__all__ = ["asked_for", "check_purposes", "matches", "targets_in"]

_PURPOSE = re.compile(r"(alias|rollout|target)(:[A-Za-z0-9][A-Za-z0-9._-]{0,127})?")


def matches(purposes: Sequence[str], purpose: str) -> bool:
    """``purpose``: ``target:production``; named in full, or by its kind. A gate that names none is for all."""
    return not purposes or purpose in purposes or purpose.partition(":")[0] in purposes


def asked_for(declaration: Mapping[str, Any] | None, purpose: str) -> bool:
    """Whether a model's declaration, as it is kept, has a gate for this."""
    return declaration is not None and any(matches(gate.get("for") or (), purpose) for gate in declaration["gates"])


def targets_in(purposes: Sequence[str]) -> Sequence[str]:
    """Names of the targets."""
    return [one.removeprefix("target:") for one in purposes if one.startswith("target:")]


def check_purposes(purposes: Sequence[str], place: str) -> None:
    """InvalidRegistration for what no change is called: such a gate would never be asked."""
    for one in purposes:
        if not _PURPOSE.fullmatch(one):
            raise InvalidRegistration(
                f"{place} names {one!r:.80}; expected target, alias or rollout, or one of them by name: "
                "target:production, alias:champion, rollout:ROUTE"
            )
