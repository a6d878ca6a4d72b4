"""``with record("fraud") as run``: what is seen, what is told, and what is never kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import RegistryError
from gateway.registry import record
from gateway.registry.attachments import read_recorded
from gateway.registry.lineage import code
from gateway.registry.lineage.code import redacted_words
from gateway.registry.lineage.environment import lock_digest, lock_text
from tests.registry.lineage.repositories import RECORDED, git, python, repository


def _digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def _record(folder: Path, *, options: str = "{}", more: str = "pass", words: tuple[str, ...] = ()) -> Any:
    (folder / "recorded.py").write_text(RECORDED.format(options=options, more=more))
    done = python(folder, "recorded.py", *words)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "fraud.lineage.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = repository(tmp_path_factory.mktemp("recorded") / "fraud")
    git(folder, "remote", "add", "origin", "https://ada:hunter2@example.org/risk/fraud.git")
    (folder / "steps.py").write_text((folder / "steps.py").read_text() + "# not committed\n")
    return folder


@pytest.fixture(scope="module")
def lineage(place: Path) -> Any:
    return _record(place, more='run.notes("first try")', words=("--epochs", "3", "--token=abc", "--password", "xyz"))


def test_the_code_is_the_commit_its_tree_and_what_was_changed_since(place: Path, lineage: Any) -> None:
    """A dirty tree is said, and the patch is kept with its digest, so that the training can be done again."""
    code = lineage["code"]
    assert code["commit"] == git(place, "rev-parse", "HEAD")
    assert code["tree"] == git(place, "rev-parse", "HEAD^{tree}")
    assert code["clean"] is False
    assert "# not committed" in code["patch"]["content"]
    assert code["patch"]["digest"] == "sha256:" + hashlib.sha256(code["patch"]["content"].encode()).hexdigest()
    assert code["files"]["steps.py"] == _digest(place / "steps.py")
    assert [row["name"] for row in code["untracked"]] == ["recorded.py"]


def test_data_is_seen_without_a_word(place: Path, lineage: Any) -> None:
    """The file that the script opened, by digest, with its rows and columns; what it wrote is an output."""
    [data] = lineage["data"]
    assert (data["name"], data["digest"]) == ("data/train.csv", _digest(place / "data" / "train.csv"))
    assert (data["rows"], data["schema"]["columns"]) == (3, ["a", "b"])
    assert {row["name"]: row["digest"] for row in lineage["run"]["outputs"]} == {
        "model.echo.json": _digest(place / "model.echo.json")
    }


def test_no_secret_gets_into_a_lineage(lineage: Any) -> None:
    """A manifest is for ever and is read by many: credentials of the repository, of options and of parameters."""
    text = json.dumps(lineage)
    assert "hunter2" not in text
    assert lineage["code"]["repository"] == "https://example.org/risk/fraud.git"
    command = lineage["code"]["entry_point"]["command"]
    assert command == ["python", "recorded.py", "--epochs", "3", "--token=***", "--password", "***"]
    assert lineage["parameters"]["values"] == {"depth": 3, "rate": 0.5, "api_key": "***"}
    assert "ada@example.org" not in text


@pytest.mark.parametrize(
    "word",
    [
        "--data=https://ada:hunter2@host/x.csv",
        "postgresql+psycopg://ada:hunter2@db/risk",
        "API_KEY=hunter2",
        "--opts=password=hunter2",
        "export DB_PASSWORD=hunter2; python train.py",
        "s3://bucket/x.csv?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2",
        "https://account.blob.core.windows.net/x?sv=1&sig=hunter2",
        "https://hunter2@github.com/risk/fraud.git",
        "ghp_hunter2" + "a" * 30,
        "AccountKey=hunter2",
    ],
)
def test_a_secret_within_a_word_or_a_value_is_not_kept(word: str, tmp_path: Path) -> None:
    """In addresses, assignments, queries, tokens known by their form; wherever it stands in what is recorded."""
    run = record("fraud", file=tmp_path / "x.json")
    run.parameters(source=word, nested={"list": [word], "credentials": {"value": ["hunter2", "hunter2"]}})
    run.data("memory", [1, 2], url=word)
    kept = [redacted_words(["python", "train.py", word]), run.to_json()["parameters"], run.to_json()["data"]]
    assert "hunter2" not in json.dumps(kept)
    harmless = ["git@host:x", "--rate=0.1", "a=b", "ssh://git@host/x"]
    assert redacted_words(harmless) == harmless


def test_a_patch_in_which_a_secret_stands_is_known_by_its_digest_alone(tmp_path: Path) -> None:
    """A manifest cannot be taken back; a change that only names a token in passing is kept."""
    place = repository(tmp_path / "fraud")
    (place / "steps.py").write_text("token=tokenize(row)\n")
    assert "token=tokenize" in code.capture(place)["patch"]["content"]
    for line in ('API_KEY = "hunter2hunter2"', "URL = 'postgres://ada:hunter2@db/x'"):
        (place / "steps.py").write_text(f"{line}\n")
        patch = code.capture(place)["patch"]
        assert patch.keys() == {"digest", "size_bytes", "left_out"}


def test_the_environment_is_a_lock_with_its_digest(lineage: Any) -> None:
    """Each package with its version, and the machine."""
    environment = lineage["environment"]
    assert environment["lock"] == lock_digest(environment["packages"])
    assert f"pytest=={pytest.__version__}\n" in lock_text(environment["packages"])
    assert environment["python"].startswith("3.")
    assert environment["machine"]


def test_metrics_seeds_and_author_are_kept(lineage: Any, place: Path) -> None:
    """A share has its interval and rows, and the digest of the set that it was measured on."""
    [figure] = lineage["evaluation"]
    assert (figure["value"], figure["n"]) == (1.0, 3)
    assert figure["interval"][0] < 1.0 == figure["interval"][1]
    assert figure["dataset"] == _digest(place / "data" / "train.csv")
    assert lineage["parameters"]["seeds"]["random"] == 7
    assert (lineage["author"], lineage["notes"]) == ("Ada", "first try")


def test_the_lineage_file_is_what_register_takes(place: Path, lineage: Any) -> None:
    """Its places are the manifest's, and its metrics become the evaluation."""
    read, evaluation = read_recorded(place / "fraud.lineage.json")
    assert read.run["id"] == lineage["run"]["id"]
    assert (evaluation[0].metric, evaluation[0].n) == ("accuracy", 3)


def test_a_training_done_again_without_identity_leaves_the_same_bytes(tmp_path: Path) -> None:
    """Same commit, data, packages and outcome: the same lineage, so registering it again gives the same version."""
    folder = repository(tmp_path / "fraud")
    first = _record(folder, options='{"identify": False}')
    assert _record(folder, options='{"identify": False}') == first
    assert first["run"].keys() == {"system", "outputs"}


def test_a_training_that_fails_leaves_no_lineage(tmp_path: Path) -> None:
    """Its exception goes on as it was."""
    with pytest.raises(ZeroDivisionError), record("fraud", file=tmp_path / "l.json"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_data_file_that_changes_after_it_was_read_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its digest would be that of other bytes than were trained on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("a\n1\n")
    (tmp_path / "still.csv").write_text("a\n1\n")
    with record("fraud", file=tmp_path / "l.json") as run:
        for name in ("data.csv", "still.csv"):
            with (tmp_path / name).open() as file:
                file.read()
        with (tmp_path / "other.csv").open("w") as file:
            file.write("a\n1\n2\n")
        (tmp_path / "other.csv").rename(tmp_path / "data.csv")
    rows = {row["name"]: row for row in json.loads((tmp_path / "l.json").read_text())["data"]}
    assert rows["data.csv"]["changed_after_reading"] is True
    assert "changed_after_reading" not in rows["still.csv"]
    assert run.model == "fraud"


def test_a_folder_of_many_files_is_one_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by hand or seen: both are the digest of the same listing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(30):
        (tmp_path / "images" / f"{number:02}.txt").write_text(str(number))
    with record("fraud", file=tmp_path / "seen.json"):
        for path in sorted((tmp_path / "images").iterdir()):
            path.read_text()
    with record("fraud", file=tmp_path / "named.json") as run:
        run.data("images", tmp_path / "images", croissant={"url": "https://example.org/images.json"})
        (tmp_path / "images" / "00.txt").read_text()
    [seen] = json.loads((tmp_path / "seen.json").read_text())["data"]
    [named] = json.loads((tmp_path / "named.json").read_text())["data"]
    assert (seen["name"], seen["files"], seen["digest"]) == ("images/", 30, named["digest"])
    assert named["croissant"] == {"url": "https://example.org/images.json"}


def test_a_dvc_pointer_beside_the_data_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that ``dvc pull`` can bring the very bytes back."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("a\n1\n")
    (tmp_path / "train.csv.dvc").write_text(f"outs:\n- md5: {'5' * 32}\n  size: 4\n  hash: md5\n  path: train.csv\n")
    with record("fraud", file=tmp_path / "l.json") as run:
        run.data("train", "train.csv")
    [row] = json.loads((tmp_path / "l.json").read_text())["data"]
    assert row["dvc"] == {"file": "train.csv.dvc", "md5": "5" * 32}


def test_data_in_memory_is_named_by_its_values(tmp_path: Path) -> None:
    """Arrays and tables: equal values have one digest, one value more has another."""
    rows = np.arange(6.0).reshape(3, 2)
    table = np.rec.fromarrays([rows[:, 0], rows[:, 1]], names="a,b")
    with record("fraud", file=tmp_path / "l.json") as run:
        first = run.data("arrays", (rows, rows[:, 0]))
        assert run.data("again", (rows.copy(), rows[:, 0].copy())) == first
        assert run.data("other", (rows + 1, rows[:, 0])) != first
        run.data("table", table, url="https://example.org/t")
    found = {row["name"]: row for row in json.loads((tmp_path / "l.json").read_text())["data"]}
    assert (found["arrays"]["rows"], found["arrays"]["of"]) == (3, "values")
    assert (found["table"]["rows"], found["table"]["url"]) == (3, "https://example.org/t")


def test_what_cannot_be_a_metric_or_an_input_is_refused_in_words(tmp_path: Path) -> None:
    """While the training runs, where its author sees it."""
    with record("fraud", file=tmp_path / "l.json") as run:
        with pytest.raises(RegistryError, match="5 of 3 is no share"):
            run.proportion("accuracy", 5, 3)
        with pytest.raises(RegistryError, match=r"there is no .*nowhere\.csv"):
            run.data("train", tmp_path / "nowhere.csv")
        with pytest.raises(RegistryError, match="expected a file, the name of a data input, or a digest"):
            run.metric("accuracy", 0.9, dataset="holdout")


def test_importing_the_recorder_brings_no_server_parts(tmp_path: Path) -> None:
    """A training script gets the standard library and a few small modules."""
    program = (
        "import sys; before = set(sys.modules); from gateway.registry import record; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = python(tmp_path, "-c", program)
    assert (done.returncode, done.stdout.split()) == (0, ["gateway"]), done.stderr


def test_run_register_gives_the_version(tmp_path: Path) -> None:
    """Through ``turnout register`` in a process of its own, with the lineage so far."""
    folder = repository(tmp_path / "fraud")
    example = json.dumps({"inputs": {"x": [[1, 2, 3, 4]]}})
    more = f"open('e.json', 'w').write({example!r}); print(run.register('model.echo.json', '--example', 'e.json'))"
    (folder / "recorded.py").write_text(RECORDED.format(options="{}", more=more))
    done = python(folder, "recorded.py", environment={"TURNOUT_HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr
    assert "'version': 1" in done.stdout
    bad = RECORDED.format(options="{}", more="run.register('nowhere.onnx')")
    (folder / "recorded.py").write_text(bad)
    done = python(folder, "recorded.py", environment={"TURNOUT_HOME": str(tmp_path / "home")})
    assert "RegistryError: fraud was not registered: error: " in done.stderr
