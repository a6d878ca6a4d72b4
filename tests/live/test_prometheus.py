"""A Prometheus on the checked-in files watches a live gateway: each expression of panels and rules has an answer."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.generate import FOLDER
from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.prometheus_server import CONFIG, PrometheusServer, find_prometheus
from tests.live.eventful import ROLLING, ROUTE, SIZED, WATCHED, Eventful, eventful
from tests.live.scenario import ROW, SIGNATURE

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_prometheus() is None, reason="no prometheus here: apt-get install prometheus"),
]

CHOSEN = {
    "overview": {"route": ".*"},
    "route": {"route": ROUTE, "model": ROUTE, "version": ".*"},
    "rollout": {"route": ROLLING, "candidate": "2", "known_good": "1"},
    "drift-and-truth": {"route": ".*", "model": f"{WATCHED}|{SIZED}", "version": ".*"},
}
"""The values of each board's variables."""

TIMES = {"__rate_interval": "1m", "__interval": "1s", "__range": "1m"}

QUIET = {
    "rollout: Rollbacks so far": "what went back is in no rollout; the expression is evaluated all the same",
}
"""Panels without data here, and why the test cannot cause any."""

SILENT: dict[str, str] = {"TurnoutAbsent": "it asks whether there is anything at all"}
"""Alerts whose expression has nothing to compare here, and why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a panel. ``legend`` and ``columns`` are the labels that its series must have."""

    name: str
    kind: str
    expression: str
    labels: frozenset[str]
    exemplar: bool


def boards() -> dict[str, Any]:
    paths = sorted((FOLDER / "dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def filled(expression: str, board: str) -> str:
    for name, value in {**TIMES, **CHOSEN[board]}.items():
        expression = re.sub(rf"\$\{{?{name}\b\}}?", value, expression)
    assert "$" not in expression, expression
    return expression


def queries() -> Iterator[Asked]:
    for board, body in boards().items():
        for panel in body["panels"]:
            columns = [
                set(transform["options"]["renameByName"]) - {"Value"} for transform in panel.get("transformations", ())
            ]
            for target in panel.get("targets", ()):
                labels = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))).union(*columns)
                yield Asked(
                    f"{board}: {panel['title']}",
                    panel["type"],
                    filled(target["expr"], board),
                    frozenset(labels),
                    target.get("exemplar", False),
                )


def rules(name: str) -> Iterator[dict[str, Any]]:
    body = yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))
    yield from (rule for group in body["groups"] for rule in group["rules"])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eventful]:
    with eventful(tmp_path_factory.mktemp("eventful")) as running:
        yield running


def test_every_panel_has_data_of_its_shape(watched: Eventful) -> None:
    """A number has one series, a line the labels of its legend, a table its columns, a heat map its buckets; and
    somewhere there is a value."""

    def wrong() -> list[str]:
        asked = [one for one in queries() if one.name not in QUIET]
        return [said for one in asked if (said := _fault(watched.prometheus, one))]

    faults = _lasting(wrong)
    assert not faults, "\n".join(faults)


def _lasting(faults: Callable[[], list[str]]) -> list[str]:
    """Those that are still there after a while: where a scrape came late, there is a hole in each series."""
    limit = time.monotonic() + 60
    while (found := faults()) and time.monotonic() < limit:
        pass
    return found


def _fault(prometheus: PrometheusServer, asked: Asked) -> str | None:
    found = prometheus.query(asked.expression)
    if not found:
        return f"{asked.name}: no data\n    {asked.expression}"
    if not any(math.isfinite(float(series["value"][1])) for series in found):
        return f"{asked.name}: no value\n    {asked.expression}"
    if asked.kind == "stat" and len(found) != 1:
        return f"{asked.name}: {len(found)} series for one number\n    {asked.expression}"
    if asked.kind == "heatmap" and not {"+Inf"} < {series["metric"]["le"] for series in found}:
        return f"{asked.name}: no buckets\n    {asked.expression}"
    every = set() if "ALERTS" in asked.expression else asked.labels  # alerts differ in what they are about
    lacking = {label for series in found for label in every - series["metric"].keys()}
    return f"{asked.name}: series without {sorted(lacking)}\n    {asked.expression}" if lacking else None


def test_the_panels_that_are_quiet_here_are_evaluated_all_the_same(watched: Eventful) -> None:
    """And they are quiet: the list has no entry that data has made wrong."""
    quiet = [asked for asked in queries() if asked.name in QUIET]
    assert {asked.name for asked in quiet} == QUIET.keys()
    assert not [asked.name for asked in quiet if watched.prometheus.query(asked.expression)]


def test_every_variable_has_values_to_choose_from(watched: Eventful) -> None:
    """``label_values(series, label)`` is Grafana's own; here, the label's values among the series."""
    for name, board in boards().items():
        for variable in board["templating"]["list"]:
            series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            asked = f"count by ({label}) ({filled(series, name)})"

            def found(asked: str = asked, label: str = label) -> bool:
                return any(one["metric"].get(label) for one in watched.prometheus.query(asked))

            wait_until(found, what=f"{name}: {variable['name']}")


def test_rollbacks_and_changes_of_weights_leave_their_marks(watched: Eventful) -> None:
    """Also the first rollback that a counter ever saw, and on the board of every route."""
    for name, board in boards().items():
        for mark in board["annotations"].get("list", ()):
            expression = mark["expr"].replace("$route", ".*")
            found = watched.prometheus.query(f"max_over_time(({expression})[1h:1s])")
            assert found, f"{name}: {mark['name']}\n    {expression}"
            shown = set(re.findall(r"\{\{(\w+)\}\}", mark["titleFormat"] + mark["textFormat"]))
            assert shown <= found[0]["metric"].keys()


def test_exemplars_lead_from_panels_to_traces(watched: Eventful) -> None:
    """Requests whose trace is kept leave its id in their bucket, from whichever web worker."""
    asked = [one for one in queries() if one.exemplar]
    assert len({one.name.partition(":")[0] for one in asked}) == 3
    for one in asked:
        end = watched.prometheus.value("time()") or 0.0
        found = watched.prometheus.ask("query_exemplars", query=one.expression, start=end - 3600, end=end)
        labels = [exemplar["labels"] for series in found for exemplar in series["exemplars"]]
        assert labels, one.name
        assert all(len(each["trace_id"]) == 32 for each in labels)


def test_every_recorded_series_is_there(watched: Eventful) -> None:
    """With a value, and with the labels that its level is called by."""
    for rule in rules("recording.yml"):

        def values(name: str = rule["record"]) -> list[dict[str, Any]]:
            found = watched.prometheus.query(name)
            return found if any(math.isfinite(float(series["value"][1])) for series in found) else []

        found = wait_until(values, what=rule["record"])
        level = rule["record"].partition(":")[0]
        assert all(level in series["metric"] or level == "version" for series in found), rule["record"]


def test_every_alert_compares_something(watched: Eventful) -> None:
    """Asked for true or false instead of for what is true, its expression has an answer; Prometheus finds no fault."""

    def silent() -> list[str]:
        return [name for name, asked in compared.items() if name not in SILENT and not watched.prometheus.query(asked)]

    compared = {
        rule["alert"]: re.sub(r"\s(>=|<=|==|!=|>|<)\s", r" \1 bool ", rule["expr"]) for rule in rules("alerts.yml")
    }
    assert not _lasting(silent)
    groups = watched.prometheus.ask("rules")["groups"]
    faults = [rule["lastError"] for group in groups for rule in group["rules"] if rule["health"] != "ok"]
    assert not faults
    assert sum(len(group["rules"]) for group in groups) == len([*rules("recording.yml"), *rules("alerts.yml")])


def test_what_happened_is_what_fires(watched: Eventful) -> None:
    """The route that went back and the route that fails; nothing about a store, a replica or a dropped event."""
    wait_until(lambda: _alert(watched, "TurnoutRollback"), what="the alert of the rollback")
    burning = wait_until(lambda: _alert(watched, "TurnoutErrorBurnFast"), what="the alert of the errors")
    assert "bare" in {one["metric"]["route"] for one in burning}
    for quiet in ("TurnoutStoreDown", "TurnoutReplicaLag", "TurnoutTelemetryDropped", "TurnoutDown", "TurnoutRefused"):
        assert not _alert(watched, quiet, alertstate="firing")  # one that is pending is told to nobody


def _alert(watched: Eventful, name: str, **labels: str) -> list[dict[str, Any]]:
    chosen = ",".join(f'{label}="{value}"' for label, value in {"alertname": name, **labels}.items())
    return watched.prometheus.query(f"ALERTS{{{chosen}}}")


def test_label_sets_stay_bounded_whatever_names_are_asked_and_however_many_versions_come_and_go(tmp_path: Path) -> None:
    """1,000 names that are no route, no model and no version; 100 versions one after the other: as many series as
    before, on the gateway and in Prometheus, and none that names what is gone or never was."""
    with LiveGateway(tmp_path / "home", settings={"runtimes": {"preload": ["echo"]}}) as gateway:
        target = {"turnout": [f"127.0.0.1:{gateway.port}"]}
        with PrometheusServer(tmp_path / "prometheus", target, every="500ms") as prometheus:
            for number in range(1, 4):
                _serve_next(gateway, number)
            _ask_for_nothing(gateway, "nothing", 3)
            wait_until(lambda: _versions(gateway) == {"3"}, what="the end of the version before")
            wait_until(lambda: _recorded(gateway), what="the series of the recorder, which starts beside the gateway")
            before = _series(gateway)
            for number in range(4, 104):
                _serve_next(gateway, number)
            _ask_for_nothing(gateway, "made-up", 333)
            wait_until(lambda: _versions(gateway) == {"103"}, what="the end of all versions but the last")
            after = _series(gateway)
            assert len(after) == len(before)
            assert not [line for line in after if "made-up" in line]
            here = 'count({__name__=~"gateway_.+"})'
            wait_until(lambda: prometheus.value(here) == _rendered(gateway), what="as many series in Prometheus")


def _serve_next(gateway: LiveGateway, number: int) -> None:
    script = {"outputs": {"y": number}}
    assert gateway.register_echo(ROUTE, f"v{number}", script, verify=False, signature=SIGNATURE) == number
    split = [{"version": number, "weight": 1}]
    gateway.put_route(ROUTE, {"model": ROUTE, "split": split, "known_good": number})
    assert gateway.predict(ROUTE, [ROW]).json()["version"] == number


def _ask_for_nothing(gateway: LiveGateway, name: str, times: int) -> None:
    """Three kinds of names that clients can make up."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW}
    for number in range(times):
        assert gateway.predict(f"{name}-{number}", [ROW]).status_code == 404
        for path in (f"{name}-{number}", f"{ROUTE}/versions/{90000 + number}"):
            assert gateway.client.post(f"/v2/models/{path}/infer", json={"inputs": [tensor]}).status_code == 404


def _series(gateway: LiveGateway) -> set[str]:
    """Names and labels of all that is ours."""
    return {line.rpartition(" ")[0] for line in gateway.metrics().splitlines() if line.startswith("gateway_")}


def _versions(gateway: LiveGateway) -> set[str]:
    """Those that series are told of."""
    return {version for line in _series(gateway) for version in re.findall(r'version="(\d+)"', line)}


def _recorded(gateway: LiveGateway) -> bool:
    return re.search(r"^gateway_decision_log_records_total [1-9]", gateway.metrics(), re.MULTILINE) is not None


def _rendered(gateway: LiveGateway) -> int:
    return len(_series(gateway))
