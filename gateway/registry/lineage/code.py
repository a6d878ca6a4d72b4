"""Which code trained: commit, tree, what was changed since, and how it was started.

Git is asked through its own command, with its external diff and text conversion off: a repository's configuration
must not run programs because somebody looks at it. What is not committed is told by its digest, and kept with the
lineage where it is small, since without it the training cannot be done again.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gateway.registry.lineage.files import digest_of_file
from gateway.registry.lineage.recorded import HIDDEN, SECRET, holds_secret, without_secrets

__all__ = [
    "MAX_PATCH_BYTES",
    "author",
    "capture",
    "entry_point",
    "redacted_words",
    "root_of",
    "source_files",
    "started",
]

MAX_PATCH_BYTES = 128 * 1024
MAX_UNTRACKED = 100
MAX_FILES = 2000
GIT_S = 60.0
_DIFF = ("diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color")


def capture(folder: Path, *, keep_patch: bool = True, apart: Iterable[Path] = ()) -> dict[str, Any]:
    """Of the repository that holds ``folder``; ``{}`` where there is none. ``apart``: files that do not count."""
    root = root_of(folder)
    if root is None:
        return {}
    found: dict[str, Any] = {"repository": _remote(root)}
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if commit is None:
        return found | {"clean": False}
    left_out = [path.resolve() for path in apart]
    patch = _git_bytes(root, *_DIFF, "HEAD", "--", ".", *_excluded(left_out, root)) or b""
    found |= {"commit": commit, "tree": _git(root, "rev-parse", "HEAD^{tree}"), "clean": not patch}
    if patch:
        found["patch"] = _patch(patch, keep=keep_patch)
    untracked = _untracked(root, set(left_out))
    return found | ({"untracked": untracked} if untracked else {})


def root_of(folder: Path) -> Path | None:
    """The top of the repository's working tree."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    return Path(top) if top else None


def author(folder: Path) -> str | None:
    """The name that Git has for whoever commits here; never an address, since a manifest is for ever."""
    return _git(folder, "config", "user.name")


def entry_point(command: Sequence[str], folder: Path) -> dict[str, Any]:
    """``command`` without secrets, its interpreter called ``python``; the folder relative to the repository's top."""
    words = redacted_words(command)
    if words and re.fullmatch(r"(.*/)?(python|pypy)[\d.]*", words[0]):
        words[0] = "python"
    root = root_of(folder)
    inside = root is not None and folder.resolve().is_relative_to(root.resolve())
    place = folder.resolve().relative_to(root.resolve()).as_posix() if root is not None and inside else "."
    return {"command": words, "folder": place}


def started() -> list[str] | None:
    """How this process was started, as a command; None where it was not by a script or module."""
    original = list(sys.orig_argv)
    while len(original) > 1 and original[1].startswith("-") and original[1] not in ("-m", "-c", "-"):
        takes_a_word = original.pop(1) in ("-X", "-W")
        if takes_a_word and len(original) > 1:
            original.pop(1)
    return ["python", *original[1:]] if len(original) > 1 and original[1] not in ("-c", "-") else None


def redacted_words(command: Sequence[str]) -> list[str]:
    """``--password x``, ``--token=x`` and ``API_KEY=x`` lose their values: a manifest is for ever, and is read by
    many."""
    words: list[str] = []
    hide = False
    for word in command:
        name, equals, _ = word.partition("=")
        option = word.startswith("-")
        secret = option and SECRET.search(name) is not None
        words.append(HIDDEN if hide and not option else f"{name}={HIDDEN}" if secret and equals else word)
        hide = secret and not equals
    return [without_secrets(word) for word in words]


def source_files(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """Of Python files below ``root``: name to digest. Installed packages are the environment's."""
    found: dict[str, str] = {}
    for path in sorted(set(paths)):
        inside = path.suffix == ".py" and path.is_relative_to(root) and "site-packages" not in path.parts
        if inside and len(found) < MAX_FILES and not any(part.startswith(".") for part in path.relative_to(root).parts):
            try:
                found[path.relative_to(root).as_posix()] = digest_of_file(path)
            except OSError:
                continue
    return found


def _remote(root: Path) -> str | None:
    place = _git(root, "remote", "get-url", "origin")
    return None if place is None else without_secrets(place)


def _patch(patch: bytes, *, keep: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"digest": "sha256:" + hashlib.sha256(patch).hexdigest(), "size_bytes": len(patch)}
    if not keep or len(patch) > MAX_PATCH_BYTES:
        return found
    try:
        content = patch.decode("utf-8")
    except UnicodeDecodeError:
        return found
    if holds_secret(content):
        return found | {"left_out": "a secret seems to stand in it"}
    return found | {"content": content}


def _excluded(paths: Sequence[Path], root: Path) -> list[str]:
    inside = [path.relative_to(root.resolve()) for path in paths if path.is_relative_to(root.resolve())]
    return [f":(top,exclude,literal){path.as_posix()}" for path in inside]


def _untracked(root: Path, apart: set[Path]) -> list[dict[str, Any]]:
    names = (_git_bytes(root, "ls-files", "--others", "--exclude-standard", "-z") or b"").split(b"\0")
    found: list[dict[str, Any]] = []
    for name in sorted(name.decode("utf-8", "replace") for name in names if name):
        path = root / name
        if any(part.startswith(".") for part in Path(name).parts):
            continue  # settings, caches, homes: a training that reads one has it among its data
        if path.resolve() not in apart and path.is_file() and len(found) < MAX_UNTRACKED:
            found.append({"name": name, "digest": digest_of_file(path)})
    return found


def _git(folder: Path, *words: str) -> str | None:
    """What Git prints; None where it has nothing to say, or is not there."""
    printed = _git_bytes(folder, *words)
    return None if printed is None else printed.decode("utf-8", "replace").strip() or None


def _git_bytes(folder: Path, *words: str) -> bytes | None:
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=GIT_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
