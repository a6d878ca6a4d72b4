"""What changed, as lines across the panels: rollbacks, weights, and versions that came and went.

A counter that appears with its first event has no rate yet: so values are compared with those of a minute before,
where what is missing counts as nothing.
"""

from __future__ import annotations

from dashboards.board import Mark

__all__ = ["changes"]

CHOSEN = '{route=~"$route"}'


def changes() -> tuple[Mark, ...]:
    """For boards with a variable ``route``."""
    rollbacks = f"gateway_rollbacks_total{CHOSEN}"
    before = f"({rollbacks} offset 1m or {rollbacks} * 0)"
    return (
        Mark(
            "Rollbacks",
            f"sum by (route, trigger) ({rollbacks} - {before}) > 0",
            "red",
            "{{route}} went back",
            "asked for by {{trigger}}",
        ),
        Mark(
            "Weights",
            f"max by (route, version) (changes(gateway_route_weight{CHOSEN}[1m])) > 0",
            "blue",
            "{{route}}: weights changed",
            "version {{version}}",
        ),
    )
