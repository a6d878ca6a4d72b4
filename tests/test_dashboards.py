"""Grafana's files: as checked in they are what ``dashboards`` writes, whole, and of one mind with the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.generate import FOLDER, files
from dashboards.panels import PROMETHEUS
from dashboards.provisioning import BOARDS_FOLDER, JAEGER

BOARDS = {path.stem: json.loads(text) for path, text in files().items() if path.suffix == ".json"}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def every_panel() -> list[Any]:
    return [
        pytest.param(panel, id=f"{name}: {panel['title']}") for name, board in BOARDS.items() for panel in panels(board)
    ]


def test_the_files_are_what_the_program_writes() -> None:
    """After a change to ``dashboards``, ``make dashboards`` writes them anew; nobody edits them by hand."""
    written = {path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.is_file()}
    assert written == set(files())
    for name, text in files().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run make dashboards"


def test_there_are_four_boards_each_of_its_own_name() -> None:
    """One to begin with, one for a route, one for a rollout, one for drift and truth; each leads to the others."""
    assert sorted(BOARDS) == ["drift-and-truth", "overview", "rollout", "route"]
    assert len({board["uid"] for board in BOARDS.values()}) == 4
    for board in BOARDS.values():
        assert board["tags"] == ["turnout"]
        assert {link["type"] for link in board["links"]} == {"dashboards", "link"}


@pytest.mark.parametrize("panel", every_panel())
def test_a_panel_says_what_it_shows_and_in_what_unit(panel: dict[str, Any]) -> None:
    """A title, a sentence or two, a unit, and the one Prometheus that the provisioning names."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    heat = panel["type"] == "heatmap"
    assert (panel["options"]["yAxis"] if heat else panel["fieldConfig"]["defaults"])["unit"]
    assert panel["datasource"]["uid"] == PROMETHEUS.uid
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_panels_have_ids_of_their_own_and_lie_on_no_other(board: dict[str, Any]) -> None:
    """Grafana's grid is 24 wide; a panel across its edge is drawn over another."""
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_variable_that_an_expression_names_is_one_of_the_board(board: dict[str, Any]) -> None:
    """And each that the board has is used."""
    text = json.dumps([board["panels"], board["annotations"], [one["query"] for one in board["templating"]["list"]]])
    used = {name for name in re.findall(r"\$\{?(\w+)", text) if not name.startswith("__")}
    assert used == {variable["name"] for variable in board["templating"]["list"]}


def test_the_boards_ask_the_prometheus_that_is_provisioned_and_exemplars_lead_to_the_traces() -> None:
    """One address for both, in one file."""
    body = yaml.safe_load((FOLDER / "provisioning/datasources/turnout.yaml").read_text(encoding="utf-8"))
    prometheus, jaeger = body["datasources"]
    assert (prometheus["uid"], jaeger["uid"]) == (PROMETHEUS.uid, JAEGER)
    [exemplars] = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert exemplars["datasourceUid"] == jaeger["uid"]
    assert exemplars["name"] == "trace_id"
    assert any(
        target.get("exemplar") for board in BOARDS.values() for panel in panels(board) for target in panel["targets"]
    )


def test_grafana_looks_for_the_boards_where_they_are_mounted() -> None:
    """The folder of the provider is the one that compose.yaml mounts."""
    body = yaml.safe_load((FOLDER / "provisioning/dashboards/turnout.yaml").read_text(encoding="utf-8"))
    assert [provider["options"]["path"] for provider in body["providers"]] == [BOARDS_FOLDER]
    compose = yaml.safe_load((Path(__file__).parent.parent / "compose.yaml").read_text(encoding="utf-8"))
    assert f"./config/grafana/dashboards:{BOARDS_FOLDER}:ro" in compose["services"]["grafana"]["volumes"]
