"""Sources: one file, or a folder that belongs to the version as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.errors import InvalidRegistration
from gateway.registry.sources import SourceLimits, open_source


def _write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("m.onnx", "onnx"),
        ("m.pt2", "torch"),
        ("m.pt", "torch"),
        ("m.skops", "sklearn"),
        ("m.pkl", "sklearn"),
        ("m.py", "python"),
        ("m.echo.json", "echo"),
        ("m.echo", "echo"),
    ],
)
def test_a_single_file_speaks_for_its_format(tmp_path: Path, name: str, format_name: str) -> None:
    """Its own name is its name in the version."""
    source = open_source(_write(tmp_path, name) / name)
    assert (source.format, source.entry, [file.name for file in source.files]) == (format_name, name, [name])


def test_a_file_scheme_means_a_path(tmp_path: Path) -> None:
    """``file:PATH`` and ``file:///PATH``."""
    path = _write(tmp_path, "m.onnx") / "m.onnx"
    assert open_source(f"file:{path}") == open_source(f"file://{path}") == open_source(path)


def test_a_folder_goes_in_whole_but_for_what_python_caches(tmp_path: Path) -> None:
    """Sorted by name; ``__pycache__`` differs from run to run."""
    _write(tmp_path, "model.onnx", "weights/a.bin", ".hidden", "__pycache__/m.pyc", "weights/__pycache__/x.pyc")
    source = open_source(tmp_path)
    assert [file.name for file in source.files] == [".hidden", "model.onnx", "weights/a.bin"]
    assert source.entry == "model.onnx"


@pytest.mark.parametrize(
    ("names", "entry"),
    [
        (("model.onnx", "helper.py"), "model.onnx"),
        (("model.py", "weights.onnx"), "model.py"),
        (("serve.py", "weights.npy"), "serve.py"),
        (("script.echo.json", "notes.txt"), "script.echo.json"),
    ],
)
def test_the_entry_of_a_folder_is_the_one_file_that_can_be_loaded(
    tmp_path: Path, names: tuple[str, ...], entry: str
) -> None:
    """Python beside an artifact is its helper, unless it is model.py."""
    assert open_source(_write(tmp_path, *names)).entry == entry


def test_a_folder_without_a_clear_entry_asks_for_it(tmp_path: Path) -> None:
    """Two candidates, or none; ``entry`` settles it."""
    _write(tmp_path, "a.onnx", "b.onnx", "c.txt")
    with pytest.raises(InvalidRegistration, match=r"several could be it: a.onnx, b.onnx.*--entry"):
        open_source(tmp_path)
    assert open_source(tmp_path, entry="b.onnx").entry == "b.onnx"
    with pytest.raises(InvalidRegistration, match=r"entry 'z.onnx' is not in"):
        open_source(tmp_path, entry="z.onnx")
    with pytest.raises(InvalidRegistration, match=r"none of x.txt, y.txt is a model"):
        open_source(_write(tmp_path / "other", "x.txt", "y.txt"))


def test_a_format_can_be_named_where_the_suffix_says_nothing(tmp_path: Path) -> None:
    """``--format``; an unknown one is refused with the list."""
    path = _write(tmp_path, "model.bin") / "model.bin"
    with pytest.raises(InvalidRegistration, match=r"'model.bin' speaks for no format"):
        open_source(path)
    assert open_source(path, format_name="onnx").format == "onnx"
    with pytest.raises(InvalidRegistration, match="format 'tf' is unknown; expected one of onnx"):
        open_source(path, format_name="tf")


def test_links_are_followed_inside_the_folder_and_refused_beyond_it(tmp_path: Path) -> None:
    """A link cannot bring in /etc/passwd, nor go round in circles."""
    inside = _write(tmp_path / "model", "model.onnx", "data/a.bin")
    (inside / "b.bin").symlink_to(inside / "data" / "a.bin")
    assert [file.name for file in open_source(inside).files] == ["b.bin", "data/a.bin", "model.onnx"]
    (inside / "data" / "round").symlink_to(inside, target_is_directory=True)
    with pytest.raises(InvalidRegistration, match="links to a folder that holds it"):
        open_source(inside)
    (inside / "data" / "round").unlink()
    (inside / "secret").symlink_to("/etc/hostname")
    with pytest.raises(InvalidRegistration, match="links to /etc/hostname, outside the source"):
        open_source(inside)
    (inside / "secret").unlink()
    (inside / "dangling").symlink_to(inside / "nothing")
    with pytest.raises(InvalidRegistration, match="cannot be read"):
        open_source(inside)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe would be read for ever; an empty folder holds no model; a path that is not there is named."""
    folder = _write(tmp_path / "model", "model.onnx")
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidRegistration, match="not a regular file"):
        open_source(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRegistration, match="an empty folder"):
        open_source(tmp_path / "empty")
    with pytest.raises(InvalidRegistration, match=r"gone.onnx cannot be read: .*No such file"):
        open_source(tmp_path / "gone.onnx")


def test_count_and_size_are_bounded(tmp_path: Path) -> None:
    """A wrong folder is refused before it is copied."""
    folder = _write(tmp_path, "model.onnx", "a", "b")
    with pytest.raises(InvalidRegistration, match="over 2 files"):
        open_source(folder, limits=SourceLimits(files=2))
    with pytest.raises(InvalidRegistration, match="has 12 bytes; at most 11"):
        open_source(folder, limits=SourceLimits(bytes=11))


def test_folders_that_link_to_each_other_are_not_walked_for_ever(tmp_path: Path) -> None:
    """Twenty folders with two links each to the next are a million ways to nowhere."""
    for level in range(20):
        (tmp_path / f"{level:02}").mkdir()
    for level in range(19):
        for name in ("a", "b"):
            (tmp_path / f"{level:02}" / name).symlink_to(tmp_path / f"{level + 1:02}")
    with pytest.raises(InvalidRegistration, match="over 400 files and folders, counted by every way"):
        open_source(tmp_path, limits=SourceLimits(files=100))


def test_a_file_name_with_tricks_is_refused(tmp_path: Path) -> None:
    """Backslashes and control characters never enter a manifest."""
    with pytest.raises(InvalidRegistration, match="rename the file"):
        open_source(_write(tmp_path / "one", "model.onnx", "a\\b"))
    with pytest.raises(InvalidRegistration, match="rename the file"):
        open_source(_write(tmp_path / "two", "model.onnx", "a\nb"))
