"""The graph of a version, and its picture."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

from gateway.cli.lineage_picture import draw_svg
from gateway.registry.lineage.graph import draw_graph

A = "sha256:" + "a" * 64
LINEAGE = {
    "code": {"commit": "1" * 40, "clean": False, "entry_point": {"command": ["python", "train.py"]}},
    "data": [{"name": "<train & test>.csv", "digest": A, "rows": 10}],
    "parameters": {"values": {"depth": 3}, "seeds": {"numpy": 7}},
    "environment": {"python": "3.11", "packages": {"numpy": "2"}},
    "features": {"steps": [{"name": "scale", "kind": "sklearn.StandardScaler"}], "digest": A},
    "run": {"id": "f" * 32, "system": "turnout"},
    "parent": "fraud/2",
}


def _version(number: int, lineage: dict[str, Any]) -> dict[str, Any]:
    files = [{"name": "m", "sha256": "a" * 64, "size_bytes": 3}]
    evaluation = [{"metric": "accuracy", "value": 0.9, "n": 10, "slice": None, "interval": [0.8, 1.0]}]
    manifest = {"format": "onnx", "files": files, "lineage": lineage, "evaluation": evaluation}
    return {"model": "fraud", "version": number, "digest": A, "aliases": ["champion"], "manifest": manifest}


def test_data_goes_through_the_features_into_the_run_that_made_the_version() -> None:
    """All else goes into the run, and the metrics come out of the version."""
    graph = draw_graph(_version(3, LINEAGE), [_version(2, {})])
    assert set(graph.edges) == {
        ("data 0", "features"),
        ("features", "run"),
        ("code", "run"),
        ("parameters", "run"),
        ("environment", "run"),
        ("parent fraud/2", "run"),
        ("run", "version"),
        ("version", "metrics"),
    }


def test_a_version_without_lineage_is_itself() -> None:
    """Nothing is made up."""
    version = _version(1, {"code": None})
    version["manifest"]["evaluation"] = []
    assert [node.kind for node in draw_graph(version).nodes] == ["version"]
    ET.fromstring(draw_svg(draw_graph(version), "Lineage"))  # noqa: S314 - our own


def test_the_picture_is_whole_and_every_text_stays_in_its_box() -> None:
    """Names out of a manifest are text and no markup; no box overlaps another."""
    svg = draw_svg(draw_graph(_version(3, LINEAGE), [_version(2, {})]), "Lineage of <fraud>/3")
    root = ET.fromstring(svg)  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    assert "<train" not in svg
    boxes = []
    for group in root.iter(f"{space}g"):
        rectangle = group.find(f"{space}rect")
        assert rectangle is not None
        x, y, width, height = (float(rectangle.get(name, "0")) for name in ("x", "y", "width", "height"))
        boxes.append((x, y, x + width, y + height))
        for text in group.iter(f"{space}text"):
            assert x < float(text.get("x", "0"))
            assert float(text.get("x", "0")) + 7.2 * len(text.text or "") <= x + width
            assert y < float(text.get("y", "0")) < y + height
    assert len(boxes) == 9
    for number, one in enumerate(boxes):
        for two in boxes[number + 1 :]:
            assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
    width, height = (float(root.get(name, "0")) for name in ("width", "height"))
    assert max(box[2] for box in boxes) < width
    assert max(box[3] for box in boxes) < height
    assert re.search(r"&lt;train &amp; test&gt;\.csv", svg)


def test_a_picture_of_hostile_names_is_still_one() -> None:
    """A control character is no XML: no browser would show the file."""
    lineage = {**LINEAGE, "data": [{"name": "x\x1b[2J\x00.csv", "digest": A}]}
    root = ET.fromstring(draw_svg(draw_graph(_version(3, lineage)), "Lineage"))  # noqa: S314 - our own
    assert "x�[2J�.csv" in {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
