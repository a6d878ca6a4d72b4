"""A live gateway on which everything happens that boards and rules tell of, and a Prometheus that watches it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.closed_loop import Load
from loadtests.live_gateway import LiveGateway, free_port, wait_until
from loadtests.prometheus_server import PrometheusServer
from tests.live.scenario import SIGNATURE, self_naming

__all__ = ["ROLLING", "ROUTE", "SIZED", "WATCHED", "Eventful", "eventful"]

ROUTE = "digits"
"""Two versions, of which the second fails at times; a fallback, a shadow, kept answers, a flag, too short deadlines."""

BARE, ROLLING, BACK, BROKEN = "bare", "rolling", "back", "broken"
"""A route without a fallback, one in a rollout, one that went back, and one whose version does not load."""

WATCHED, SIZED = "watched", "sized"
"""A route with a reference, whose first column comes in another unit, and labels; and one that answers numbers."""

_OUTPUTS: dict[str, list[dict[str, Any]]] = {
    WATCHED: [
        {"name": "label", "datatype": "INT64", "shape": ["batch"]},
        {"name": "scores", "datatype": "FP32", "shape": ["batch", 2]},
    ],
    SIZED: [{"name": "y", "datatype": "FP32", "shape": ["batch"]}],
}
_TRUTHS: dict[str, dict[str, Any]] = {
    WATCHED: {
        "task": "classification",
        "output": "label",
        "score": "scores",
        "classes": [0, 1],
        "slices": ["context:country"],
    },
    SIZED: {"task": "regression", "output": "y"},
}

BAD = 13.0
"""An element of one request in ten."""

Request = tuple[dict[str, Any], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Eventful:
    gateway: LiveGateway
    prometheus: PrometheusServer
    loads: tuple[Load, ...]


@contextmanager
def eventful(folder: Path) -> Iterator[Eventful]:
    """Two web workers under steady load; entered once each event has been seen by Prometheus."""
    flags = folder / "flags.json"
    flag = {"state": "ENABLED", "variants": {"v": 99}, "defaultVariant": "v"}
    flags.write_text(json.dumps({"flags": {"new-model": flag}}), encoding="utf-8")
    nobody = f"http://127.0.0.1:{free_port()}"
    settings: dict[str, Any] = {
        "server": {"workers": 2},
        "runtimes": {"memory_bytes": 4 << 30},
        "flags": {"provider": "flagd-file", "path": str(flags), "budget_ms": 1000.0},
        "telemetry": {
            "drift": {"look_s": 0.5, "busy_share": 1.0},
            "trace_exporter": "otlp",
            "otlp_endpoint": f"{nobody}/v1/traces",
            "decisions": {"sinks": [{"name": "nobody", "kind": "cloudevents", "url": nobody}]},
        },
        "notifications": {"targets": [{"name": "ops", "url": nobody}]},
    }
    with ExitStack() as ends:
        gateway = ends.enter_context(LiveGateway(folder / "home", settings=settings))
        _set_up(gateway)
        _set_up_watched(gateway)
        target = {"turnout": [f"127.0.0.1:{gateway.port}"]}
        prometheus = ends.enter_context(PrometheusServer(folder / "prometheus", target))
        makers = {ROUTE: _varied, BARE: _plain, ROLLING: _plain, BACK: _plain, WATCHED: _broken}
        loads = tuple(
            ends.enter_context(Load(gateway.port, f"/predict/{route}", make, clients=3, pause_s=0.02))
            for route, make in makers.items()
        )
        _until(prometheus, f'gateway_requests_total{{route="{BACK}"}}')
        gateway.rollback(BACK)
        labels = f'gateway_truth_label_delay_seconds_count{{model="{WATCHED}"}}'
        _until(prometheus, labels, lambda: _label(gateway))
        for told in _HAPPENED:
            _until(prometheus, told)
        _until(prometheus, f"rate({labels}[1m]) > 0", lambda: _label(gateway))
        _roll_out(gateway)
        for told in _LATEST:
            _until(prometheus, told)
        yield Eventful(gateway, prometheus, loads)


def _set_up(gateway: LiveGateway) -> None:
    for model, scripts in {
        ROUTE: ({}, {"fail": {"equals": BAD}}, {"outputs": {"y": 7}}),
        BARE: ({"fail": {"equals": BAD}},),
        ROLLING: ({}, {"outputs": {"y": 1}}),
        BACK: ({}, {}),
    }.items():
        for number, script in enumerate(scripts, start=1):
            self_naming(gateway, model, number, **script)
        arms = [{"version": 1, "weight": 70}, {"version": 2, "weight": 30}]
        split = arms if model in (ROUTE, BACK) else [{"version": 1, "weight": 1}]
        gateway.put_route(model, {"model": model, "split": split, "known_good": 1, **_FURTHER.get(model, {})})
    gateway.register_echo(BROKEN, BROKEN, {"fail_load": "no weights"}, verify=False, signature=SIGNATURE)
    gateway.put_route(BROKEN, {"model": BROKEN, "split": [{"version": 1, "weight": 1}]}, wait=False)


_FURTHER: dict[str, dict[str, Any]] = {
    ROUTE: {
        "fallback": 1,
        "shadow": [{"version": 3, "share": 0.5}],
        "cache": {"max_bytes": 1 << 16},
        "rules": [{"name": "beta", "flag": "new-model", "versions": [1]}],
    }
}


def _set_up_watched(gateway: LiveGateway) -> None:
    reference = gateway.home.parent / "reference.npy"
    np.save(reference, np.random.default_rng(1).normal(size=(5_000, 4)).astype(np.float32))
    for model, outputs in _OUTPUTS.items():
        signature = {"inputs": SIGNATURE["inputs"], "outputs": outputs}
        script = {"outputs": {"label": 1, "scores": 0.5, "y": 1}}
        gateway.register_echo(model, model, script, signature=signature, reference=f"file:{reference}")
        split = [{"version": 1, "weight": 1}]
        gateway.put_route(model, {"model": model, "split": split, "truth": _TRUTHS[model]})


def _label(gateway: LiveGateway) -> None:
    """One in four labels says otherwise; the last is of an answer that nobody gave."""
    found = []
    for route in _OUTPUTS:
        contexts = [{"country": country} for country in ("at", "de")] * 20
        answers = [gateway.predict(route, [[0.5] * 4], context=context).json() for context in contexts]
        found += [{"decision": one["decision"], "label": int(place % 4 > 0)} for place, one in enumerate(answers)]
    found.append({"decision": "01900000-0000-7000-8000-000000000000", "label": 1})
    lines = "".join(f"{json.dumps(label)}\n" for label in found)
    headers = {"authorization": f"Bearer {gateway.token}", "content-type": "application/x-ndjson"}

    def taken() -> bool:
        """Not while the recorder starts. What is sent again changes nothing."""
        answer = gateway.client.post("/feedback", content=lines, headers=headers)
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    wait_until(taken, what="the labels' acceptance")


def _roll_out(gateway: LiveGateway) -> None:
    step = {"weight": 20, "min_requests": 10**6, "min_s": 0.5}
    shadow = {"share": 0.5, "min_pairs": 20, "min_s": 4.0}
    plan = {"candidate": 2, "shadow": shadow, "steps": [step, {"weight": 50}], "max_disagreement": 0.5}
    gateway.admin("POST", f"/routes/{ROLLING}/rollout", plan, expect=201)


_HAPPENED = (
    f'gateway_rollbacks_total{{route="{BACK}"}}',
    f'gateway_version_state{{model="{BROKEN}", state="failed"}} == 1',
    f'rate(gateway_rejected_total{{route="{ROUTE}"}}[10s]) > 0',
    f'rate(gateway_requests_total{{route="{BARE}", code="500"}}[10s]) > 0',
    f'rate(gateway_fallbacks_total{{route="{ROUTE}"}}[10s]) > 0',
    f'rate(gateway_shadow_total{{route="{ROUTE}", outcome="differs"}}[10s]) > 0',
    f'rate(gateway_cache_requests_total{{route="{ROUTE}", outcome="hit"}}[10s]) > 0',
    f'rate(gateway_flag_misses_total{{route="{ROUTE}"}}[10s]) > 0',
    'ALERTS{alertname="TurnoutVersionFailed"}',
    f'gateway_drift_blame{{model="{WATCHED}", blame="data-pipeline"}} > 0',
    f'gateway_drift_score{{model="{WATCHED}", statistic="psi_expected"}}',
    f'rate(gateway_feedback_total{{model="{WATCHED}"}}[1m]) >= 0',
    'rate(gateway_feedback_total{model=""}[1m]) >= 0',
    f'gateway_truth_score{{model="{SIZED}", metric="mae"}}',
    f'gateway_truth_score{{model="{WATCHED}", metric="accuracy_gap:country"}}',
    'gateway_decision_sink_lag_seconds{sink="nobody"} > 0',
    "gateway_decision_log_records_total > 0",
    'gateway_notification_oldest_seconds{target="ops"} > 0',
    "gateway_spans_dropped_total > 0",
    "route:gateway_rejected:ratio_rate5m",
    "route:gateway_slow:ratio_rate3d",
)
"""What Prometheus must have seen before it is asked for anything else."""

_LATEST = (
    f'gateway_rollout_weight{{route="{ROLLING}"}} == 20',
    f'rate(gateway_requests_total{{route="{ROLLING}", version="2"}}[10s]) > 0',
    f'rate(gateway_shadow_total{{route="{ROLLING}", version="2", outcome="agrees"}}[1m]) > 0',
)
"""What is over after a moment, so that a panel of the last minute shows it: begun when all else has been seen."""


def _until(prometheus: PrometheusServer, expression: str, doing: Callable[[], None] = lambda: None) -> None:
    """``doing``: again and again until then, since a recorder that cannot keep up drops what it is told."""
    wait_until(lambda: doing() or prometheus.query(expression), within_s=180, what=expression)


def _plain(client: int, sequence: int) -> Request:
    number = client * 100_000 + sequence
    trace = f"00-{number + 1:032x}-{number + 1:016x}-01"
    row = [float(1000 + number % 1000)] * 3 + [BAD if number % 10 == 3 else 0.0]
    return {"inputs": [row], "key": f"k-{number}"}, {"traceparent": trace}


def _broken(client: int, sequence: int) -> Request:
    """As the reference, but for the first column, which is a thousand times as large."""
    row = np.random.default_rng(client * 100_000 + sequence).normal(size=4) * (1_000.0, 1.0, 1.0, 1.0)
    return {"inputs": [row.tolist()]}, {}


def _varied(client: int, sequence: int) -> Request:
    """Every fourth asks the same as before, and every fifth has a deadline that cannot be met."""
    body, headers = _plain(client, sequence)
    if sequence % 4 == 0:
        body["inputs"] = [[1.0] * 4]
    if sequence % 5 == 0:
        headers["x-timeout-ms"] = "1"
    return body, headers
