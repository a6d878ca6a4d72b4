"""Batches on real versions and real files: their answers, their bounds, their ends, and how they go on."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.batch.elsewhere import scored_elsewhere
from gateway.batch.parts import Parts
from gateway.batch.plan import BatchPlan
from gateway.batch.scoring import receipt_of, score
from gateway.errors import Conflict, InvalidInput, ModelError, RegistryError, StorageFull, VersionCrashed
from gateway.registry.blobs import BlobStore
from loadtests.live_gateway import command_line, wait_until
from tests.batch.scene import Heard, answers, numbers, plan, version

Made = tuple[BlobStore, str]


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return version(tmp_path_factory.mktemp("sums"))


def parquet(path: Path, x: np.ndarray[Any, Any], *, group: int = 700, **columns: Any) -> Path:
    table = pa.table({**columns, **{f"f{place}": x[:, place] for place in range(x.shape[1])}})
    pq.write_table(table, path, row_group_size=group)
    return path


def written(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs that a file holds, whatever kind it is of, with their types."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return {"total": table["total"].to_numpy(), "share": np.array(table["share"].to_pylist(), "f4")}
    if path.suffix == ".npz":
        with np.load(path) as held:
            return {name: held[name] for name in ("total", "share")}
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else []
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            read = list(csv.DictReader(file))
        rows = [{"total": float(r["total"]), "share": [float(r["share[0]"]), float(r["share[1]"])]} for r in read]
    return {"total": np.array([r["total"] for r in rows]), "share": np.array([r["share"] for r in rows], "f4")}


def inputs(folder: Path, kind: str, x: np.ndarray[Any, Any]) -> Path:
    """The same rows as each kind of file: features one by one, or the input whole."""
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 4)}), path)
    elif kind == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([[f"x[{place}]" for place in range(4)], *x.astype(str)])
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"x": row.tolist()}) + "\n" for row in x))
    elif kind == "npz":
        np.savez_compressed(path, x=x)
    else:
        np.save(path, x)
    return path


@pytest.mark.parametrize(
    ("source", "target"),
    [("parquet", "csv"), ("csv", "jsonl"), ("jsonl", "npz"), ("npz", "parquet"), ("npy", "parquet"), ("csv", "csv")],
)
def test_every_kind_of_file_gives_the_same_answers_to_the_last_bit(
    tmp_path: Path, sums: Made, source: str, target: str
) -> None:
    """Whatever rows come from and answers go to, neither rounds anything."""
    x = numbers(100)
    out = tmp_path / f"out.{target}"

    receipt = score(plan(sums, inputs(tmp_path, source, x), out, batch_rows=16), Heard())

    assert receipt["rows"] == 100
    found, wanted = written(out), answers(x, 16)
    for name in ("total", "share"):
        assert found[name].tobytes() == wanted[name].tobytes()


def test_columns_that_are_carried_through_keep_their_types_and_their_rows(tmp_path: Path, sums: Made) -> None:
    """A key, an id of text with gaps, and a time: in Parquet as they were, in CSV as text."""
    x = numbers(50)
    ids = pa.array([f"customer {n}" if n % 3 else None for n in range(50)])
    when = pa.array(range(50), pa.timestamp("ms"))
    source = parquet(tmp_path / "in.parquet", x, user=list(range(50)), name=ids, at=when)
    asked: dict[str, Any] = {"key": "user", "ids": ("name", "at")}

    score(plan(sums, source, tmp_path / "out.parquet", **asked), Heard())
    score(plan(sums, source, tmp_path / "out.csv", **asked), Heard())

    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["user", "name", "at", "total", "share"]
    assert table["name"].to_pylist() == ids.to_pylist()
    assert table["at"].type == when.type
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "user,name,at,total,share[0],share[1]"
    assert lines[2].startswith("1,customer 1,1970-01-01 00:00:00.001000,")


@pytest.mark.parametrize("target", ["parquet", "csv", "npz"])
def test_a_batch_that_died_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, sums: Made, target: str) -> None:
    """After any number of parts; until its end nobody sees an output."""
    x = numbers(1000)
    source = parquet(tmp_path / "in.parquet", x, user=list(range(1000)))
    whole, cut = tmp_path / f"whole.{target}", tmp_path / f"cut.{target}"
    score(plan(sums, source, whole, key="user", batch_rows=32, part_rows=256), Heard())

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            score(plan(sums, source, cut, key="user", batch_rows=32, part_rows=256), Heard(dies_after=1))
        assert not cut.exists()
        assert not receipt_of(cut).exists()
    last = Heard()
    receipt = score(plan(sums, source, cut, key="user", batch_rows=32, part_rows=256), last)

    assert last.began_at == (512, 1000, 32)
    assert receipt["resumed_rows"] == 512
    assert cut.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_part_and_those_after_it_are_made_again(tmp_path: Path, sums: Made) -> None:
    """A part counts by its digest, not by its name."""
    x = numbers(600)
    source, out = parquet(tmp_path / "in.parquet", x), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        score(plan(sums, source, out, batch_rows=128, part_rows=128), Heard(dies_after=3))
    damaged = tmp_path / ".out.jsonl.parts" / "part-000001"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")

    heard = Heard()
    score(plan(sums, source, out, batch_rows=128, part_rows=128), heard)

    assert heard.began_at == (128, 600, 128)
    assert written(out)["total"].tobytes() == answers(x, 128)["total"].tobytes()


def test_parts_of_another_input_or_version_are_never_taken_up(tmp_path: Path, sums: Made) -> None:
    """The rows changed while nobody looked: the parts are of other rows, and are made again."""
    source, out = parquet(tmp_path / "in.parquet", numbers(300)), tmp_path / "out.npz"
    with pytest.raises(KeyboardInterrupt):
        score(plan(sums, source, out, batch_rows=64, part_rows=128), Heard(dies_after=1))
    parquet(source, numbers(300, seed=2))

    heard = Heard()
    score(plan(sums, source, out, batch_rows=64, part_rows=128), heard)

    assert heard.began_at == (0, 300, 64)
    assert written(out)["total"].tobytes() == answers(numbers(300, seed=2), 64)["total"].tobytes()


def test_the_same_again_gives_the_receipt_and_other_answers_are_not_written_over(tmp_path: Path, sums: Made) -> None:
    """An output that is there is given back, or kept, unless its owner says otherwise."""
    source, out = parquet(tmp_path / "in.parquet", numbers(20)), tmp_path / "out.parquet"
    first = score(plan(sums, source, out), Heard())
    before = out.stat()

    again = score(plan(sums, source, out), Heard())

    assert again == {**first, "already": True}
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(Conflict, match="holds other answers"):
        score(plan(sums, source, out, batch_rows=5), Heard())
    replaced = score(plan(sums, source, out, batch_rows=5, overwrite=True), Heard())
    assert replaced["output"]["sha256"] != first["output"]["sha256"]


def test_two_batches_cannot_write_one_output(tmp_path: Path, sums: Made) -> None:
    """Whoever came first has it; the other is told so."""
    source, out = parquet(tmp_path / "in.parquet", numbers(20)), tmp_path / "out.parquet"
    with Parts(out), pytest.raises(Conflict, match="written by another batch"):
        score(plan(sums, source, out), Heard())


def test_an_output_that_another_batch_has_ended_meanwhile_is_not_written_over(tmp_path: Path, sums: Made) -> None:
    """Looked for before the folder of parts was had, it was not there; then it is, with other answers."""
    source, out = parquet(tmp_path / "in.parquet", numbers(20)), tmp_path / "out.parquet"

    class Overtaken(Parts):
        def __enter__(self) -> Parts:
            score(plan(sums, source, out, batch_rows=5), Heard())
            return super().__enter__()

    with pytest.raises(Conflict, match="holds other answers"):
        score(plan(sums, source, out), Heard(), parts=Overtaken)
    before = out.read_bytes()
    assert score(plan(sums, source, out, batch_rows=5), Heard())["already"]
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_folder_of_parts_that_leads_elsewhere_is_not_swept(tmp_path: Path, sums: Made) -> None:
    """What is no part is removed from such a folder, so it has to be one."""
    source, out = parquet(tmp_path / "in.parquet", numbers(20)), tmp_path / "out.parquet"
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "letter").write_text("dear")
    (tmp_path / ".out.parquet.parts").symlink_to(kept)
    with pytest.raises(Conflict, match="is a link"):
        score(plan(sums, source, out), Heard())
    assert [path.name for path in kept.iterdir()] == ["letter"]


@pytest.mark.parametrize(("target", "rows"), [("jsonl", 9000), ("csv", 14_000), ("npz", 40_000), ("parquet", 40_000)])
def test_a_disk_that_is_full_leaves_no_output_and_loses_no_part(
    tmp_path: Path, sums: Made, target: str, rows: int
) -> None:
    """The parts fit, the whole beside them does not; with room the same again ends with the same bytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        source = parquet(tmp_path / "in.parquet", numbers(rows))
        whole, out = tmp_path / f"whole.{target}", disk / f"out.{target}"
        score(plan(sums, source, whole, batch_rows=256, part_rows=2048), Heard())
        with pytest.raises(StorageFull, match=r"What is finished stays.*then try again"):
            score(plan(sums, source, out, batch_rows=256, part_rows=2048), Heard())
        assert [path.name for path in disk.iterdir()] == [f".out.{target}.parts"]
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        receipt = score(plan(sums, source, out, batch_rows=256, part_rows=2048), Heard())
        assert receipt["resumed_rows"] > rows // 2
        assert out.read_bytes() == whole.read_bytes()
        assert sorted(path.name for path in disk.iterdir()) == [out.name, receipt_of(out).name]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


CSV = "user,f0,f1,f2,f3\n1,1,2,3,4\n2,5,6,{},8\n3,9,10,11,12\n"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", r"row 2 \(user 2\), column f2: expected a number that FP32 can hold, got null.*missing: nan"),
        ("NaN", r"row 2 \(user 2\), column f2: .*got null"),
        ("seven", r"row 2 \(user 2\), column f2: .*got the string 'seven'"),
        ("1e39", r"row 2 \(user 2\), column f2: .*got 1e\+39 \(value out of range\)"),
        ("inf", r"row 2 \(user 2\), column f2: .*got inf"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_row_and_column(
    tmp_path: Path, sums: Made, cell: str, message: str
) -> None:
    """In the words of the codec, with the row's own key."""
    source = tmp_path / "in.csv"
    source.write_text(CSV.format(cell))

    with pytest.raises(InvalidInput, match=message):
        score(plan(sums, source, tmp_path / "out.csv", key="user"), Heard())
    assert not (tmp_path / "out.csv").exists()


def test_missing_values_can_be_nan_where_that_is_asked(tmp_path: Path, sums: Made) -> None:
    """In text, in Parquet's nulls; the version then sees NaN, as over the binary protocol."""
    text, table = tmp_path / "in.csv", tmp_path / "in.parquet"
    text.write_text(CSV.format(""))
    pq.write_table(pa.table({f"f{n}": pa.array([1.0, None if n == 2 else 2.0], pa.float64()) for n in range(4)}), table)

    score(plan(sums, text, tmp_path / "out.npz", key="user", missing="nan", batch_rows=1), Heard())
    score(plan(sums, table, tmp_path / "out2.npz", missing="nan", batch_rows=1), Heard())

    assert np.isnan(written(tmp_path / "out.npz")["total"]).tolist() == [False, True, False]
    assert np.isnan(written(tmp_path / "out2.npz")["total"]).tolist() == [False, True]
    with pytest.raises(InvalidInput, match=r"row 2, column f2: .*got null"):
        score(plan(sums, table, tmp_path / "out3.npz"), Heard())


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        ({"a": [1.0]}, {}, "1 columns .a. for input 'x', whose rows have 4 values"),
        ({f"f{n}": [1.0] for n in range(5)}, {}, "5 columns .* name the features"),
        ({f"f{n}": [1.0] for n in range(4)}, {"key": "user"}, "has no column 'user'; it has f0, f1"),
        ({"x": [[1.0, 2.0, 3.0]]}, {}, "row 1, column x: expected 4 values, got 3"),
        ({"x": [[1.0, 2.0, 3.0, 4.0], [1.0]]}, {}, "row 2, column x: expected 4 values, got 1"),
        ({"x": [[1.0, 2.0, 3.0, 4.0]], "total": [1]}, {"ids": ("total",)}, "'total' is carried through and an output"),
    ],
)
def test_columns_that_do_not_make_the_inputs_are_refused(
    tmp_path: Path, sums: Made, columns: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    """Before anything is loaded, where the head of the file tells; and nothing stays beside the output."""
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table(columns), source)
    before = set(tmp_path.iterdir())

    with pytest.raises(InvalidInput, match=message):
        score(plan(sums, source, tmp_path / "out.parquet", **asked), Heard())
    assert set(tmp_path.iterdir()) == before


def test_named_columns_are_the_features_in_that_order(tmp_path: Path, sums: Made) -> None:
    """Others are left alone, also when they are no numbers."""
    x = numbers(10)
    source = parquet(tmp_path / "in.parquet", x, note=["free text"] * 10)

    score(plan(sums, source, tmp_path / "out.npz", columns=("f3", "f2", "f1", "f0")), Heard())

    assert written(tmp_path / "out.npz")["share"].tobytes() == answers(x[:, ::-1], 256)["share"].tobytes()


def test_the_row_that_the_model_does_not_take_is_found(tmp_path: Path, sums: Made) -> None:
    """By halves, out of a batch of hundreds; and the model's own words are there."""
    x = numbers(500)
    x[321] = 666
    source = parquet(tmp_path / "in.parquet", x)

    with pytest.raises(ModelError, match=r"row 322: .*number of the beast"):
        score(plan(sums, source, tmp_path / "out.parquet", batch_rows=256), Heard())


def test_a_version_that_dies_of_a_batch_is_tried_once_more_and_then_named(tmp_path: Path, sums: Made) -> None:
    """Its process is another each time; nothing is left of an output."""
    x = numbers(100)
    x[40] = 13
    source = parquet(tmp_path / "in.parquet", x)

    with pytest.raises(VersionCrashed, match=r"rows 33 to 64: .*tried twice"):
        score(plan(sums, source, tmp_path / "out.parquet", batch_rows=32), Heard())
    assert not (tmp_path / "out.parquet").exists()


def test_a_file_without_rows_has_a_file_without_answers(tmp_path: Path, sums: Made) -> None:
    """With the columns that it would have."""
    source = parquet(tmp_path / "in.parquet", numbers(0))

    receipt = score(plan(sums, source, tmp_path / "out.parquet"), Heard())

    assert receipt["rows"] == 0
    assert pq.read_schema(tmp_path / "out.parquet").names == ["total", "share"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.parquet", None, "cannot be read: No such file"),
        ("bad.parquet", b"PAR1 this is none PAR1", "cannot be read"),
        ("rows.xlsx", b"", "expected a file of .parquet, .csv"),
        ("bad.jsonl", b'{"x": [1, 2, 3, 4]}\n[1, 2]\n', "row 2 of .* is a JSON list; expected an object"),
        ("bad.npz", b"PK\x03\x04", "cannot be read"),
        ("bad.csv", b"f0,f1,f2,f3\n1,2,3,4\n1,2\n", "row 2 of .*: 2 fields; the header names 4"),
        (
            "pickle.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
            "cannot be read",
        ),
    ],
)
def test_files_that_are_not_what_they_say_are_refused(
    tmp_path: Path, sums: Made, name: str, content: bytes | None, message: str
) -> None:
    """With the file's name, and what is wrong with it."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        score(plan(sums, tmp_path / name, tmp_path / "out.parquet"), Heard())


def test_a_version_that_takes_one_row_at_a_time_is_given_them_so(tmp_path: Path) -> None:
    """Signatures without a batch axis: each row is a request."""
    made = version(
        tmp_path,
        """
SIGNATURE = {"inputs": [{"name": "v", "datatype": "FP64", "shape": [3]}],
             "outputs": [{"name": "w", "datatype": "FP64", "shape": [3]}], "batched": False}

class Model:
    def predict(self, inputs):
        assert inputs["v"].shape == (3,)
        return {"w": inputs["v"] * 2}
""",
        batched=False,
    )
    source = tmp_path / "in.npz"
    np.savez(source, v=np.arange(12.0).reshape(4, 3))

    score(plan(made, source, tmp_path / "out.npz"), Heard())

    with np.load(tmp_path / "out.npz") as held:
        assert held["w"].tolist() == (np.arange(12.0).reshape(4, 3) * 2).tolist()


def test_strings_and_whole_numbers_cross_as_they_are(tmp_path: Path) -> None:
    """BYTES, INT64 beyond what floats hold, BOOL; a fraction for a whole number is refused."""
    made = version(
        tmp_path,
        """
SIGNATURE = {"inputs": [{"name": "word", "datatype": "BYTES", "shape": ["batch"]},
                        {"name": "n", "datatype": "INT64", "shape": ["batch"]},
                        {"name": "b", "datatype": "BOOL", "shape": ["batch"]}],
             "outputs": [{"name": "said", "datatype": "BYTES", "shape": ["batch"]},
                         {"name": "m", "datatype": "INT64", "shape": ["batch"]}]}

class Model:
    def predict(self, inputs):
        return {"said": inputs["word"], "m": inputs["n"] + inputs["b"]}
""",
    )
    big = 2**53 + 1
    source, text = tmp_path / "in.parquet", tmp_path / "in.csv"
    pq.write_table(pa.table({"word": ["grün", ""], "n": [big, -3], "b": [False, True]}), source)
    text.write_text(f"word,n,b\ngrün,{big},false\n,-3,True\n")

    for path, out in ((source, "a.parquet"), (text, "b.parquet")):
        score(plan(made, path, tmp_path / out), Heard())
        assert pq.read_table(tmp_path / out).to_pylist() == [{"said": "grün", "m": big}, {"said": "", "m": -2}]

    text.write_text("word,n,b\na,1.5,true\n")
    with pytest.raises(InvalidInput, match=r"row 1, column n: expected an integer .* got 1.5 \(a fraction\)"):
        score(plan(made, text, tmp_path / "c.parquet"), Heard())


# In a process of its own


def _asked(made: Made, source: Path, target: Path, **asked: Any) -> BatchPlan:
    return plan(made, source, target, **asked)


async def test_records_are_taken_before_a_part_counts_as_told(tmp_path: Path, sums: Made) -> None:
    """Rows by their key, in order, each with the digests of what was asked and answered."""
    x = numbers(300)
    source = parquet(tmp_path / "in.parquet", x, user=[f"u{n}" for n in range(300)])
    taken: list[Any] = []
    heard: list[tuple[int, int | None]] = []

    async def take(records: Any) -> None:
        taken.extend(records)

    asked = _asked(sums, source, tmp_path / "out.parquet", key="user", batch_rows=64, told=True)
    receipt = await scored_elsewhere(asked, lambda done, total: heard.append((done, total)), take)

    assert receipt["recorded"] == "decision-log"
    assert [(record[0], record[1], record[2]) for record in taken] == [(n, 1, f"u{n}") for n in range(300)]
    assert {record[5] for record in taken} == {64, 44}
    assert len({record[6] for record in taken}) == 300
    assert heard[0] == (0, 300)
    assert heard[-1] == (300, 300)


async def test_a_process_that_is_killed_says_what_to_do_and_the_next_goes_on(tmp_path: Path) -> None:
    """kill -9 while a part is being answered: nothing to be seen of an output, and the same again ends it."""
    made = version(
        tmp_path,
        """
import pathlib, time
SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
             "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}]}

class Model:
    def predict(self, inputs):
        stop = pathlib.Path("%s")
        if inputs["x"][0, 0] > 65536 and stop.exists():
            time.sleep(3600)
        return {"y": inputs["x"] + 1}
"""
        % (tmp_path / "stop"),
    )
    x = np.arange(70_000, dtype="f4").repeat(4).reshape(-1, 4)
    source, out = tmp_path / "in.npy", tmp_path / "out.npy"
    np.save(source, x)
    (tmp_path / "stop").touch()
    asked = _asked(made, source, out, batch_rows=1024)
    heard: list[int] = []

    work = asyncio.create_task(scored_elsewhere(asked, lambda done, _: heard.append(done)))
    record = tmp_path / ".out.npy.parts" / "part-000000.json"
    await asyncio.to_thread(wait_until, record.exists, within_s=200, what="a part")
    (child,) = [one for one in psutil.Process().children() if "gateway.batch.process" in command_line(one)]
    child.kill()
    with pytest.raises(RegistryError, match="ended with status -9; what it had finished stays"):
        await work
    assert not out.exists()
    (tmp_path / "stop").unlink()
    receipt = await scored_elsewhere(asked, lambda done, _: heard.append(done))

    assert receipt["resumed_rows"] == 65_536
    assert np.load(out).tobytes() == (x + 1).tobytes()


async def test_what_is_wrong_with_a_row_is_told_across_the_process_in_its_own_words(tmp_path: Path, sums: Made) -> None:
    """Error and fields arrive as they were raised."""
    source = tmp_path / "in.csv"
    source.write_text(CSV.format("seven"))

    with pytest.raises(InvalidInput) as caught:
        await scored_elsewhere(_asked(sums, source, tmp_path / "out.csv", key="user"), lambda *_: None)

    assert caught.value.problems[0].field == "row 2 (user 2), column f2"


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Also when that is killed: neither it nor the version's process stays behind."""
    made = version(
        tmp_path,
        """
import os, pathlib, time
SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
             "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}]}

class Model:
    def predict(self, inputs):
        pathlib.Path("%s").write_text(f"{os.getpid()} {os.getppid()}")
        time.sleep(3600)
"""
        % (tmp_path / "pids"),
    )
    np.save(tmp_path / "in.npy", numbers(10))
    asked = _asked(made, tmp_path / "in.npy", tmp_path / "out.npy", priority="idle")
    (tmp_path / "plan.json").write_text(json.dumps(asked.to_json()))
    script = (
        "import asyncio, json, sys; from gateway.batch.plan import BatchPlan; "
        "from gateway.batch.elsewhere import scored_elsewhere; "
        "plan = BatchPlan.from_json(json.load(open(sys.argv[1]))); "
        "asyncio.run(scored_elsewhere(plan, lambda *_: None))"
    )
    starter = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "plan.json")])
    try:
        said = tmp_path / "pids"
        wait_until(lambda: said.exists() and said.read_text(), within_s=120, what="the version asked")
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        policies = {os.sched_getscheduler(pid) for pid in pids}
    finally:
        starter.kill()
        starter.wait()

    assert policies == {os.SCHED_IDLE}
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="their end")
