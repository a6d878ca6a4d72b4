"""What comes beside an artifact: strict, and refused by place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import InvalidRegistration
from gateway.registry.attachments import read_evaluation, read_golden, read_lineage, read_signature


def _file(tmp_path: Path, body: Any, name: str = "file.json") -> Path:
    path = tmp_path / name
    path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return path


def test_lineage_is_json_or_yaml_and_dates_stay_text(tmp_path: Path) -> None:
    """Both give the same record."""
    yaml = "code: {commit: abc, at: 2026-01-02}\nnotes: trained twice\n"
    body = {"code": {"commit": "abc", "at": "2026-01-02"}, "notes": "trained twice"}
    assert read_lineage(_file(tmp_path, yaml, "lineage.yaml")) == read_lineage(_file(tmp_path, body))


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ('{"author": 1, "author": 2}', "l.json", "key 'author' appears twice"),
        ('{"authr": "x"}', "l.json", "unknown key 'authr'; did you mean 'author'"),
        ("[1]", "l.json", r"lineage is \[1\]; expected an object"),
        ("{", "l.json", "not valid JSON"),
        ("a: [", "l.yaml", "not valid YAML"),
        ("code: &a [1]\ndata: *a\n", "l.yaml", "anchors and aliases are not taken"),
        ("code: .nan\n", "l.yaml", "nan is not a JSON number"),
        ("code: !!python/object:os.system {}\n", "l.yaml", "not valid YAML"),
        ("code: {1: 2}\n", "l.yaml", "keys are strings"),
    ],
)
def test_lineage_that_cannot_be_kept_is_refused(tmp_path: Path, text: str, name: str, told: str) -> None:
    """The file and the fault are in the message."""
    with pytest.raises(InvalidRegistration, match=f"{name}.*{told}"):
        read_lineage(_file(tmp_path, text, name))


def test_evaluation_takes_records_or_the_short_form(tmp_path: Path) -> None:
    """A list of records, one record, or names with values."""
    record = {"metric": "accuracy", "value": 0.97, "n": 450, "slice": "test", "interval": [0.95, 0.98]}
    [full] = read_evaluation(_file(tmp_path, [record]))
    assert (full.metric, full.value, full.n, full.slice, full.interval) == ("accuracy", 0.97, 450, "test", (0.95, 0.98))
    assert read_evaluation(_file(tmp_path, record)) == (full,)
    short = read_evaluation(_file(tmp_path, {"accuracy": 0.97, "f1": 0.9}))
    assert [(item.metric, item.value) for item in short] == [("accuracy", 0.97), ("f1", 0.9)]
    with pytest.raises(InvalidRegistration, match=r"evaluation\[0\].value is '0.9'"):
        read_evaluation(_file(tmp_path, {"accuracy": "0.9"}))


def test_a_signature_must_be_one(tmp_path: Path) -> None:
    """Also the batch axis, which cannot have a fixed size."""
    x = {"name": "x", "datatype": "FP32", "shape": ["batch", 4]}
    assert read_signature(_file(tmp_path, {"inputs": [x], "outputs": [x]})).inputs[0].name == "x"
    fixed = {"inputs": [x], "outputs": [x | {"name": "y", "shape": [1, 4]}]}
    with pytest.raises(InvalidRegistration, match=r"the first axis of y is no named axis.*\"batched\": false"):
        read_signature(_file(tmp_path, fixed))
    assert not read_signature(_file(tmp_path, fixed | {"batched": False})).batched
    with pytest.raises(InvalidRegistration, match="expected an object with inputs"):
        read_signature(_file(tmp_path, []))
    with pytest.raises(InvalidRegistration, match="outputs: expected a non-empty list"):
        read_signature(_file(tmp_path, {"inputs": [x]}))
    with pytest.raises(InvalidRegistration, match=r"gone.json cannot be read"):
        read_signature(tmp_path / "gone.json")


def test_golden_cases_have_inputs_and_outputs(tmp_path: Path) -> None:
    """The first case serves as the example."""
    case = {"inputs": {"x": [[1, 2]]}, "outputs": {"y": [3]}}
    assert read_golden(_file(tmp_path, {"cases": [case]})).inputs(None)["x"].tolist() == [[1, 2]]
    with pytest.raises(InvalidRegistration, match="case 1 lacks inputs or outputs"):
        read_golden(_file(tmp_path, {"cases": [case, {"inputs": {}}]}))
    with pytest.raises(InvalidRegistration, match=r"expected .*cases"):
        read_golden(_file(tmp_path, {"cases": []}))


def test_a_file_past_the_limit_is_not_read(tmp_path: Path) -> None:
    """Four megabytes are plenty for what people write."""
    with pytest.raises(InvalidRegistration, match="is larger than the 4194304 bytes"):
        read_lineage(_file(tmp_path, '"' + "x" * 5_000_000 + '"'))
