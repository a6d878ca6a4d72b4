"""Data inputs and outputs of a training: which of the files that it opened are data, and what is in them, by digest."""

from __future__ import annotations

import csv
import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.registry import canonical
from gateway.registry.lineage.watching import Opened

__all__ = [
    "Sorted",
    "data_input",
    "digest_of_file",
    "digest_of_folder",
    "gathered",
    "output_file",
    "schema",
    "sort_opened",
    "table",
]

MANY = 20
"""From this many files of one folder on, the folder is the input."""
MAX_COLUMNS = 200
"""That are named in a manifest; the digest is over all."""

_CODE = frozenset({".py", ".pyc", ".pyi", ".pyd", ".so", ".dylib", ".dll", ".pth", ".egg-link"})
_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/bin", "/run", "/opt/conda")
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sorted:
    """Of what was opened: files read, files written, and source files; ``read`` with time and size at that moment."""

    read: Mapping[Path, tuple[int, int]]
    written: tuple[Path, ...]
    sources: tuple[Path, ...]


def sort_opened(opened: Iterable[Opened], apart: Iterable[Path] = ()) -> Sorted:
    """A file that was written before or after is no input. What belongs to the system or the interpreter is left out,
    and so are hidden folders of the home, where programs keep their settings."""
    read: dict[Path, tuple[int, int]] = {}
    written: dict[Path, None] = {}
    sources: dict[Path, None] = {}
    left_out, home = (*_ours(), *(path.absolute() for path in apart)), Path.home()
    for kind, name, time_ns, size in opened:
        path = Path(name)
        if "__pycache__" in path.parts or path.suffix in _CODE:
            source = _source_of(path)
            if source is not None and kind == "read":
                sources.setdefault(source)
        elif any(path.is_relative_to(place) for place in left_out) or not path.is_file() or _is_setting(path, home):
            continue
        elif kind == "write":
            written.setdefault(path)
        else:
            read.setdefault(path, (time_ns, size))
    inputs = {path: status for path, status in read.items() if path not in written}
    return Sorted(inputs, tuple(written), tuple(sources))


def data_input(
    path: Path, root: Path, *, name: str | None = None, status: tuple[int, int] | None = None
) -> dict[str, Any]:
    """A file or folder as the manifest names it. ``status``: what it was when the training first read it."""
    place = path.absolute()
    inside = place.is_relative_to(root)
    found: dict[str, Any] = {"name": name or (place.relative_to(root).as_posix() if inside else place.name)}
    if place.is_dir():
        digest, files, size = digest_of_folder(place)
        found |= {"digest": digest, "files": files, "size_bytes": size}
    else:
        found |= {"digest": digest_of_file(place), "size_bytes": place.stat().st_size}
        found |= table(place)
    if not inside or name is not None:
        found["path"] = place.relative_to(root).as_posix() if inside else str(place)
    if status is not None and status != (place.stat().st_mtime_ns, place.stat().st_size):
        found["changed_after_reading"] = True
    pointer = _dvc(place)
    return found | ({"dvc": pointer} if pointer else {})


def gathered(read: Mapping[Path, tuple[int, int]], root: Path) -> list[dict[str, Any]]:
    """Data inputs of the files that were read; many of one folder are told as one."""
    folders: dict[Path, list[Path]] = {}
    for path in read:
        folders.setdefault(path.parent, []).append(path)
    found = []
    for folder, paths in folders.items():
        if len(paths) < MANY:
            found += [data_input(path, root, status=read[path]) | {"found": "opened"} for path in sorted(paths)]
            continue
        digest, size = _digest_of_lines(folder, paths)
        name = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
        row = {"name": f"{name}/", "digest": digest, "files": len(paths), "size_bytes": size, "found": "opened"}
        changed = any(read[path] != (path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
        found.append(row | ({"changed_after_reading": True} if changed else {}))
    return found


def output_file(path: Path, root: Path) -> dict[str, Any]:
    place = path.absolute()
    name = place.relative_to(root).as_posix() if place.is_relative_to(root) else str(place)
    return {"name": name, "digest": digest_of_file(place), "size_bytes": place.stat().st_size}


def digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_folder(folder: Path) -> tuple[str, int, int]:
    """Digest, number of files, bytes. The digest is that of the lines ``sha256  name``, sorted by name, as
    ``sha256sum`` writes them."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    digest, size = _digest_of_lines(folder, paths)
    return digest, len(paths), size


def _digest_of_lines(folder: Path, paths: Iterable[Path]) -> tuple[str, int]:
    lines, size = [], 0
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in paths):
        lines.append(f"{digest_of_file(path).removeprefix('sha256:')}  {name}\n")
        size += path.stat().st_size
    return canonical.digest_of("".join(lines).encode()), size


def table(path: Path) -> dict[str, Any]:
    """Rows and columns of a text table, and of Parquet where the training has pyarrow; ``{}`` for anything else."""
    parquet = sys.modules.get("pyarrow.parquet")
    if path.suffix == ".parquet" and parquet is not None:
        file = parquet.ParquetFile(path)
        columns = {str(column.name): str(column.type) for column in file.schema_arrow}
        return {"rows": int(file.metadata.num_rows), "schema": schema(columns)}
    if path.suffix in (".jsonl", ".ndjson"):
        return {"rows": _lines(path)}
    if path.suffix not in (".csv", ".tsv"):
        return {}
    with path.open(encoding="utf-8", errors="replace", newline="") as text:
        header = next(csv.reader(text, delimiter="," if path.suffix == ".csv" else "\t"), [])
    return {"rows": max(0, _lines(path) - 1), "schema": schema(header)}


def schema(columns: Mapping[str, str] | Sequence[str]) -> dict[str, Any]:
    """Names, with their types where they are known, in order; and the digest of that."""
    kept: Any = [[name, kind] for name, kind in columns.items()] if isinstance(columns, Mapping) else list(columns)
    return {"columns": kept[:MAX_COLUMNS], "digest": canonical.digest_of(canonical.dumps(kept))}


def _lines(path: Path) -> int:
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return lines + (last != b"\n")


def _dvc(path: Path) -> dict[str, Any] | None:
    """What ``data.csv.dvc`` beside it says, read as the few lines of text that DVC writes."""
    beside = path.with_name(path.name + ".dvc")
    try:
        text = beside.read_text("utf-8")
    except (OSError, ValueError):
        return None
    found = re.search(r"^\s*(?:-\s*)?md5:\s*([0-9a-f]{32}(?:\.dir)?)\s*$", text, re.MULTILINE)
    return {"file": beside.name, "md5": found[1]} if found else None


def _is_setting(path: Path, home: Path) -> bool:
    """What Git keeps, and what programs keep in hidden folders of the home."""
    return ".git" in path.parts or (path.is_relative_to(home) and path.relative_to(home).parts[0].startswith("."))


def _ours() -> tuple[Path, ...]:
    """Places of the interpreter, the system and programs' settings."""
    interpreter = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
    return (*(Path(place) for place in sorted(interpreter)), *(Path(place) for place in _SYSTEM))


def _source_of(path: Path) -> Path | None:
    """``__pycache__/x.cpython-311.pyc`` stands for ``x.py``."""
    if path.suffix == ".py":
        return path
    if path.suffix == ".pyc" and path.parent.name == "__pycache__":
        return path.parent.parent / f"{path.name.partition('.')[0]}.py"
    return None
