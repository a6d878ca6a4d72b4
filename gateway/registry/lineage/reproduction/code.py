"""The code that trained, brought back and checked: commit, tree, patch, files that Git did not know, source files."""

from __future__ import annotations

import shutil
from pathlib import Path

from gateway.errors import RegistryError
from gateway.registry.lineage.files import digest_of_file
from gateway.registry.lineage.interpreters import folder_of_package
from gateway.registry.lineage.places import Code
from gateway.registry.lineage.reproduction.asked import MAX_TOLD, Asked, Check, inside
from gateway.registry.lineage.reproduction.checkout import apply_patch, check_out, holds, tree_of

__all__ = ["code_again"]


def code_again(code: Code, asked: Asked) -> tuple[Path | None, list[Check]]:
    """A checkout; else, of an installed package's module, the package where it is; else the sources that are here.
    Gives the folder that training starts from, None where there is no code to start."""
    if code.commit is not None:
        return _checked_out(code, asked)
    if not code.files:
        return None, [Check("code", "unknown", "neither a commit nor source files were recorded")]
    words = code.entry_point.command if code.entry_point is not None else ()
    module = words[2] if len(words) > 2 and words[1] == "-m" else None
    root = folder_of_package(asked.interpreter, module.partition(".")[0]) if module else asked.here
    if root is None:
        return None, [Check("code", "missing", f"{asked.interpreter} has no package for {module}; install it there")]
    start = asked.folder / "code"
    start.mkdir()
    if module is None:
        _copy_sources(code, root, start)
    return start, [_sources("code files", code, root)]


def _checked_out(code: Code, asked: Asked) -> tuple[Path | None, list[Check]]:
    folder = asked.folder / "code"
    commit = str(code.commit)
    here = [str(asked.here)] if asked.repository is None and holds(asked.here, commit) else []
    places = (
        [asked.repository] if asked.repository is not None else [*here, *([code.repository] if code.repository else [])]
    )
    try:
        place = check_out(code, folder, places)
    except RegistryError as error:
        return None, [Check("code commit", "missing", str(error))]
    tree = tree_of(folder)
    checks = [Check("code commit", "ok", f"{commit} from {place}")]
    if code.tree is not None:
        same = tree == code.tree
        checks.append(Check("code tree", "ok" if same else "differs", tree if same else f"{code.tree} → {tree}"))
    if code.patch:
        try:
            apply_patch(code, folder)
            checks.append(Check("code patch", "ok", f"applied {code.patch.get('digest')}"))
        except RegistryError as error:
            checks.append(Check("code patch", "missing", str(error)))
    if code.untracked:
        checks.append(_untracked(code, asked, folder))
    return folder, [*checks, *([_sources("code files", code, folder)] if code.files else [])]


def _untracked(code: Code, asked: Asked, folder: Path) -> Check:
    """Files that Git did not know are taken from where the command was given, if they are still the same there."""
    missing = []
    for row in code.untracked:
        found, target = asked.here / row.name, folder / row.name
        if not inside(folder, target) or not found.is_file() or digest_of_file(found) != row.digest:
            missing.append(row.name)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(found, target)
    if not missing:
        return Check("untracked files", "ok", f"{len(code.untracked)} copied from {asked.here}")
    needed = [name for name in missing if name in code.files]
    what = "code untracked" if needed else "untracked files"
    return Check(what, "missing", f"never committed, and not here as they were: {', '.join(missing[:MAX_TOLD])}")


def _copy_sources(code: Code, root: Path, target: Path) -> None:
    for name in code.files:
        source, place = root / name, target / name
        if source.is_file() and inside(target, place):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)


def _sources(what: str, code: Code, root: Path) -> Check:
    """The files that were loaded in training, by digest."""
    wrong = []
    for name, digest in code.files.items():
        path = root / name
        if not inside(root, path) or not path.is_file():
            wrong.append(f"{name}: missing")
        elif digest_of_file(path) != digest:
            wrong.append(f"{name}: {digest} → {digest_of_file(path)}")
    if wrong:
        return Check(what, "differs", "; ".join(wrong[:MAX_TOLD]))
    return Check(what, "ok", f"{len(code.files)} source files as they were, in {root}")
