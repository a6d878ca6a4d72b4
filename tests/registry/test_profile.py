"""Reference data of every format becomes a profile, the version answering it where the data does not; or an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.errors import InvalidRegistration, RegistryError
from gateway.messages import Signature, TensorSpec
from gateway.registry.inspection import TrialFailed
from gateway.registry.profile import compute_profile
from gateway.registry.profile_reading import plan_of, read_profile, summary
from gateway.registry.profiling import computed_elsewhere
from runtimes.base import Array, LoadSpec
from runtimes.counting import Plan
from tests.runtimes.counted import rows_of

ROWS = rows_of(500, 3)
ECHO = Signature((TensorSpec("x", "FP32", ("batch", 3)),), (TensorSpec("y", "FP32", ("batch", 3)),))
MIXED = Signature(
    (TensorSpec("age", "INT64", ("batch", 1)), TensorSpec("city", "BYTES", ("batch", 1))),
    (TensorSpec("label", "INT64", ("batch",)),),
)


def spec(signature: Signature = ECHO, **options: Any) -> LoadSpec:
    return LoadSpec("echo", "", (), signature=signature, options=options)


def csv(folder: Path, columns: Mapping[str, Any], name: str = "data.csv") -> Path:
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (folder / name).write_bytes("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")
    return folder / name


def written(folder: Path, kind: str) -> Path:
    path = folder / f"data.{kind}"
    if kind == "npy":
        np.save(path, ROWS)
    elif kind == "npz":
        np.savez_compressed(path, x=ROWS, unused=np.zeros(3))
    elif kind == "parquet":
        pq.write_table(pa.table({name: ROWS[:, place] for place, name in enumerate("abc")}), path)
    else:
        csv(folder, {name: ROWS[:, place].astype(float) for place, name in enumerate("abc")})
    return path


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "parquet"])
def test_every_format_gives_the_same_counts(tmp_path: Path, kind: str) -> None:
    """Tables name the features; the version's answers are counted beside its inputs; again gives the same bytes."""
    path = written(tmp_path, kind)
    data = compute_profile(path, ECHO, spec())
    profile = read_profile(data)
    names = [feature.name for feature in profile.plan.features]
    assert names[:3] == (["a", "b", "c"] if kind in ("csv", "parquet") else ["x[0]", "x[1]", "x[2]"])
    assert names[3:] == ["y[0]", "y[1]", "y[2]", "y.max", "y.argmax"]
    assert profile.rows == 500
    inputs, outputs = profile.plan.features[0], profile.plan.features[3]
    assert np.array_equal(profile.reference[inputs.counts], profile.reference[outputs.counts])
    assert compute_profile(path, ECHO, spec()) == data


def test_a_process_of_its_own_gives_the_same_bytes_and_the_same_errors(tmp_path: Path) -> None:
    """What stands in the registry does not depend on who computed it."""
    path = written(tmp_path, "npy")
    assert computed_elsewhere(path, ECHO, spec()) == compute_profile(path, ECHO, spec())
    with pytest.raises(InvalidRegistration, match="has inputs age, city"):
        computed_elsewhere(path, MIXED, None)
    with pytest.raises(TrialFailed, match="does not take the reference data"):
        computed_elsewhere(path, ECHO, spec(fail="always"))


def test_integers_texts_and_given_answers_are_read_from_a_table(tmp_path: Path) -> None:
    """The version is not asked where a column holds its answers; bytes that are no UTF-8 are a text like others."""
    rows = 200
    cities = ["Aachen", "Köln", "", "b\udcffd"] * (rows // 4)
    path = csv(tmp_path, {"age": range(rows), "city": cities, "label": [place % 3 for place in range(rows)]})
    profile = read_profile(compute_profile(path, MIXED, spec(MIXED, fail="always")))
    age, city, label = profile.plan.features
    assert (age.kind, city.kind, label.kind) == ("numeric", "text", "categories")
    assert b"b\xffd" in city.values
    assert profile.reference[city.missing] == rows // 4
    assert profile.reference[label.counts].tolist() == [67, 67, 66, 0]


def test_many_rows_are_read_in_pieces(tmp_path: Path) -> None:
    """More than one batch of the file, of the version, and of the answers that are kept meanwhile."""
    np.save(tmp_path / "data.npy", rows_of(9000, 3))
    profile = read_profile(compute_profile(tmp_path / "data.npy", ECHO, spec()))
    assert profile.rows == 9000
    assert len(profile.segments) == 16


def test_a_profile_is_told_in_a_few_words_and_sent_without_its_counts(tmp_path: Path) -> None:
    """What an operator reads, and what a child needs."""
    data = compute_profile(written(tmp_path, "csv"), ECHO, None)
    told = summary(read_profile(data))
    assert (told["rows"], told["exact"], told["features"][0]["name"]) == (500, True, "a")
    assert told["blocks"] == [{"name": "inputs", "columns": 3, "dimensions": 3, "waves": 32}]
    sent = json.loads(plan_of(data))
    assert Plan.from_json(sent).size == read_profile(data).plan.size
    assert "reference" not in sent


def _npy(folder: Path, array: Array) -> Path:
    np.save(folder / "data.npy", array)
    return folder / "data.npy"


def _text(folder: Path, text: str, name: str = "data.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def _pickled(folder: Path) -> Path:
    np.save(folder / "data.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    return folder / "data.npy"


def _cut(folder: Path) -> Path:
    path = _npy(folder, rows_of(100, 3))
    path.write_bytes(path.read_bytes()[:-50])
    return path


def _damaged(folder: Path, name: str) -> Path:
    """Its head is whole, and further down is another's."""
    path = folder / name
    if name.endswith(".npz"):
        np.savez_compressed(path, x=np.random.default_rng(1).standard_normal((3000, 3)).astype(np.float32))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({column: np.random.default_rng(1).standard_normal(3000) for column in "abc"})
        pytest.importorskip("pyarrow.parquet").write_table(table, path, compression="zstd")
    octets = bytearray(path.read_bytes())
    octets[4000:8000] = b"?" * 4000
    path.write_bytes(bytes(octets))
    return path


REFUSED: Mapping[str, tuple[Any, str]] = {
    "no such file": (lambda f: f / "gone.npy", "cannot be read"),
    "another suffix": (lambda f: f / "data.xls", "expected a file of .npy"),
    "too narrow": (lambda f: _npy(f, rows_of(10, 2)), "expected \\[rows, 3\\]"),
    "one axis": (lambda f: _npy(f, np.zeros(10, np.float32)), "expected \\[rows, 3\\]"),
    "strings": (lambda f: _npy(f, np.full((10, 3), "a")), "expected FP32"),
    "pickled": (_pickled, "pickle"),
    "no rows": (lambda f: _npy(f, rows_of(0, 3)), "no rows"),
    "too many columns": (lambda f: csv(f, {n: [1.0] for n in "abcd"}), "4 columns"),
    "no names": (lambda f: csv(f, {n: [1.0] for n in "123"}), "names of the columns"),
    "words": (lambda f: csv(f, {"a": ["x"], "b": [1], "c": [2]}), "column 'a'"),
    "twice": (lambda f: _text(f, "a,a,b\n1,2,3\n"), "share a name"),
    "ragged": (lambda f: _text(f, "a,b,c\n1,2,3\n1,2\n"), "line 3"),
    "empty": (lambda f: _text(f, ""), "empty"),
    "no numpy file": (lambda f: _text(f, "hello", "data.npy"), "cannot be read"),
    "cut short": (_cut, "ends before"),
    "damaged archive": (lambda f: _damaged(f, "data.npz"), "reference .*data.npz: "),
    "damaged parquet": (lambda f: _damaged(f, "data.parquet"), "reference .*data.parquet is damaged: "),
    "a field without end": (lambda f: _text(f, 'a,b,c\n1,2,"' + "3" * 200_000), "data.csv: .*field"),
    "a header without end": (lambda f: _text(f, '"' + "a" * 200_000), "data.csv cannot be read"),
    "no archive": (lambda f: _text(f, "hello", "data.npz"), "cannot be read"),
    "no parquet": (lambda f: _text(f, "hello", "data.parquet"), "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_does_not_fit_is_refused_in_words(tmp_path: Path, name: str) -> None:
    """Which file, what is wrong, what was expected; never a traceback, never a pickle loaded."""
    make, words = REFUSED[name]
    with pytest.raises(InvalidRegistration, match=words):
        compute_profile(make(tmp_path), ECHO, None)


def test_a_version_that_is_not_batched_has_no_rows_to_compare(tmp_path: Path) -> None:
    """It is told so when it is registered, not when its drift is asked for."""
    with pytest.raises(InvalidRegistration, match="not batched"):
        compute_profile(written(tmp_path, "npy"), Signature(ECHO.inputs, ECHO.outputs, batched=False), None)


def test_a_version_that_hangs_over_the_reference_is_ended(tmp_path: Path) -> None:
    """Within its time, with the words of the time."""
    with pytest.raises(TrialFailed, match="did not answer a batch within 1 s"):
        compute_profile(written(tmp_path, "npy"), ECHO, spec(hang="always"), timeout_s=1.0)


def test_a_version_that_dies_over_the_reference_is_told_of(tmp_path: Path) -> None:
    """With an interpreter of its own as well."""
    with pytest.raises(TrialFailed, match="ended over the reference data"):
        compute_profile(written(tmp_path, "npy"), ECHO, spec(crash="always"), interpreter=sys.executable)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": "turnout-profile/1"}'])
def test_a_stored_profile_that_is_none_is_refused(data: bytes) -> None:
    """Whoever reads the store is told, and counts nothing."""
    with pytest.raises(RegistryError):
        plan_of(data)
    with pytest.raises(RegistryError):
        read_profile(data)
