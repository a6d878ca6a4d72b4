"""Looks at a gateway that is not there: its metrics as text, its ``/readyz``, what its admin plane told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from gateway.cli.top.exposition_text import read_samples
from gateway.cli.top.picture import Event, Picture
from gateway.cli.top.rates import Look, Window
from gateway.cli.top.reading import picture_of
from gateway.cli.top.told import Facts

ADDRESS = "http://127.0.0.1:8000"
BOUNDS = (0.001, 0.01, 0.1, 1.0)


def look(at_s: float, *lines: str, started: float = 1.0, standing: Mapping[str, Any] | None = None) -> Look:
    text = "\n".join([f"process_start_time_seconds {started}", *lines])
    return Look(at_s, read_samples(text), standing or ready({}))


def histogram(labels: str, *counts: int) -> list[str]:
    """As the gateway writes it; ``counts`` for each bucket by itself, the last above all bounds."""
    reached, lines = 0, []
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts, strict=True):
        reached += count
        lines.append(f'gateway_request_duration_seconds_bucket{{{labels},le="{bound}"}} {reached}')
    return lines


def ready(routes: Mapping[str, Sequence[Mapping[str, Any]]], **more: Any) -> Mapping[str, Any]:
    """``/readyz`` with these versions of each route; the model is named like its route."""
    plain = {"state": "active", "ready": True, "reason": "", "weight": 0, "quarantined": False}
    found = {
        name: {"model": name, "ready": True, "versions": [{**plain, **version} for version in versions]}
        for name, versions in routes.items()
    }
    return {"ready": True, "draining": False, "revision": 7, "routes": found, "degraded": [], **more}


def route_view(name: str, **status: Any) -> Mapping[str, Any]:
    told = {"known_good": 1, "quarantined": {}, "rollout": None, "pending": [], "failed": {}, "revision": 7}
    return {"route": name, "status": {**told, **status}}


@cache
def busy(routes: int = 3) -> Picture:
    """Two looks two seconds apart at some routes: the first in trouble, the second in a rollout, the others well."""
    names = ["fraud-detection", "digits", *(f"route-{number:03}" for number in range(2, routes))][:routes]
    versions: list[Mapping[str, Any]] = [
        {"version": 1, "weight": 90},
        {"version": 2, "weight": 10},
        {"version": 3, "state": "absent", "quarantined": True},
    ]
    standing = ready(
        dict.fromkeys(names, versions),
        degraded=[
            "fraud-detection: version 2 is failed (its table is gone: /srv/models/fraud/tables/2026/features.parquet)",
            "notifications: the target on-call has not answered for 12 minutes",
        ],
    )
    before, after = list[str](), list[str]()
    for name in names:
        labels = f'route="{name}",model="{name}",version="1"'
        before += histogram(labels, 0, 0, 0, 0, 0)
        after += [
            *histogram(labels, 800, 180, 15, 4, 1),
            f'gateway_requests_total{{{labels},code="200"}} {900 if name == "fraud-detection" else 1000}',
            f'gateway_inflight_requests{{route="{name}"}} 3',
            f'gateway_version_memory_bytes{{model="{name}",version="1",device="cpu"}} 73400320',
            f'gateway_queue_rows{{model="{name}",version="1"}} 12',
            f'gateway_batch_rows_sum{{model="{name}",version="1"}} 3000',
            f'gateway_batch_rows_count{{model="{name}",version="1"}} 500',
            f'gateway_drift_alarm{{model="{name}",version="1",feature="all"}} 0',
        ]
    after += [
        'gateway_requests_total{route="fraud-detection",model="fraud-detection",version="2",code="500"} 100',
        'gateway_rejected_total{route="fraud-detection",reason="queue-full"} 40',
        'gateway_fallbacks_total{route="fraud-detection",version="1",cause="ModelError"} 18',
        'gateway_drift_alarm{model="fraud-detection",version="1",feature="amount"} 1',
        "gateway_state_store_up 1",
        "gateway_decision_log_dropped_total 0",
    ]
    rollout = {"candidate": 2, "phase": "stepping", "percent": 10, "reason": ""}
    waits = ["about 300 more requests to tell that it does no harm by slow answers"]
    facts = Facts(
        routes={name: route_view(name, rollout=rollout if name == "digits" else None) for name in names},
        versions={
            (name, number): {"state": "active", "pid": 4000 + number, "device": "cpu"}
            for name in names
            for number in (1, 2)
        },
        replicas=2,
        events=tuple(
            Event(1_795_381_876.0 - 60 * age, "guard", "rollback", "route/digits", f"version 3 failed; look {age}")
            for age in range(20)
        ),
        rollouts={
            "digits": {"route": "digits", "running": True, "rollout": rollout, "live": {"waits": waits}},
        },
    )
    window = Window().taken(look(0.0, *before, standing=standing), span_s=10.0)
    window = window.taken(look(2.0, *after, standing=standing), span_s=10.0)
    return picture_of(window, facts, address=ADDRESS, at=1_795_381_900.0)
