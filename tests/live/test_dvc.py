"""From training under DVC to a served answer: two commits with two versions of the data, both in service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.live_gateway import LiveGateway

SCRIPT = Path(__file__).parent.parent / "registry" / "sources" / "dvc_project.py"
ROWS = [[88.0, 3.0], [29.0, 14.0]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A repository whose pipeline ran twice, and its two commits."""
    folder = tmp_path_factory.mktemp("project")
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / "site")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / "repo"), "../../remote"],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "repo", done.stdout.split()


@pytest.fixture(scope="module")
def gateway(project: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    allowed = {"registry": {"source_directories": [str(project[0].parent)]}}
    with LiveGateway(tmp_path_factory.mktemp("gateway") / "home", settings=allowed) as running:
        yield running


def _register(gateway: LiveGateway, place: str, **options: Any) -> Any:
    return gateway.admin("POST", "/models/fraud/versions", {"source": f"dvc:{place}", **options}, timeout=240.0)


def _turnout(gateway: LiveGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TURNOUT_URL": gateway.url, "TURNOUT_TOKEN": gateway.token, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments], env=environment, check=False, capture_output=True, text=True
    )


@pytest.mark.timeout(900)
def test_two_commits_are_served_and_compared_and_a_moved_tag_is_refused(
    gateway: LiveGateway, project: tuple[Path, list[str]]
) -> None:
    """Both answer on one route; ``turnout compare`` names the data, and nothing that did not change."""
    repo, (one, two) = project
    first = _register(gateway, f"{repo}:fraud@v1.0.0")
    second = _register(gateway, f"{repo}@main:models/fraud")
    assert (first["version"], second["version"]) == (1, 2)
    assert (first["imported"]["version"], second["imported"]["version"]) == ("v1.0.0", two)
    assert second["imported"]["alias"] == "main"
    assert _register(gateway, f"{repo}@{two}:models/fraud")["version"] == 2, "the same commit is the same version"

    gateway.put_route(
        "fraud", {"model": "fraud", "split": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]}
    )
    answers = {}
    for number in range(64):
        answer = gateway.predict("fraud", ROWS, key=f"payment-{number}").json()
        answers[answer["version"]] = answer["outputs"]["fraud"]
    assert answers == {1: [1, 0], 2: [1, 0]}

    shown = gateway.admin("GET", "/models/fraud/versions/1")["manifest"]
    assert shown["lineage"]["code"]["commit"] == one
    assert shown["lineage"]["source"]["system"] == "dvc"
    said = _turnout(gateway, "compare", "fraud/1", "fraud/2")
    assert "data/raw.csv" in said.stdout, said.stdout + said.stderr
    assert "shrink" not in said.stdout, "parameters are the same in both"

    subprocess.run(["git", "-C", str(repo), "tag", "-d", "fraud@v1.0.0"], check=True, capture_output=True)
    tag = ["tag", "-a", "-m", "again", "fraud@v1.0.0", two]
    subprocess.run(["git", "-C", str(repo), *tag], check=True, capture_output=True)
    again = {"source": f"dvc:{repo}:fraud@v1.0.0"}
    refused = gateway.admin("POST", "/models/fraud/versions", again, expect=422, timeout=240.0)
    assert "overwritten in place" in json.dumps(refused)
    assert "fraud/1" in json.dumps(refused)
    assert gateway.predict("fraud", ROWS).status_code == 200
