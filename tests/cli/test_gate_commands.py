"""Gates from the command line: the same words on a home and on a gateway, and what a CI reads of them."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from xml.etree import ElementTree as ET

import pytest

from loadtests.live_gateway import LiveGateway
from tests.cli.conftest import Turnout
from tests.registry.gates.workshop import CODE, holdout_file

GATES = """
data:
  holdout: {file: data/holdout.npz, label: y, groups: [sex]}
gates:
  - {kind: metric, data: holdout, metric: accuracy, at_least: 0.97}
  - {kind: champion, data: holdout, metric: accuracy}
  - {kind: python, file: check.py}
"""
TRAITS = {"width": 4, "delay_s": 0.0, "held_mb": 0, "shift": 0.0, "more": "pass"}


@pytest.fixture(params=["home", "gateway"])
def turnout(request: pytest.FixtureRequest) -> Turnout:
    return request.getfixturevalue("local" if request.param == "home" else "remote")  # type: ignore[no-any-return]


def version(turnout: Turnout, model: str, wrong: float) -> None:
    path = turnout.folder / f"{model}-{wrong}.py"
    path.write_text(CODE.format(wrong=wrong, **TRAITS))
    turnout.done("register", model, path)


def declared(turnout: Turnout, model: str) -> Path:
    (turnout.folder / "data").mkdir(exist_ok=True)
    holdout_file(turnout.folder / "data" / "holdout.npz", rows=1000)
    (turnout.folder / "check.py").write_text("def check(version):\n    return {'passed': True, 'numbers': {'n': 1}}\n")
    file = turnout.folder / "gates.yaml"
    file.write_text(GATES)
    turnout.done("gates", model, "-f", file)
    return file


def test_a_model_asks_and_its_versions_show(turnout: Turnout, request: pytest.FixtureRequest) -> None:
    """Declared with files beside the file, run with a verdict, promoted or not, overridden with a reason."""
    model = f"gated-{request.node.callspec.id}"
    version(turnout, model, 0.0)
    version(turnout, model, 0.2)
    declared(turnout, model)
    shown = turnout.done("gates", model)
    assert "holdout.npz" in shown.out
    assert "accuracy beside the champion on holdout" in shown.out
    good = turnout.done("gate", f"{model}/1", "--json").json
    assert (good["passed"], good["gates"][0]["numbers"]["rows"]) == (True, 1000)
    assert turnout.done("promote", f"{model}/1", "--alias", "champion").out == f"{model}@champion is {model}/1\n"
    junit = turnout.folder / "report.xml"
    bad = turnout("gate", f"{model}/2", "--against", "champion", "--junit", junit)
    assert bad.status == 1
    assert f"{model}/2 does not pass, beside {model}/1" in bad.out
    assert "asked is at least 0.97" in bad.out
    suite = ET.fromstring(junit.read_bytes())[0]  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    refused = turnout("promote", f"{model}/2", "--alias", "champion")
    assert refused.status == 1
    assert "does not pass the gates of its model: accuracy on holdout: accuracy is 0.8" in refused.err
    assert turnout.done("show", f"{model}@champion", "--json").json["version"] == 1
    over = turnout.done("promote", f"{model}/2", "--alias", "champion", "--override", "the holdout of May is wrong")
    assert "the holdout of May is wrong" in over.err
    last = turnout("gate", f"{model}/2", "--last")
    assert (last.status, "Overridden for alias:champion" in last.err) == (1, True)
    assert turnout.done("gates", model, "--remove").err == f"Model {model} asks nothing of its versions.\n"
    assert "declares no gates" in turnout("gate", f"{model}/1").err


def test_what_is_asked_wrongly_is_refused_in_words(local: Turnout) -> None:
    version(local, "wrong", 0.0)
    file = local.folder / "gates.yaml"
    for text, said in (
        ("gates: [{kind: golden, tolerence: 1}]", "did you mean 'tolerance'"),
        ("data: {h: {file: nowhere.npz, label: y}}\ngates: [{kind: golden}]", "there is no file"),
        ("gates: {}", "gates.gates is {}"),
    ):
        file.write_text(text)
        found = local("gates", "wrong", "-f", file)
        assert (found.status, said in found.err) == (1, True), found
    assert local("gate", "wrong").status == 2
    assert local("gates", "wrong", "-f", file, "--remove").status == 2
    assert "never run" in local("gate", "wrong/1", "--last").err


def test_an_override_over_http_is_an_administrators(live: LiveGateway, remote: Turnout) -> None:
    """An operator moves aliases, and passes no gate that refuses; the refusal carries the report."""
    version(remote, "guarded", 0.2)
    declared(remote, "guarded")
    operator = remote.done("tokens", "create", "olga", "--role", "operator", "--json").json["token"]
    refused = put(live, operator, "/admin/models/guarded/aliases/champion", {"version": 1})
    assert (refused["status"], refused["type"]) == (409, "urn:turnout:problem:gate-refused")
    assert refused["report"]["gates"][0]["numbers"]["value"] < 0.9
    denied = put(live, operator, "/admin/models/guarded/aliases/champion", {"version": 1, "override": "please"})
    assert denied["status"] == 403
    assert put(live, operator, "/admin/models/guarded/gates", {"gates": [{"kind": "golden"}]})["status"] == 403
    moved = put(live, live.token, "/admin/models/guarded/aliases/champion", {"version": 1, "override": "we know"})
    assert moved["aliases"] == {"champion": 1}
    found = remote.done("audit", "--json").json
    records = found["records"] if isinstance(found, dict) else found
    assert [row["reason"] for row in records if row["action"] == "gates-override"][-1] == "we know"
    metrics = urllib.request.urlopen(f"{live.url}/metrics").read().decode()  # noqa: S310 - loopback
    assert 'gateway_gate_overrides_total{model="guarded"} 1.0' in metrics
    assert 'gateway_gate_runs_total{model="guarded",outcome="failed"} 1.0' in metrics


def put(live: LiveGateway, token: str, path: str, body: Any) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{live.url}{path}", json.dumps(body).encode(), headers, method="PUT"
    )
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310 - loopback
            found: dict[str, Any] = json.load(response)
    except HTTPError as error:
        with error:
            found = json.load(error)
    return found
