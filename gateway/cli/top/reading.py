"""From looks and facts to the picture: the head line, and all rows, what is in trouble first."""

from __future__ import annotations

from collections.abc import Collection

from gateway.cli.top.exposition_text import value_of
from gateway.cli.top.picture import Event, GatewayLine, Picture
from gateway.cli.top.rates import Increase, Look, Window
from gateway.cli.top.route_rows import route_rows, route_urgency
from gateway.cli.top.told import DROPPED, INFLIGHT, REQUESTS, STORE_UP, Facts, per_second, revision_of, standing_routes
from gateway.cli.top.version_rows import version_rows, version_urgency

__all__ = ["picture_of"]


def picture_of(window: Window, facts: Facts, *, address: str, at: float, routes: Collection[str] = ()) -> Picture:
    """``routes``: only these, and the versions of their models; none named: all."""
    look, increase = window.looks[-1], window.increase
    shown = {name: row for name, row in standing_routes(look).items() if not routes or name in routes}
    models = {str(row["model"]) for row in shown.values()} if routes else None
    missing = tuple(f"no route {name!r} in force" for name in routes if name not in shown)
    missing = missing or (() if shown else ("no route is in force: turnout apply -f FILE makes one",))
    return Picture(
        at=at,
        gateway=_gateway(look, increase, facts, address),
        routes=tuple(sorted(route_rows(shown, look, increase, facts), key=route_urgency)),
        versions=tuple(sorted(version_rows(look, increase, facts, models), key=version_urgency)),
        events=tuple(event for event in facts.events if not routes or _concerns(event, shown, models or set())),
        withheld=(*missing, *facts.withheld),
    )


def _gateway(look: Look, increase: Increase, facts: Facts, address: str) -> GatewayLine:
    standing, samples = look.standing, look.samples
    state = "draining" if standing.get("draining") else "ready" if standing.get("ready") else "not ready"
    store, dropped = value_of(samples, STORE_UP), value_of(samples, DROPPED)
    every = increase.rates(REQUESTS, lambda _: "all")
    return GatewayLine(
        address=address,
        state=state,
        degraded=tuple(map(str, standing.get("degraded") or ())),
        revision=revision_of(look),
        store_up=None if store is None else bool(store),
        replicas=facts.replicas,
        dropped=None if dropped is None else int(dropped),
        inflight=int(sum(samples.get(INFLIGHT, {}).values())),
        requests_s=per_second(every.get("all", 0.0), increase),
        started_at=look.started,
        span_s=increase.span_s,
    )


def _concerns(event: Event, routes: Collection[str], models: Collection[str]) -> bool:
    kind, _, name = event.subject.partition("/")
    return name in (routes if kind == "route" else models if kind == "model" else ())
