"""What changed between two versions is named by kind."""

from __future__ import annotations

from typing import Any

from gateway.registry.lineage.comparison import Comparison, compare

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def _manifest(lineage: dict[str, Any] | None = None, evaluation: list[Any] | None = None, **more: Any) -> Any:
    files = [{"name": "model.onnx", "sha256": "c" * 64, "size_bytes": 3}]
    return {"lineage": lineage or {}, "evaluation": evaluation or [], "files": files, "format": "onnx", **more}


def _section(found: Comparison, name: str) -> list[tuple[Any, ...]]:
    [section] = [section for section in found.sections if section.name == name]
    return [(change.what, change.before, change.after, change.note) for change in section.changes]


def _state(found: Comparison, name: str) -> str:
    return next(section.state for section in found.sections if section.name == name)


def test_data_that_changed_is_named_with_its_rows() -> None:
    """The question after a bad training is: on what?"""
    before = {"data": [{"name": "train", "digest": A, "rows": 10}, {"name": "old", "digest": B}]}
    after = {"data": [{"name": "train", "digest": B, "rows": 12}, {"name": "new", "digest": A, "rows": 5}]}
    found = compare(_manifest(before), _manifest(after))
    assert found.changed == ("data",)
    assert _section(found, "data") == [
        ("train", A, B, "10 → 12 rows"),
        ("old", B, None, ""),
        ("new", None, A, "5 rows"),
    ]


def test_digests_of_different_algorithms_are_not_called_a_change_of_bytes() -> None:
    """MLflow's md5 and our SHA-256 of one file cannot be compared."""
    before = {"data": [{"name": "train", "digest": "md5:" + "5" * 32}]}
    found = compare(_manifest(before), _manifest({"data": [{"name": "train", "digest": A}]}))
    assert "whether the bytes differ is not known" in _section(found, "data")[0][3]


def test_each_kind_names_what_changed() -> None:
    """A commit, a parameter, a seed, a package, a step that was fitted to something else."""
    before = {
        "code": {"commit": "1" * 40, "files": {"train.py": A}},
        "parameters": {"values": {"depth": 3, "inner": {"rate": 0.1}}, "seeds": {"numpy": 1}},
        "environment": {"python": "3.11.7", "packages": {"numpy": "2.0", "scipy": "1.0"}},
        "features": {"steps": [{"name": "scale", "parameters": {"mean": True}, "digest": A}]},
    }
    after = {
        "code": {"commit": "2" * 40, "files": {"train.py": B}},
        "parameters": {"values": {"depth": 3, "inner": {"rate": 0.2}}, "seeds": {"numpy": 2}},
        "environment": {"python": "3.11.7", "packages": {"numpy": "2.1", "torch": "2.6"}},
        "features": {"steps": [{"name": "scale", "parameters": {"mean": True}, "digest": B}]},
    }
    found = compare(_manifest(before), _manifest(after))
    assert found.changed == ("code", "parameters", "environment", "features")
    assert [change[0] for change in _section(found, "code")] == ["commit", "train.py"]
    assert _section(found, "parameters") == [("inner.rate", 0.1, 0.2, ""), ("seed.numpy", 1, 2, "")]
    assert [change[:3] for change in _section(found, "environment")] == [
        ("numpy", "2.0", "2.1"),
        ("scipy", "1.0", None),
        ("torch", None, "2.6"),
    ]
    assert _section(found, "features")[0][3] == "same parameters, fitted to something else"


def test_metrics_say_whether_their_intervals_touch_and_what_they_were_measured_on() -> None:
    """A figure of another evaluation set is not progress."""
    before = [{"metric": "accuracy", "value": 0.9, "n": 100, "interval": [0.85, 0.94], "dataset": A}]
    after = [{"metric": "accuracy", "value": 0.99, "n": 100, "interval": [0.95, 1.0], "dataset": B}]
    [change] = _section(compare(_manifest({}, before), _manifest({}, after)), "metrics")
    assert change[3] == "+0.09, intervals apart, on different evaluation sets"


def test_what_neither_side_knows_is_unknown_and_not_the_same() -> None:
    """Silence is no proof."""
    found = compare(_manifest({"code": {"commit": "1" * 40}}), _manifest())
    assert _state(found, "code") == "unknown"
    assert _state(found, "data") == "unknown"
    assert _state(found, "files") == "same"
    assert found.changed == ()


def test_a_difference_that_no_field_is_known_for_is_still_told() -> None:
    """Other registries keep other keys."""
    before, after = {"code": {"commit": "1" * 40, "branch": "a"}}, {"code": {"commit": "1" * 40, "branch": "b"}}
    assert _section(compare(_manifest(before), _manifest(after)), "code") == [("code.branch", "a", "b", "")]


def test_how_it_is_served_and_its_files_are_compared_too() -> None:
    """A version may differ in nothing but its precision."""
    other = _manifest(runtime={"precision": "fp16"})
    other["files"] = [{"name": "model.onnx", "sha256": "d" * 64, "size_bytes": 3}]
    found = compare(_manifest(runtime={"precision": None}), other)
    assert found.changed == ("files", "serving")
    assert _section(found, "serving") == [("runtime.precision", None, "fp16", "")]
