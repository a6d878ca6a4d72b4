"""Rules and alerts: Prometheus's own tool takes them, each is tried both ways and leads to a section of the runbook."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.prometheus_server import CONFIG, find_prometheus

ROOT = Path(__file__).parent.parent
TESTS = sorted((CONFIG / "tests").glob("*_test.yml"))
RUNBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

needs_promtool = pytest.mark.skipif(find_prometheus() is None, reason="no prometheus here: apt-get install prometheus")


def rules(name: str) -> Iterator[dict[str, Any]]:
    body = yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))
    yield from (rule for group in body["groups"] for rule in group["rules"])


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, words)], check=False, capture_output=True, text=True, timeout=250)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def tried(alert: str) -> tuple[bool, bool]:
    """Whether some test says that it fires, and some that it does not."""
    fires = quiet = False
    for path in TESTS:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for case in test["promql_expr_test"]:
                if f'alertname="{alert}"' in case["expr"]:
                    fires, quiet = fires or bool(case["exp_samples"]), quiet or not case["exp_samples"]
    return fires, quiet


def anchors() -> set[str]:
    """Of the runbook's headings, as Markdown's readers make them."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@needs_promtool
def test_prometheus_takes_the_scrape_file_and_the_rules() -> None:
    """``promtool check config`` reads the rules, too."""
    assert "SUCCESS" in promtool("check", "config", CONFIG / "prometheus.yml")
    promtool("check", "rules", CONFIG / "recording.yml", CONFIG / "alerts.yml")


@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_every_alert_fires_when_it_shall_and_not_when_it_shall_not(path: Path) -> None:
    """``promtool test rules`` on made-up series: the bad one beside a good one, and the time before."""
    assert "SUCCESS" in promtool("test", "rules", path)


@pytest.mark.parametrize("alert", ALERTS)
def test_no_alert_is_left_untried(alert: str) -> None:
    """Each has a case in which it fires, and one in which it does not."""
    assert tried(alert) == (True, True)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_was_seen_and_what_to_do(alert: str) -> None:
    """How bad it is, what and where, the value, the first step, and where the rest is written."""
    rule = ALERTS[alert]
    said = rule["annotations"]
    assert sorted(said) == ["action", "description", "runbook_url", "summary"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert "{{ $labels." in said["summary"]
    assert "$value" in said["description"] or alert in {"TurnoutDown", "TurnoutVersionFailed"}
    path, _, anchor = said["runbook_url"].partition("#")
    assert (path, anchor) == ("docs/operations.md", alert.lower())
    assert anchor in anchors()


def test_the_runbook_has_no_section_for_an_alert_that_is_gone() -> None:
    """And each section says what it means, what to look at, what to do, and how to be sure."""
    sections = dict(re.findall(r"^### (Turnout\w+)$\n(.*?)(?=^##)", RUNBOOK + "\n##", re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(ALERTS)
    for name, text in sections.items():
        for part in ("**Means**", "**Look**", "**Do**", "**Sure**"):
            assert part in text, f"{name} lacks {part}"


def test_commands_that_alerts_name_are_commands() -> None:
    """What to do at night must not end in "no such command"."""
    known = set(re.findall(r"`turnout ([a-z-]+)", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")))
    for name, rule in ALERTS.items():
        named = set(re.findall(r"\bturnout ([a-z-]+)", rule["annotations"]["action"]))
        assert named <= known, name


def test_rules_ask_for_metrics_that_are_there() -> None:
    """A rule over a metric that never comes is silent for ever."""
    known = {name for path in (ROOT / "gateway" / "telemetry").rglob("*.py") for name in _named(path)}
    recorded = {rule["record"] for rule in rules("recording.yml")}
    for rule in (*rules("recording.yml"), *rules("alerts.yml")):
        for name in re.findall(r"(?:\w+:)?\bgateway_\w+(?::\w+)?", rule["expr"]):
            bare = re.sub(r"_(bucket|sum|count|total)$", "", name)
            assert name in recorded or name in known or bare in known, (
                f"{name}: {rule.get('alert', rule.get('record'))}"
            )


def _named(path: Path) -> set[str]:
    return set(re.findall(r'"(gateway_[a-z_0-9]+)"', path.read_text(encoding="utf-8")))
