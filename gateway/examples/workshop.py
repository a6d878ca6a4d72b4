"""Trains and writes: the heavy half of ``gateway.examples.digits``, run in a process of its own."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
import torch

from gateway.examples.records import SIGNATURE, Digits, evaluation, example, lineage, write_json
from gateway.examples.training import Trained, cnn, linear, lookup, perceptron

__all__ = ["main"]

TABLE = [round((level / 16) ** 0.8, 6) for level in range(17)]
_HERE = Path(__file__).parent
_SOURCES = tuple(_HERE / name for name in ("records.py", "training.py", "workshop.py"))


def main(folder: Path, key: str, only: str | None = None) -> None:
    """Everything is in place before ``models.json`` says so. ``only`` one of them: it is trained, and nothing said."""
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):  # one thread, so that sums come out the same every time
        digits = Digits.load()
        folder.mkdir(parents=True, exist_ok=True)
        if only is not None:
            _one(folder, digits, only)
            return
        good = [_made(folder, digits, make) for make in (linear, perceptron, cnn)]
        faulty = _faulty(folder, digits)
    held_out = {"pixels": digits.test_pixels.astype(int).tolist(), "labels": digits.test_labels.tolist()}
    (folder / "held_out.json").write_text(json.dumps(held_out), encoding="utf-8")
    np.savez(folder / "held_out.npz", pixels=digits.test_pixels, label=digits.test_labels)
    names = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "models.json"]
    files = {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in names}
    index = {"schema": 1, "model": "digits", "key": key, "versions": good, "faulty": faulty, "files": files}
    write_json(folder / "models.json.new", index)
    (folder / "models.json.new").replace(folder / "models.json")


def _one(folder: Path, digits: Digits, name: str) -> None:
    if name == "faulty":
        _faulty(folder, digits)
    else:
        _made(folder, digits, {"linear": linear, "perceptron": perceptron, "cnn": cnn}[name])


def _made(folder: Path, digits: Digits, make: Callable[[Digits], Trained]) -> dict[str, Any]:
    began = time.monotonic()
    trained = make(digits)
    place = folder / trained.name
    place.mkdir(exist_ok=True)
    (place / trained.file).write_bytes(trained.content)
    return _described(folder, digits, trained, f"{trained.name}/{trained.file}", began)


def _faulty(folder: Path, digits: Digits) -> dict[str, Any]:
    """A python version in a folder: code, weights, and the path of the table beside it all."""
    began = time.monotonic()
    table = folder / "table.json"
    write_json(table, TABLE)
    trained = lookup(digits, TABLE)
    place = folder / trained.name / "version"
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.py").write_bytes((_HERE / "faulty_model.py").read_bytes())
    (place / "weights.npy").write_bytes(trained.content)
    write_json(place / "settings.json", {"table": str(table.resolve())})
    return _described(folder, digits, trained, f"{trained.name}/version", began) | {"table": table.name}


def _described(folder: Path, digits: Digits, trained: Trained, source: str, began: float) -> dict[str, Any]:
    """Writes what goes with the artifact; the entry of the index, with paths relative to the folder."""
    place = folder / trained.name
    figures = evaluation(digits, trained.predicted)
    artifact = folder / source
    made = sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]
    told = lineage(
        digits,
        name=trained.name,
        sources=_SOURCES,
        parameters=trained.parameters,
        packages=trained.packages,
        features=trained.features,
        outputs={path.relative_to(folder).as_posix(): path for path in made if path.is_file()},
    )
    write_json(place / "evaluation.json", figures)
    write_json(place / "lineage.json", told)
    write_json(place / "example.json", example(digits.test_pixels[0]))
    if trained.signature_needed:
        write_json(place / "signature.json", SIGNATURE)
    sys.stdout.write(
        f"{trained.name}: accuracy {figures[0]['value']:.4f} on {figures[0]['n']} held-out rows, "
        f"{time.monotonic() - began:.1f} s\n"
    )
    sys.stdout.flush()
    return {
        "name": trained.name,
        "source": source,
        "signature": f"{trained.name}/signature.json" if trained.signature_needed else None,
        "example": f"{trained.name}/example.json",
        "lineage": f"{trained.name}/lineage.json",
        "evaluation": f"{trained.name}/evaluation.json",
        "accuracy": figures[0]["value"],
        "notes": trained.notes,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *sys.argv[3:4])
