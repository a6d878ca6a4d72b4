"""Training again: what is brought back, what is checked, what differs, and what a hostile lineage cannot do."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import RegistryError
from gateway.registry.lineage.files import digest_of_file, digest_of_folder
from gateway.registry.lineage.reproduction.asked import Asked
from gateway.registry.lineage.reproduction.difference import explain_difference
from gateway.registry.lineage.reproduction.folder import Reproduction, reproduce
from gateway.registry.lineage.reproduction.training import TrainedAgain, command_of, train_again
from tests.registry.lineage.repositories import RECORDED, ROOT, commit, python, repository


def _version(folder: Path) -> dict[str, Any]:
    """As the admin API gives it: the lineage that the recorder left, and the file that was made."""
    lineage = json.loads((folder / "fraud.lineage.json").read_text())
    evaluation = lineage.pop("evaluation", [])
    model = folder / "model.echo.json"
    sha256 = digest_of_file(model).removeprefix("sha256:")
    files = [{"name": model.name, "sha256": sha256, "size_bytes": model.stat().st_size}]
    manifest = {"lineage": lineage, "evaluation": evaluation, "files": files}
    return {"model": "fraud", "version": 3, "digest": "sha256:" + "0" * 64, "manifest": manifest}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A repository in which training was committed, changed a little, and recorded."""
    folder = repository(tmp_path_factory.mktemp("trained") / "fraud")
    (folder / "recorded.py").write_text(RECORDED.format(options="{}", more="pass"))
    commit(folder, "recorded")
    (folder / "steps.py").write_text((folder / "steps.py").read_text().replace('["a"]', '["b"]'))
    done = python(folder, "recorded.py")
    assert done.returncode == 0, done.stderr
    return folder, _version(folder)


def _again(version: Mapping[str, Any], folder: Path, here: Path, **more: Any) -> Reproduction:
    return reproduce(version, Asked(folder, here, sys.executable, **more))


def _states(made: Reproduction) -> dict[str, str]:
    return {check.what: check.state for check in made.checks}


def _train(made: Reproduction, version: Mapping[str, Any], stored: Mapping[str, Path] | None = None) -> TrainedAgain:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    return train_again(
        made,
        version,
        sys.executable,
        environment=environment | {"PYTHONPATH": str(ROOT)},
        stored=(stored or {}).get,
        timeout_s=300,
    )


def test_what_was_trained_is_trained_again_and_comes_out_the_same(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The commit, the patch of what was never committed, the data, the command: the same file digest."""
    folder, version = trained
    made = _again(version, tmp_path / "again", folder)
    assert made.complete, made.checks
    states = _states(made)
    assert {states[name] for name in ("code commit", "code tree", "code patch", "code files")} == {"ok"}
    assert states["data data/train.csv"] == states["environment packages"] == "ok"
    assert {path.name for path in made.folder.iterdir()} >= {
        "code",
        "data.json",
        "parameters.json",
        "requirements.lock",
        "manifest.json",
        "README.md",
    }
    done = _train(made, version)
    assert done.same, (made.folder / "training.log").read_text()
    assert done.metrics == ("accuracy 1.0: the same",)


def test_a_training_that_comes_out_otherwise_says_what_differs(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Here because the data was changed on the way: the very place in the file that was made."""
    folder, version = trained
    made = _again(version, tmp_path / "again", folder)
    assert made.code is not None
    (made.code / "data" / "train.csv").write_text("a,b\n1,2\n3,4\n5,7\n")
    digest = f"sha256:{version['manifest']['files'][0]['sha256']}"
    done = _train(made, version, {digest: folder / "model.echo.json"})
    [file] = done.files
    assert (file.state, file.differences) == ("differs", ("#delay_ms: 12 before, 13 after",))
    assert not done.same


def test_data_that_changed_or_is_gone_is_told_and_may_be_named(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """A data file outside of Git: found where it was, or where the operator says; never taken when it differs."""
    folder, version = trained
    lineage = {**version["manifest"]["lineage"], "data": [{"name": "big.csv", "path": "big.csv"}]}
    row = lineage["data"][0]
    big = tmp_path / "elsewhere.csv"
    big.write_text("a\n1\n")
    row |= {"digest": digest_of_file(big), "size_bytes": big.stat().st_size}
    lost = {**version, "manifest": {**version["manifest"], "lineage": lineage}}
    assert _states(_again(lost, tmp_path / "one", folder))["data big.csv"] == "missing"
    named = _again(lost, tmp_path / "two", folder, data={"big.csv": big})
    assert _states(named)["data big.csv"] == "ok"
    assert (named.folder / "code" / "big.csv").read_text() == "a\n1\n"
    big.write_text("a\n2\n")
    changed = _again(lost, tmp_path / "three", folder, data={"big.csv": big})
    assert _states(changed)["data big.csv"] == "differs"
    assert not changed.complete
    assert not (changed.folder / "code" / "big.csv").exists()


def test_code_that_differs_from_what_was_recorded_is_told(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """A tree, a patch or a source file that is not what its digest says; a commit that nobody has."""
    folder, version = trained

    def changed(**code: Any) -> Any:
        lineage = version["manifest"]["lineage"]
        manifest = {**version["manifest"], "lineage": {**lineage, "code": {**lineage["code"], **code}}}
        return {**version, "manifest": manifest}

    assert _states(_again(changed(tree="1" * 40), tmp_path / "tree", folder))["code tree"] == "differs"
    patch = {"digest": "sha256:" + "1" * 64, "content": "diff --git a/x b/x\n"}
    assert _states(_again(changed(patch=patch), tmp_path / "patch", folder))["code patch"] == "missing"
    files = {"steps.py": "sha256:" + "1" * 64}
    assert _states(_again(changed(files=files), tmp_path / "files", folder))["code files"] == "differs"
    gone = _again(changed(commit="1" * 40, repository=None), tmp_path / "gone", folder)
    assert (_states(gone)["code commit"], gone.code) == ("missing", None)
    with pytest.raises(RegistryError, match="the code is not here"):
        command_of(gone, sys.executable)


@pytest.mark.parametrize("place", ["ext::sh -c touch% {pwned}", "--upload-pack=touch {pwned}", "fd::17"])
def test_an_address_in_a_manifest_runs_nothing(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, place: str
) -> None:
    """Whoever registers a version must not run programs on the machine of whoever looks at it."""
    _, version = trained
    lineage = version["manifest"]["lineage"]
    code = {**lineage["code"], "repository": place.format(pwned=tmp_path / "pwned"), "commit": "1" * 40}
    hostile = {**version, "manifest": {**version["manifest"], "lineage": {**lineage, "code": code}}}
    made = _again(hostile, tmp_path / "again", tmp_path)
    assert _states(made)["code commit"] == "missing"
    assert not (tmp_path / "pwned").exists()


def test_names_in_a_manifest_do_not_lead_out_of_the_folder(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Files that Git did not know, and data, are copied inside or not at all."""
    folder, version = trained
    outside = folder.parent / "outside.txt"
    outside.write_text("x")
    row = {"name": "../outside.txt", "digest": digest_of_file(outside), "size_bytes": 1}
    lineage = version["manifest"]["lineage"]
    code = {**lineage["code"], "untracked": [row], "files": {"../../etc/passwd": row["digest"]}}
    hostile = {"lineage": {**lineage, "code": code, "data": [row]}}
    made = _again({**version, "manifest": {**version["manifest"], **hostile}}, tmp_path / "again" / "deep", folder)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["deep"]
    assert not (made.folder / "outside.txt").exists()


def _with(version: dict[str, Any], **places: Any) -> dict[str, Any]:
    lineage = version["manifest"]["lineage"]
    merged = {name: {**lineage[name], **part} if isinstance(part, dict) else part for name, part in places.items()}
    return {**version, "manifest": {**version["manifest"], "lineage": {**lineage, **merged}}}


@pytest.mark.parametrize("commit", ["main", "HEAD", "--recurse-submodules", "--orphan=x"])
def test_what_is_no_hash_is_no_commit(trained: tuple[Path, dict[str, Any]], tmp_path: Path, commit: str) -> None:
    """A name moves, and an option is Git's to obey."""
    folder, version = trained
    made = _again(_with(version, code={"commit": commit}), tmp_path / "again", folder)
    [check] = [check for check in made.checks if check.what == "code commit"]
    assert (check.state, "is no commit" in check.detail) == ("missing", True)


def test_data_that_a_manifest_names_is_not_looked_for_everywhere(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Above the folders, in files without an end, over the whole disk: a manifest may say so, and nothing is read."""
    folder, version = trained
    rows = [
        {"name": "above", "path": "../outside.txt", "digest": digest_of_file(folder / "train.py")},
        {"name": "endless", "path": "/proc/kcore", "digest": "sha256:" + "1" * 64},
        {"name": "all", "path": "/", "digest": "sha256:" + "1" * 64, "size_bytes": 1000},
    ]
    (folder.parent / "outside.txt").write_bytes((folder / "train.py").read_bytes())
    states = _states(_again(_with(version, data=rows), tmp_path / "again", folder))
    assert (states["data above"], states["data endless"], states["data all"]) == ("missing", "missing", "differs")


def test_data_is_not_written_through_a_link_of_the_checkout(tmp_path: Path) -> None:
    """The repository is the stranger's: a link in it where a data file goes leads to the operator's own."""
    own = tmp_path / "own.txt"
    own.write_text("mine")
    place = repository(tmp_path / "fraud")
    (place / "samples").mkdir()
    (place / "samples" / "x.csv").symlink_to(own)
    made_at = commit(place, "a link")
    here = tmp_path / "here"
    (here / "samples").mkdir(parents=True)
    (here / "samples" / "x.csv").write_text("a\n1\n")
    digest, _, size = digest_of_folder(here / "samples")
    row = {"name": "samples", "path": "samples", "digest": digest, "size_bytes": size}
    lineage = {"code": {"repository": str(place), "commit": made_at}, "data": [row]}
    manifest = {"files": [], "lineage": lineage, "evaluation": []}
    version = {"model": "fraud", "version": 1, "digest": "sha256:" + "1" * 64, "manifest": manifest}
    assert _states(_again(version, tmp_path / "again", here))["data samples"] == "missing"
    assert own.read_text() == "mine"


def test_the_lock_file_holds_packages_and_no_options(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """README.md says to install from it."""
    folder, version = trained
    packages = {"numpy": "2.1.0", "evil": "1\n--index-url=http://evil", "--index-url=http://evil #": "1"}
    made = _again(_with(version, environment={"packages": packages}), tmp_path / "again", folder)
    assert (made.folder / "requirements.lock").read_text() == "numpy==2.1.0\n"


def test_a_command_whose_secret_was_not_kept_is_not_run(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """It would run with three stars for a password."""
    folder, version = trained
    lineage = version["manifest"]["lineage"]
    code = {**lineage["code"], "entry_point": {"command": ["python", "recorded.py", "--token=***"]}}
    secret = {**version, "manifest": {**version["manifest"], "lineage": {**lineage, "code": code}}}
    with pytest.raises(RegistryError, match=r"held a secret that was not kept \(--token=\*\*\*\)"):
        command_of(_again(secret, tmp_path / "again", folder), sys.executable)


def test_a_folder_with_something_in_it_is_not_written_over(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Nobody's work is lost."""
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(RegistryError, match="is there already"):
        _again(trained[1], tmp_path, trained[0])


def test_a_version_without_lineage_says_what_is_unknown(tmp_path: Path) -> None:
    """And what there is to do by hand."""
    files = [{"name": "model.onnx", "sha256": "a" * 64, "size_bytes": 1}]
    manifest = {"lineage": {"code": None, "notes": "old"}, "evaluation": [], "files": files}
    made = _again({"model": "m", "version": 1, "digest": "d", "manifest": manifest}, tmp_path / "again", tmp_path)
    assert set(_states(made).values()) == {"unknown"}
    with pytest.raises(RegistryError, match="names no entry point"):
        command_of(made, sys.executable)


def _archive(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _cases() -> Iterator[tuple[bytes, bytes, str]]:
    one, two = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.0 + 4e-9])
    yield _npy(one), _npy(two), "1 of 3 elements differ, by 4e-09 at most (1.0e-09 of the largest)"
    yield _npy(one), _npy(one[:2]), "float64 [3] before, float64 [2] after"
    yield b'{"a": [1, {"b": 2}]}', b'{"a": [1, {"b": 3}]}', "#a[1].b: 2 before, 3 after"
    yield b"one\ntwo\n", b"one\n2\n", 'line 2: "two" before, "2" after'
    yield b"\xff\0\1\2", b"\xff\0\1\3", "1 of 4 bytes differ, the first at byte 3"
    yield b"\xff\0\1", b"\xff\0\1\3", "3 bytes before, 4 after; the shorter is the beginning of the longer"
    yield _archive({"a.json": b'{"x": 1}'}), _archive({"a.json": b'{"x": 2}'}), "a.json#x: 1 before, 2 after"
    yield _archive({"a": b"1"}), _archive({"a": b"1", "b": b"2"}), "b: new"
    packed = "archive: the same members, packed otherwise (order, times or compression)"
    yield _archive({"a": b"1", "b": b"2"}), _archive({"b": b"2", "a": b"1"}), packed


@pytest.mark.parametrize(("before", "after", "told"), list(_cases()))
def test_a_difference_is_told_where_it_is(before: bytes, after: bytes, told: str, tmp_path: Path) -> None:
    """By element, place, line or member, and by byte where nothing better is known."""
    (tmp_path / "one").write_bytes(before)
    (tmp_path / "two").write_bytes(after)
    assert explain_difference(tmp_path / "one", tmp_path / "two") == (told,)
    assert explain_difference(tmp_path / "one", tmp_path / "one") == ()


def test_an_archive_that_would_unfold_without_end_is_not_looked_into(tmp_path: Path) -> None:
    """What it says of its members' sizes is looked at before one is read."""
    for name in ("one", "two"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", name.encode() * 1000)
            archive.infolist()[0].file_size = 2**31
    [told] = explain_difference(tmp_path / "one", tmp_path / "two")
    assert "too large to look into" in told
