"""Targets, tokens and secrets on a running gateway, as people use them; and targets on a home without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtests.live_gateway import LiveGateway, wait_until
from tests.cli.conftest import Turnout, echo_source
from tests.cli.warm import WarmCommands

TARGETS: dict[str, Any] = {
    "development": {"gates": "none"},
    "staging": {"from": ["development"]},
    "production": {
        "from": ["staging"],
        "role": "admin",
        "reason": "required",
        "rollout": {
            "steps": [{"weight": 10, "gate": "manual", "min_s": 0, "min_requests": 0}],
            "shadow": None,
            "needs": [],
            "bake": None,
        },
    },
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("targets")
    (folder / "hook").write_text("first", encoding="utf-8")
    settings = {
        "targets": TARGETS,
        "server": {"workers": 2},
        "webhooks": {"secrets": {"ops": {"file": str(folder / "hook")}}},
    }
    with LiveGateway(folder / "home", settings=settings) as running:
        yield running


@pytest.fixture
def turnout(gateway: LiveGateway, tmp_path: Path, commands: WarmCommands) -> Turnout:
    return Turnout({"TURNOUT_URL": gateway.url, "TURNOUT_TOKEN": gateway.token}, tmp_path, commands)


def registered(gateway: LiveGateway, name: str, versions: int) -> None:
    for number in range(1, versions + 1):
        gateway.register_echo(name, f"{name}-{number}", {"outputs": {"y": float(number)}})


def promoted(gateway: LiveGateway, version: str, *targets: str, **body: Any) -> None:
    model, _, number = version.partition("/")
    for target in targets:
        gateway.admin("PUT", f"/models/{model}/targets/{target}", {"version": int(number), **body})


def routed(gateway: LiveGateway, name: str, model: str, target: str) -> None:
    spec = {"model": model, "split": [{"version": 1, "weight": 100}], "target": target}
    gateway.put_route(name, spec)


def test_from_development_to_production_with_a_rollout_and_back(gateway: LiveGateway, turnout: Turnout) -> None:
    """The path, the reason, the rollout that begins, who may, the history; what is refused says what to type."""
    registered(gateway, "fraud", 2)
    refused = turnout("promote", "fraud/1", "--to", "production", "--reason", "x")
    assert refused.status == 1
    assert "The path is development → staging → production. Next: turnout promote fraud/1 --to devel" in refused.err
    assert turnout.done("promote", "fraud/1", "--to", "development").out == "fraud/1 stands in development\n"
    promoted(gateway, "fraud/1", "staging")
    assert "target production wants to know why" in turnout("promote", "fraud/1", "--to", "production").err
    done = turnout.done("promote", "fraud@staging", "--to", "production", "--reason", "the first")
    assert done.out == "fraud/1 stands in production\n"
    routed(gateway, "fraud", "fraud", "production")
    wrong = turnout("weights", "fraud", "1=50", "2=50")
    assert (wrong.status, "promote it first: turnout promote fraud/2 --to production" in wrong.err) == (1, True)
    promoted(gateway, "fraud/2", "development", "staging")
    done = turnout.done("promote", "fraud/2", "--to", "production", "--reason", "better")
    assert done.out.startswith("fraud/2 stands in production, in place of fraud/1\nroute fraud: rollout 2-")
    rollout = "/routes/fraud/rollout"
    wait_until(lambda: gateway.admin("GET", rollout)["rollout"]["phase"] == "waiting", what="the gate of a step")
    gateway.admin("DELETE", rollout, {"reason": "enough seen"})
    taken = turnout.done("demote", "fraud/2", "--from", "production", "--reason", "worse", "--roll-back")
    assert taken.out == "fraud/2 is out of production; fraud/1 stands there\n"
    history = turnout.done("targets", "fraud", "--history").out
    for words in ("the first", "better", "demoted by admin", "superseded by admin", "admin (returned)"):
        assert words in history
    assert "fraud 1=100" in turnout.done("targets", "fraud").out
    assert gateway.admin("GET", "/models/fraud/versions/@production")["version"] == 1
    assert [row["target"] for row in turnout.done("targets", "--json").json] == list(TARGETS)


def test_a_token_reaches_the_targets_that_its_routes_serve(gateway: LiveGateway) -> None:
    """One bound to the routes of staging promotes there and nowhere else; and production wants another role."""
    registered(gateway, "loans", 3)
    promoted(gateway, "loans/1", "development", "staging")
    promoted(gateway, "loans/3", "development")
    for name in ("loans-one", "loans-two"):
        routed(gateway, name, "loans", "staging")
    one, both = (
        gateway.admin("POST", "/tokens", {"name": f"of-{len(routes)}", "role": "operator", "routes": routes})["token"]
        for routes in (["loans-one"], ["loans-one", "loans-two"])
    )

    def ask(secret: str, target: str, **body: Any) -> httpx.Response:
        url, headers = f"{gateway.url}/admin/models/loans/targets/{target}", {"authorization": f"Bearer {secret}"}
        return httpx.put(url, json={"version": 3, **body}, headers=headers, timeout=90)

    said = ask(one, "staging").json()
    assert (said["status"], "route 'loans-two' serves target staging, and token 'of-1'" in said["detail"]) == (
        403,
        True,
    )
    answer = ask(both, "staging")
    assert (answer.status_code, answer.json()["standing"]["by"]) == (200, "of-2")
    assert int(answer.headers["etag"].strip('"')) == answer.json()["revision"]
    said = ask(both, "development").json()
    assert (said["status"], "no route of this model serves development" in said["detail"]) == (403, True)
    said = ask(both, "production", reason="x").json()
    assert (said["status"], "target production needs admin or above" in said["detail"]) == (403, True)
    assert ask(both, "staging", override="because").status_code == 403
    (entry,) = [
        record
        for record in gateway.admin("GET", "/audit?limit=1000")["records"]
        if record["action"] == "promote" and record["actor"] == "of-2"
    ]
    assert entry["detail"]["target"] == "staging"


def test_a_rotated_token_answers_with_both_secrets_for_the_grace_on_every_worker(
    gateway: LiveGateway, turnout: Turnout
) -> None:
    """No restart, no gap; then the old one is let go at once, and every process knows it when the call returns."""
    registered(gateway, "guarded", 1)
    path = turnout.folder / "guarded.yaml"
    path.write_text(
        "route: guarded\nmodel: guarded\nsplit: [{version: 1, weight: 1}]\naccess: token\n", encoding="utf-8"
    )
    turnout.done("apply", "-f", path)
    first = turnout.done("tokens", "create", "shop", "--role", "predict", "--route", "guarded", "--json").json["token"]
    wait_until(lambda: asked(gateway, first) == {200}, what="the route")
    rotated = turnout.done("tokens", "rotate", "shop", "--grace", "1h", "--json").json
    second = rotated["token"]
    assert rotated["old_until"] - rotated["rotated_at"] == 3600
    assert (asked(gateway, first), asked(gateway, second)) == ({200}, {200})
    assert "OLD SECRET UNTIL" in turnout.done("tokens", "list").out
    third = gateway.admin("POST", "/tokens/shop/rotate")["token"]
    assert [asked(gateway, secret) for secret in (first, second, third)] == [{401}, {401}, {200}]
    wrong = turnout("tokens", "rotate", "shop", "--grace", "soon")
    assert (wrong.status, "--grace is 'soon'; expected a time like 90s" in wrong.err) == (2, True)


def asked(gateway: LiveGateway, secret: str) -> set[int]:
    """The statuses of some requests, each on a connection of its own, so that both workers get some."""
    headers, body = {"authorization": f"Bearer {secret}"}, {"inputs": [[1.0, 2.0, 3.0, 4.0]]}
    url = f"{gateway.url}/predict/guarded"
    apart = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(headers=headers, timeout=90, limits=apart) as client:
        return {client.post(url, json=body).status_code for _ in range(20)}


def test_a_secret_is_rotated_under_a_running_gateway_and_one_that_goes_away_is_told(
    gateway: LiveGateway, turnout: Turnout
) -> None:
    """By the file alone, or at once when asked; ``/readyz`` says what cannot be read again. Never a secret."""
    kept = gateway.home.parent / "hook"
    shown = turnout.done("config", "secrets")
    assert "webhooks.secrets.ops" in shown.out
    kept.write_text("second-and-longer", encoding="utf-8")
    done = turnout.done("config", "secrets", "--refresh", "--json").json
    (row,) = done["secrets"]
    assert row["rotations"] == 1
    assert "second-and-longer" not in json.dumps(done)
    kept.unlink()
    degraded = "secret webhooks.secrets.ops cannot be read again"
    wait_until(lambda: degraded in httpx.get(f"{gateway.url}/readyz", timeout=90).text, what="the trouble")
    assert httpx.get(f"{gateway.url}/readyz", timeout=90).status_code == 200
    troubled = turnout("config", "secrets")
    assert (troubled.status, "cannot be read: No such file" in troubled.out) == (1, True)
    kept.write_text("third", encoding="utf-8")
    wait_until(lambda: degraded not in httpx.get(f"{gateway.url}/readyz", timeout=90).text, what="its end")
    assert "second-and-longer" not in gateway.log_path.read_text(encoding="utf-8")
    assert "third" not in gateway.log_path.read_text(encoding="utf-8")


def test_a_home_without_a_gateway_takes_its_targets_from_the_configuration(local: Turnout) -> None:
    """The same commands; without a configuration there are none, and the refusal says where they are named."""
    local.done("register", "fraud", echo_source(local.folder))
    none = local("promote", "fraud/1", "--to", "staging")
    assert (none.status, "name some under targets in the settings (--config on a home)" in none.err) == (1, True)
    path = local.folder / "gateway.yaml"
    path.write_text(yaml.safe_dump({"targets": TARGETS}), encoding="utf-8")
    for target in ("development", "staging"):
        local.done("promote", "fraud/1", "--to", target, "--config", path)
    assert "fraud/1 may go to production next." in local.done("targets", "fraud", "--config", path).err
    out = local.done("demote", "fraud/1", "--from", "staging", "--config", path).out
    assert out == "fraud/1 is out of staging; nothing stands there now\n"
    assert local("promote", "fraud/1", "--to", "a", "--alias", "b").status == 2
    assert local("targets", "--config", path, TURNOUT_URL="http://127.0.0.1:1").status == 2
