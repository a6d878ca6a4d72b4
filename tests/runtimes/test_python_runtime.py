"""Python files as versions."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.base import InvalidInput, LoadFailed, ModelFailed
from runtimes.execution import execute, load
from tests.runtimes.versions import load_spec, signature

GIVEN = signature({"x": ("FP32", ("batch", 2))}, {"y": ("FP32", ("batch",))})


@pytest.fixture(autouse=True)
def import_machinery():
    """Loading puts a finder in; a child's process ends with it, this one goes on."""
    finders, modules = list(sys.meta_path), set(sys.modules)
    yield
    sys.meta_path[:] = finders
    for name in set(sys.modules) - modules:
        if name.startswith(("turnout_model", "shapes")):
            del sys.modules[name]


def loaded(tmp_path: Path, source: str, files: Any = None, **fields: Any):
    everything = {"model.py": textwrap.dedent(source).encode(), **(files or {})}
    return load(load_spec(tmp_path, "python", "model.py", everything, **fields)).runtime


def ones(rows: Any = 3):
    array = np.ones((rows, 2), np.float32)
    array.setflags(write=False)
    return {"x": array}


def test_files_come_verified_to_the_constructor_and_close_is_called(tmp_path: Path):
    """The documented shape, with its declared signature."""
    runtime = loaded(
        tmp_path,
        """
        import numpy as np
        from runtimes.base import InvalidInput
        SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 2]}],
                     "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch"]}]}
        class Model:
            def __init__(self, files):
                assert set(files.names()) == {"model.py", "weights.bin"}
                self.weights = np.frombuffer(files.read("weights.bin"), np.float32)
            def predict(self, inputs):
                if (inputs["x"] < 0).any():
                    raise InvalidInput("x must not be negative")
                inputs["x"] *= 2
                return {"y": inputs["x"] @ self.weights}
            def close(self):
                self.weights = None
        """,
        {"weights.bin": np.array([1, 10], np.float32).tobytes()},
    )
    assert runtime.signature == GIVEN
    assert execute(runtime, ones(), 3)["y"].tolist() == [22, 22, 22]
    with pytest.raises(InvalidInput, match="x must not be negative"):
        execute(runtime, {"x": -np.ones((1, 2), np.float32)}, 1)
    runtime.close()
    with pytest.raises(ModelFailed):
        execute(runtime, ones(), 3)


def test_load_is_called_where_the_constructor_takes_nothing(tmp_path: Path):
    """Both ways are documented."""
    runtime = loaded(
        tmp_path,
        """
        class Model:
            def load(self, files):
                self.factor = float(files.read("factor"))
            def predict(self, inputs):
                return {"y": inputs["x"].sum(1) * self.factor}
        """,
        {"factor": b"2.5"},
        signature=GIVEN,
    )
    assert execute(runtime, ones(1), 1)["y"].tolist() == [5]


def test_other_files_of_the_version_can_be_imported(tmp_path: Path):
    """Modules and packages, out of verified bytes."""
    runtime = loaded(
        tmp_path,
        """
        from shapes.area import total
        class Model:
            def predict(self, inputs):
                return {"y": total(inputs["x"])}
        """,
        {"shapes/__init__.py": b"AXIS = 1", "shapes/area.py": b"from . import AXIS\ndef total(x): return x.sum(AXIS)"},
        signature=GIVEN,
    )
    assert execute(runtime, ones(2), 2)["y"].tolist() == [2, 2]


def test_failures_name_the_files_own_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """So that its author finds it."""
    runtime = loaded(
        tmp_path,
        """
        class Model:
            def predict(self, inputs):
                return {"y": 1 / 0}
        """,
        signature=GIVEN,
    )
    with pytest.raises(ModelFailed, match=r"ZeroDivisionError: division by zero \(model.py:4\)"):
        execute(runtime, ones(), 3)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = (", r"'model.py' line 1 is no valid Python"),
        ("x = 1", "defines no class Model with a method predict"),
        ("class Model: pass", "defines no class Model with a method predict"),
        ("class Model:\n    def predict(self, inputs): ...", "declares no SIGNATURE"),
        (
            "SIGNATURE = {}\nclass Model:\n    def predict(self, inputs): ...",
            "SIGNATURE in 'model.py': signature inputs",
        ),
        ("import no_such_package", "raised ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_files_that_cannot_be_versions_say_why(
    tmp_path: Path, source: str, told: str, capsys: pytest.CaptureFixture[str]
):
    """Each in the words of its author's mistake."""
    with pytest.raises(LoadFailed, match=told):
        loaded(tmp_path, source)
