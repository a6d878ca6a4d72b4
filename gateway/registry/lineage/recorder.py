"""``record("fraud")``: a training's lineage, seen while it runs and told where it cannot be seen.

    with record("fraud") as run:
        run.parameters(depth=6, rate=0.1)
        run.seed(7)
        …                                            # the training, as it stands
        run.proportion("accuracy", hits, rows)
        run.register("model.onnx", "--tag", "team=risk")

Seen by itself: commit, tree and uncommitted changes, entry point and source files, files that are read and written
through Python, packages and machine. A training that fails leaves no lineage file. Importing this brings the standard
library and a few small modules; what registers runs as ``turnout register``, in a process of its own.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.errors import RegistryError
from gateway.intervals import Interval, wilson
from gateway.registry.lineage import code, environment, files, fitted, recorded
from gateway.registry.lineage.values import in_memory
from gateway.registry.lineage.watching import WATCH, Opened

__all__ = ["Run", "record"]

REGISTER_S = 900.0


def record(
    model: str,
    *,
    file: Path | str | None = None,
    parent: str | None = None,
    author: str | None = None,
    notes: str | None = None,
    keep_patch: bool = True,
    identify: bool = True,
) -> Run:
    """A recording of one training of ``model``, for a ``with`` block.

    The lineage goes to ``file``, by default ``<model>.lineage.json`` where the block begins. ``parent``: the version
    that this one grew out of (``fraud/3``). ``keep_patch`` False: of uncommitted changes only the digest is kept.
    ``identify`` False: no run id, time or author, so that a training done again, with the same outcome, is the same
    version.
    """
    place = Path(file) if file is not None else Path(f"{model}.lineage.json")
    return Run(model, place.absolute(), parent, author, notes, keep_patch=keep_patch, identify=identify)


class Run:
    """What is known of one training. Its methods may be called from any thread, in any order, within the block."""

    def __init__(
        self,
        model: str,
        file: Path,
        parent: str | None,
        author: str | None,
        notes: str | None,
        *,
        keep_patch: bool,
        identify: bool,
    ) -> None:
        self.model = model
        self.file = file
        self._said = {"parent": parent, "author": author, "notes": notes}
        self._keep_patch = keep_patch
        self._identify = identify
        self._folder = Path.cwd()
        self._root = self._folder
        self._code: dict[str, Any] = {}
        self._run: dict[str, Any] = {"system": "turnout"}
        self._began = 0.0
        self._opened: list[Opened] = []
        self._tell = self._opened.append
        self._data: dict[str, dict[str, Any]] = {}
        self._named: set[Path] = set()
        self._outputs: dict[Path, None] = {}
        self._parameters: dict[str, Any] = {}
        self._seeds: dict[str, Any] = {}
        self._metrics: list[dict[str, Any]] = []
        self._features: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<Run {self.model} [{len(self._data)} data | {len(self._metrics)} metrics | {self.file}]>"

    def __enter__(self) -> Self:
        self.begin(code.started())
        WATCH.start(self._tell)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        WATCH.stop(self._tell)
        if kind is None:
            recorded.write_file(self.file, self.to_json())

    def begin(self, command: Sequence[str] | None) -> None:
        """What is known before the training: the block's beginning does it."""
        self._root = code.root_of(self._folder) or self._folder
        self._code = code.capture(self._folder, keep_patch=self._keep_patch, apart=[self.file])
        if command is not None:
            self._code["entry_point"] = code.entry_point(command, self._folder)
        if self._identify:
            self._run |= {"id": uuid.uuid4().hex, "started_at": datetime.now(UTC).isoformat(timespec="seconds")}
            self._said["author"] = self._said["author"] or code.author(self._folder)
        self._began = time.monotonic()

    def saw(self, opened: Iterable[Opened]) -> None:
        """Files that another process opened for this training."""
        self._opened.extend(opened)

    def data(self, name: str, source: Any, /, **known: Any) -> str:
        """A data input: a file or folder, or arrays or a table in memory. Gives its digest, ``sha256:…``.

        ``known``: what else is to be kept, such as ``rows``, ``url``, ``dvc`` or ``croissant``; it wins over what is
        found. A file is hashed now.
        """
        if isinstance(source, str | Path):
            path = Path(source).absolute()
            if not path.exists():
                raise RegistryError(f"data input {name!r}: there is no {path}; give the file or folder that is read")
            self._named.add(path)
            with WATCH.apart():
                found = files.data_input(path, self._root, name=name)
        else:
            found = {"name": name, **in_memory(source)}
        self._data[name] = found | {"found": "named"} | recorded.plain(known)
        return str(found["digest"])

    def output(self, path: Path | str, /) -> None:
        """A file that the training makes; needed for those that are written in native code (``torch.save``)."""
        self._outputs.setdefault(Path(path).absolute())

    def parameters(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Hyperparameters. Text under a name like ``password`` or ``api_key`` is kept as ``***``."""
        self._parameters |= recorded.plain({**(values or {}), **more})

    def seed(self, value: int) -> None:
        """Seeds ``random``, and numpy and torch where the training has imported them; and keeps that it did."""
        random.seed(value)
        self._seeds["random"] = value
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if numpy is not None:
            numpy.random.seed(value % 2**32)
            self._seeds["numpy"] = value % 2**32
        if torch is not None:
            torch.manual_seed(value)
            self._seeds["torch"] = value

    def seeds(self, **values: int) -> None:
        """Seeds that the training sets by itself."""
        self._seeds |= recorded.plain(values)

    def metric(
        self,
        name: str,
        value: float,
        *,
        n: int | None = None,
        interval: tuple[float, float] | None = None,
        slice: str | None = None,  # noqa: A002 - the manifest's word
        dataset: Path | str | None = None,
    ) -> None:
        """One figure of quality, over ``n`` rows. ``dataset``: the evaluation set: a file, the name of a data input,
        or a digest."""
        interval = None if interval is None else (float(interval[0]), float(interval[1]))
        row = {"metric": name, "value": recorded.plain(value), "n": recorded.plain(n), "slice": slice}
        row |= {"interval": interval and list(interval), "dataset": self._digest_of(dataset)}
        self._metrics.append({key: item for key, item in row.items() if item is not None})

    def proportion(
        self,
        name: str,
        hits: int,
        n: int,
        *,
        slice: str | None = None,  # noqa: A002 - the manifest's word
        dataset: Path | str | None = None,
    ) -> None:
        """A share (accuracy, recall): ``hits`` of ``n``, with its 95% Wilson score interval."""
        if not 0 <= hits <= n or n == 0:
            raise RegistryError(f"metric {name!r}: {hits} of {n} is no share; expected 0 to n of at least one row")
        self.metric(
            name, int(hits) / int(n), n=int(n), interval=_rounded(wilson(hits, n)), slice=slice, dataset=dataset
        )

    def features(self, fitted_steps: Any, /) -> str:
        """Feature steps: a fitted transformer or pipeline, or a list of ``(name, step)``. Gives the fitted digest."""
        self._features = fitted.describe(fitted_steps)
        return str(self._features["digest"])

    def notes(self, text: str) -> None:
        self._said["notes"] = text

    def register(self, source: Path | str, /, *options: str | Path) -> dict[str, Any]:
        """Registers what was trained, with the lineage so far: ``turnout register MODEL SOURCE`` and these options, at
        the gateway or home that the environment names. Gives ``{"model", "version", "digest", …}``; RegistryError says
        what the command said."""
        with WATCH.apart():
            return self._register(Path(source), [str(option) for option in options])

    def _register(self, path: Path, options: Sequence[str]) -> dict[str, Any]:
        made = sorted(path.rglob("*")) if path.is_dir() else [path]
        for each in made:
            if each.is_file():
                self.output(each)
        with tempfile.TemporaryDirectory(prefix="turnout-lineage-") as folder:
            lineage = Path(folder) / "lineage.json"
            recorded.write_file(lineage, self.to_json())
            command = [sys.executable, "-m", "gateway.cli", "register", self.model, str(path), "--json"]
            command += ["--lineage", str(lineage), *options]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=REGISTER_S)
        if done.returncode:
            raise RegistryError(f"{self.model} was not registered: {done.stderr.strip() or done.stdout.strip()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def environment(self) -> dict[str, Any]:
        """What the training runs with: this process."""
        return environment.capture()

    def loaded(self) -> list[Path]:
        """Source files of the modules that this process has."""
        names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        return [Path(name).absolute() for name in names if name]

    def to_json(self) -> dict[str, Any]:
        """The lineage as it stands now: the body of the lineage file. Hashes what was read and written so far."""
        with WATCH.apart():
            return self._body()

    def _body(self) -> dict[str, Any]:
        opened = files.sort_opened(list(self._opened), apart=[self.file])
        written = [path for path in (*opened.written, *self._outputs) if path.is_file()]
        outputs = {path: files.output_file(path, self._root) for path in written}
        seen = {path: status for path, status in opened.read.items() if not self._is_named(path, outputs)}
        run = self._run | ({"outputs": list(outputs.values())} if outputs else {})
        if self._identify:
            run |= {"duration_s": round(time.monotonic() - self._began, 3)}
        body = {
            "code": self._code_with(opened.sources, {output["name"] for output in outputs.values()}),
            "data": [*self._data.values(), *files.gathered(seen, self._root)] or None,
            "parameters": {"values": self._parameters, "seeds": self._seeds},
            "environment": self.environment(),
            "features": self._features,
            "run": run,
            "evaluation": self._metrics or None,
            **self._said,
        }
        return {name: value for name, value in body.items() if value is not None}

    def _is_named(self, path: Path, outputs: Mapping[Path, Any]) -> bool:
        return path in outputs or any(path.is_relative_to(named) for named in self._named)

    def _code_with(self, sources: tuple[Path, ...], made: set[str]) -> dict[str, Any]:
        """What the training makes itself is no code that Git does not know, though it lay there from the last time."""
        untracked = [row for row in self._code.get("untracked", ()) if row["name"] not in made]
        found = {name: value for name, value in self._code.items() if name != "untracked"}
        return found | ({"untracked": untracked} if untracked else {}) | {"files": self._sources(sources)}

    def _sources(self, seen: tuple[Path, ...]) -> dict[str, str]:
        """Of the modules that are loaded now, and those that were opened."""
        return code.source_files([*self.loaded(), *seen], self._root)

    def _digest_of(self, dataset: Path | str | None) -> str | None:
        if dataset is None:
            return None
        if isinstance(dataset, str) and dataset in self._data:
            return str(self._data[dataset]["digest"])
        if Path(dataset).is_file():
            with WATCH.apart():
                return files.digest_of_file(Path(dataset))
        if isinstance(dataset, str) and ":" in dataset:
            return dataset
        raise RegistryError(f"evaluation set {str(dataset)!r}: expected a file, the name of a data input, or a digest")


def _rounded(interval: Interval) -> Interval:
    return round(interval[0], 6), round(interval[1], 6)
