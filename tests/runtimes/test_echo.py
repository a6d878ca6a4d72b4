"""The scripted version: each script does what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes import echo
from runtimes.base import InvalidInput, LoadFailed, LoadSpec, ModelFailed, OutOfMemory
from runtimes.files import VerifiedFiles
from tests.runtimes.versions import load_spec, signature


def made(**options: Any):
    return echo.load(LoadSpec("echo", "", (), options=options), VerifiedFiles(()))


def x(rows: Any = 2, value: Any = 1.0):
    return {"x": np.full((rows, 4), value, np.float32)}


def test_it_answers_with_its_input_or_with_constants():
    """By default one FP32 tensor of four columns."""
    assert (made().run(x())["y"] == 1).all()
    assert (made(outputs={"y": 7.5}).run(x(3))["y"] == np.full((3, 4), 7.5)).all()


def test_any_signature_can_be_echoed():
    """Outputs without an input to echo are zeros, or empty strings, of the batch's rows."""
    given = signature(
        {"s": ("BYTES", ("batch",)), "n": ("INT64", ("batch", 2))},
        {"t": ("BYTES", ("batch",)), "f": ("FP32", ("batch", 3)), "u": ("BYTES", ("batch", 1))},
    )
    runtime = echo.load(LoadSpec("echo", "", (), signature=given), VerifiedFiles(()))
    text = np.empty(2, dtype=object)
    text[:] = [b"a", "ö".encode()]
    outputs = runtime.run({"s": text, "n": np.zeros((2, 2), np.int64)})
    assert outputs["t"].tolist() == text.tolist()
    assert outputs["f"].shape == (2, 3)
    assert outputs["u"].tolist() == [[b""], [b""]]


def failures(runtime: Any, batches: Any, value: Any = 1.0):
    failed = []
    for index in range(batches):
        try:
            runtime.run(x(value=value))
        except ModelFailed:
            failed.append(index)
    return failed


def test_it_fails_when_told():
    """Always, by share, after some batches, on a value."""
    assert failures(made(fail="always"), 2) == [0, 1]
    assert failures(made(fail={"share": 0.25}), 8) == [3, 7]
    assert failures(made(fail={"after": 2}), 4) == [2, 3]
    assert failures(made(fail={"equals": 13}), 2) == []
    assert failures(made(fail={"equals": 13}), 2, value=13) == [0, 1]
    with pytest.raises(InvalidInput):
        made(invalid="always").run(x())
    with pytest.raises(OutOfMemory, match="3 rows do not fit, 2 would"):
        made(oom_above_rows=2).run(x(3))
    assert made(oom_above_rows=2).run(x(2))


def test_a_running_version_is_turned_by_its_control_file(tmp_path: Path):
    """Read again for each batch; without the file nothing changes."""
    control = tmp_path / "control.json"
    runtime = made(control=str(control))
    assert failures(runtime, 1) == []
    control.write_text(json.dumps({"fail": "always"}))
    assert failures(runtime, 1) == [0]
    control.write_text("")
    assert failures(runtime, 1) == []


def test_a_batch_is_held_for_as_long_as_a_file_is_there(tmp_path: Path):
    """And goes on at once when it is gone, or was never there."""
    hold = tmp_path / "hold"
    runtime = made(hold=str(hold))
    assert runtime.run(x())
    hold.touch()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(runtime.run, x())
        assert not wait([held], timeout=0.02).done
        hold.unlink()
        assert (held.result(60)["y"] == 1).all()


def test_loads_fail_when_told_and_options_are_checked(tmp_path: Path):
    """Options may stand in an artifact file, too."""
    with pytest.raises(LoadFailed, match="no disk"):
        made(fail_load="no disk")
    with pytest.raises(LoadFailed, match=r"no option flail; it has .*fail"):
        made(flail=1)
    spec = load_spec(tmp_path, "echo", "bad.echo", {"bad.echo": b'{"fail": "always"}'})
    assert failures(echo.load(spec, VerifiedFiles(spec.files)), 1) == [0]


def test_a_crash_is_a_real_one():
    """The process is killed, as a fault in native code would."""
    code = (
        "import numpy; from runtimes import echo; from runtimes.base import LoadSpec;"
        "echo.load(LoadSpec('echo', '', (), options={'crash': 'always'}), None).run({'x': numpy.zeros((1, 4))})"
    )
    root = Path(echo.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == -9
