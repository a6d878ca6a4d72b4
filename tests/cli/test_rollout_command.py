"""``turnout rollout`` as a user runs it: on a gateway, on a home, and when it is asked wrongly; and what it shows."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from gateway.cli.rollout_view import picture, sentence
from loadtests.live_gateway import LiveGateway, wait_until
from tests.cli.conftest import Turnout, echo_source

PLAN = """\
candidate: 2
shadow: null
steps: [{weight: 10, gate: manual, min_s: 0, min_requests: 0}, 50]
needs: []
bake: null
"""
MODELS = iter(f"rolled-{number}" for number in range(100))


@pytest.fixture
def name() -> str:
    """The gateway is shared: each test has a route of its own."""
    return next(MODELS)


def served(turnout: Turnout, name: str) -> None:
    for number in (1, 2):
        source = echo_source(turnout.folder, f"{name}-{number}", outputs={"y": float(number)})
        turnout.done("register", name, source)
    path = turnout.folder / f"{name}.yaml"
    path.write_text(f"route: {name}\nmodel: {name}\nsplit: [{{version: 1, weight: 100}}]\nknown_good: 1\n")
    turnout.done("apply", "-f", path)
    (turnout.folder / "plan.yaml").write_text(PLAN)


def phase(turnout: Turnout, name: str) -> str:
    return str(turnout.done("rollout", name, "--status", "--json").json["rollout"]["phase"])


def test_a_rollout_is_begun_steered_and_reported(remote: Turnout, live: LiveGateway, name: str) -> None:
    """From a plan in a file to its end by hand; the exit status of --watch tells that it was not promoted."""
    served(remote, name)
    begun = remote.done("rollout", name, "--plan", "plan.yaml")
    assert f"route {name}: version 2 is preparing at 0%" in begun.out
    wait_until(lambda: phase(remote, name) == "waiting", what="the gate")
    wait_until(lambda: "an operator promotes" in remote.done("rollout", name, "--status").out, what="its reason")
    refused = remote("weights", name, "1=1", "2=1")
    assert (refused.status, "--abort" in refused.err) == (1, True)
    again = remote("rollout", name, "2")
    assert (again.status, "a rollout runs already" in again.err) == (1, True)
    assert "at 50%" in remote.done("rollout", name, "--promote").out
    assert "paused at 50%" in remote.done("rollout", name, "--pause", "--reason", "lunch").out
    assert "lunch" in remote.done("rollout", name, "--status").out
    remote.done("rollout", name, "--resume")
    remote.done("rollout", name, "--abort", "--reason", "enough seen")
    watched = remote("rollout", name, "--watch")
    assert (watched.status, "Verdict    aborted" in watched.out) == (1, True)
    report = remote.done("rollout", name, "--report").out
    assert "Reason     enough seen" in report
    assert "50%" in report
    assert live.route(name)["status"]["split"] == [{"version": 1, "weight": 100}]


def test_a_promotion_ends_a_watch_with_success(remote: Turnout, name: str) -> None:
    """Blue-green without waiting for anything: one step to the end."""
    served(remote, name)
    (remote.folder / "plan.yaml").write_text(PLAN.replace(", gate: manual", "").replace(", 50]", "]"))
    done = remote("rollout", name, "--plan", "plan.yaml", "--watch")
    assert (done.status, "Verdict    promoted" in done.out) == (0, True)
    assert "2=100" in remote.done("routes").out


WRONG = (
    (("--promote", "--abort"), 2, "give one of them"),
    (("2", "--abort"), 2, "leave version and plan out"),
    (("2", "--steps", "five"), 2, "percents like"),
    (("2", "--steps", "50,5"), 1, "more weight than the one before"),
    (("2", "--steps", "50,5"), 1, "steps: each with"),
    (("--steps", "5,50"), 2, "name its version too"),
    (("--status", "--full"), 2, "--full goes with --promote"),
    (("2", "--reason", "why not"), 2, "--reason goes with"),
    (("2", "--preset", "yolo"), 1, "careful or blue-green"),
    (("--plan", "none.yaml"), 1, "none.yaml"),
    (("9",), 1, "no version 9"),
    (("1",), 1, "known good already"),
    (("--report",), 1, "no rollout"),
    (("--promote",), 1, "no rollout runs"),
)


def test_what_is_asked_wrongly_is_answered_in_one_line(local: Turnout) -> None:
    """On standard error, with what to do instead. Then a rollout that a gateway will drive is begun and aborted in the
    documents, and nothing drives it meanwhile."""
    served(local, "digits")
    for words, status, expected in WRONG:
        found = local("rollout", "digits", *words)
        assert (found.status, found.out) == (status, ""), words
        assert expected in found.err
    assert "preparing" in local.done("rollout", "digits", "2", "--steps", "1,5,25,50,100").out
    steps = local.done("rollout", "digits", "--json").json["rollout"]["plan"]["steps"]
    assert [step["weight"] for step in steps] == [1.0, 5.0, 25.0, 50.0, 100.0]
    assert "aborted" in local.done("rollout", "digits", "--abort").out


def test_a_plan_by_scores_that_answers_do_not_have_does_not_begin(local: Turnout) -> None:
    """By the signatures, before any label: it would wait without end."""
    served(local, "digits")
    truth = "truth: {task: classification, output: y, score: p}\n"
    path = local.folder / "digits.yaml"
    path.write_text(path.read_text() + truth)
    local.done("apply", "-f", path)
    (local.folder / "plan.yaml").write_text(PLAN + "score: {of: brier, worst: 1, best: 0}\n")
    refused = local("rollout", "digits", "--plan", "plan.yaml")
    assert refused.status == 1
    assert "version 1 has none in 'p' (truth.score): it has y" in refused.err
    path.write_text(path.read_text().replace(", score: p", ""))
    local.done("apply", "-f", path)
    assert "preparing" in local.done("rollout", "digits", "--plan", "plan.yaml").out


def stream(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"verdict": "not-enough", "required": True, "needed": 180, "expected_s": 42.0}
    found |= {"candidate": {"units": 60, "bad": 1}, "baseline": {"units": 1140, "bad": 9}}
    found |= {"log_harm": 0.3, "harm_threshold": 4.0, "log_health": 1.5, "health_threshold": 3.0}
    return found | changes


def view(**live: Any) -> dict[str, Any]:
    plan = {"steps": [{"weight": 5.0}, {"weight": 50.0}], "bake": {"holdback": 2}, "shadow": {"first": True}}
    rollout = {"candidate": 4, "phase": "stepping", "percent": 5.0, "step": 0, "reason": "", "plan": plan}
    return {"route": "digits", "running": True, "rollout": rollout, "live": live}


def drawn(shown: dict[str, Any]) -> str:
    console = Console(file=StringIO(), width=160, force_terminal=False)
    console.print(picture(shown))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_meter_shows_what_was_seen_what_is_needed_and_how_long() -> None:
    """A row for each stream; a harmful one is filled towards harm."""
    streams = {"error": stream(), "slow": stream(verdict="healthy", required=False)}
    text = drawn(view(judgement={"streams": streams}, waits=["error: not enough yet, about 180 more"]))
    assert "shadow > [5%] > 50% > bake" in text
    error, slow = (line for line in text.splitlines() if "60" in line and "1140" in line)
    assert error.split()[:4] == ["error", "not-enough", "1/60", "9/1140"]
    assert ("180" in error, "42 s" in error) == (True, True)
    assert "slow (watched)" in slow
    assert "waits for error" in text


def test_a_rollout_of_which_nothing_is_known_yet_is_still_a_line() -> None:
    """Before the first round, and from a home that nobody serves."""
    assert sentence(view()) == "route digits: version 4 is stepping at 5%"
    assert "digits" in drawn(view())


def test_a_paused_rollout_says_why_and_nothing_that_it_waited_for_before() -> None:
    """What its driver last told may be older than the pause."""
    shown = view(waits=["30 s more"])
    shown["rollout"] |= {"phase": "paused", "reason": "lunch"}
    assert sentence(shown).endswith("is paused at 5%: lunch")
    assert "30 s more" not in drawn(shown)
