"""The code of a commit in a folder of its own: fetched, checked against its tree, with the patch that was kept.

Addresses come out of a manifest that somebody else may have written, so Git is allowed its plain transports only, an
address cannot be an option, and nothing of the repository runs (no hooks, no filters beyond the user's own settings).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from gateway.errors import RegistryError
from gateway.registry.lineage.places import Code

__all__ = ["apply_patch", "check_out", "holds", "tree_of"]

GIT_S = 600.0
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_TRANSPORTS = ("https", "http", "ssh", "git", "file")


def check_out(code: Code, folder: Path, places: Iterable[str]) -> str:
    """Clones from the first of ``places`` that has the commit; gives that place. RegistryError says what each said."""
    if code.commit is None:
        raise RegistryError("the lineage names no commit, so there is nothing to check out")
    if not _COMMIT.fullmatch(code.commit):
        raise RegistryError(f"{code.commit!r:.80} is no commit: expected its hash, which names the same code for ever")
    said = []
    for place in places:
        try:
            _clone(place, code.commit, folder)
        except RegistryError as error:
            said.append(f"{place}: {error}")
            continue
        return place
    tried = "; ".join(said) or "no repository is recorded"
    raise RegistryError(f"commit {code.commit} could not be fetched ({tried}). Say where it is: --repository PLACE")


def tree_of(folder: Path) -> str:
    return _git(["-C", str(folder), "rev-parse", "HEAD^{tree}"]).strip()


def holds(folder: Path, commit: str) -> bool:
    """Whether the repository around ``folder`` has the commit."""
    if not _COMMIT.fullmatch(commit):
        return False
    try:
        _git(["-C", str(folder), "cat-file", "-e", f"{commit}^{{commit}}"])
    except RegistryError:
        return False
    return True


def apply_patch(code: Code, folder: Path) -> None:
    """What was not committed, as recorded. RegistryError when it was not kept, or is not what its digest says."""
    content = code.patch.get("content")
    if not isinstance(content, str):
        why = code.patch.get("left_out")
        told = f" ({why})" if isinstance(why, str) else ""
        raise RegistryError(f"the changes that were not committed were not kept, only their digest{told}")
    data = content.encode("utf-8")
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if found != code.patch.get("digest"):
        raise RegistryError(f"the patch in the lineage has digest {found}, not {code.patch.get('digest')}")
    _git(["-C", str(folder), "apply", "--whitespace=nowarn", "-"], data)


def _clone(place: str, commit: str, folder: Path) -> None:
    if place.startswith("-"):
        raise RegistryError("an address cannot begin with a dash")
    allowed = [word for name in _TRANSPORTS for word in ("-c", f"protocol.{name}.allow=always")]
    fresh = not folder.exists()
    try:
        _git([*allowed, "-c", "protocol.allow=never", "clone", "--quiet", "--no-checkout", "--", place, str(folder)])
        _git(["-C", str(folder), "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit, "--"])
    except RegistryError:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _git(words: list[str], given: bytes = b"") -> str:
    command = [
        "git",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "credential.interactive=false",
    ]
    try:
        done = subprocess.run([*command, *words], input=given, capture_output=True, check=False, timeout=GIT_S)
    except FileNotFoundError:
        raise RegistryError("git is not installed here") from None
    except subprocess.TimeoutExpired:
        raise RegistryError(f"git gave no answer within {GIT_S:.0f} s") from None
    if done.returncode:
        raise RegistryError(
            done.stderr.decode("utf-8", "replace").strip()[-400:] or f"git ended with {done.returncode}"
        )
    return done.stdout.decode("utf-8", "replace")
