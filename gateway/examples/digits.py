"""Trains the example versions of ``digits``, once: ``python -m gateway.examples.digits FOLDER``.

    FOLDER/models.json       the versions in the order to register them, and the faulty one; written last
    FOLDER/<name>/…          artifact, signature.json where the format tells too little, example.json,
                             lineage.json, evaluation.json
    FOLDER/held_out.json     the rows that no version has seen, with their labels: traffic whose truth is known
    FOLDER/held_out.npz      the same as tensors, for gates and batches
    FOLDER/table.json        what the faulty version reads for every batch; delete it to make it fail

Some ten seconds the first time; while code, packages and files stay the same, an instant. This
module imports nothing heavy: the training is ``gateway.examples.workshop``, in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["INDEX", "NAMES", "is_complete", "key", "main"]

INDEX = "models.json"
NAMES = ("linear", "perceptron", "cnn", "faulty")
_HERE = Path(__file__).parent
_LINEAGE = tuple(_HERE.parent / "registry" / "lineage" / name for name in ("environment.py", "fitted.py"))
_SOURCES = ("digits.py", "faulty_model.py", "records.py", "training.py", "workshop.py")
_PACKAGES = ("numpy", "scikit-learn", "skops", "skl2onnx", "onnx", "torch")


def key(folder: Path) -> str:
    """What the models depend on: the code, the packages, Python, and the place that the faulty one points at."""
    sources = [*(_HERE / name for name in _SOURCES), *_LINEAGE]
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
    parts += [f"{name} {version(name)}" for name in _PACKAGES]
    parts += [platform.python_version(), platform.machine(), str(folder.resolve())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_complete(folder: Path) -> bool:
    """Whether everything is there, unchanged, and made by this code and these packages."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        return bool(index["key"] == key(folder)) and all(
            hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
            for name, digest in index["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m gateway.examples.digits", description="Trains the example versions.")
    parser.add_argument("folder", type=Path, help="where artifacts and models.json go")
    parser.add_argument("--again", action="store_true", help="train even when everything is there")
    parser.add_argument("--only", choices=NAMES, help="train this one, and leave models.json alone")
    told = parser.parse_args(arguments)
    try:
        if not (told.again or told.only) and is_complete(told.folder):
            return 0
        command = [sys.executable, "-m", "gateway.examples.workshop", str(told.folder), key(told.folder)]
        command += [told.only] if told.only else []
    except PackageNotFoundError as error:
        sys.stderr.write(f"{error}; training the examples needs turnout[examples]: pip install 'turnout[examples]'\n")
        return 1
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
