"""Which commit a revision or a name of GTO's stands for. Git is asked, once; after that only the commit counts."""

from __future__ import annotations

import importlib
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from .place import Place

_SETTINGS = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "fetch.unpackLimit=1")
"""The first two could run programs of the repository's choice; the last keeps what is fetched in one file."""
_UNREACHABLE = ("could not resolve", "could not read from remote", "unable to access", "connection", "timed out")


@dataclass(frozen=True)
class Checkout:
    """A repository of this machine (``folder``, its top), and one commit of it. ``below``: where REPO is within it."""

    folder: Path
    commit: str
    below: str = ""
    address: str = ""
    alias: str | None = None
    version: str | None = None
    looked_at: bool = False
    """No revision was named: what lies in the working tree must be what the commit says."""

    def tree(self) -> str:
        return git(self.folder, "rev-parse", f"{self.commit}^{{tree}}")

    def blobs(self, path: str) -> dict[str, str]:
        """Git's own ids of the regular files at a path and below it."""
        listed = git(self.folder, "ls-tree", "-r", "-z", "--full-tree", self.commit, "--", path or ".")
        rows = [row.partition("\t") for row in listed.split("\0") if row]
        return {name: facts.split(" ")[2] for facts, _, name in rows if facts.startswith("100")}


def opened(place: Place, scratch: Path, directories: list[str] | None) -> Checkout:
    """The repository with its commit; fetched into ``scratch`` unless it is a folder here with a working tree."""
    if place.local:
        return _here(place, scratch, directories)
    folder = scratch / "repository"
    return _fetched(place, folder, place.repository)


def _here(place: Place, scratch: Path, directories: list[str] | None) -> Checkout:
    folder = Path(place.repository).resolve()
    if not folder.is_dir():
        raise LookupError(f"{folder} is no folder of this machine; expected a Git repository with DVC")
    if directories is not None and not any(folder.is_relative_to(Path(found).resolve()) for found in directories):
        raise ValueError(f"{folder} is outside the folders that may be registered from ({', '.join(directories)})")
    try:
        top = git(folder, "rev-parse", "--show-toplevel")
    except LookupError:
        if git(folder, "rev-parse", "--is-bare-repository") == "true":
            return _fetched(place, scratch / "repository", str(folder))
        raise
    below = git(folder, "rev-parse", "--show-prefix").rstrip("/")
    found = _at(place, Path(top), str(folder))
    looked_at = place.revision is None and place.path is not None
    if looked_at:
        _refuse_dirty(Path(top), place)
    return replace(found, below=below, looked_at=looked_at)


def _refuse_dirty(top: Path, place: Place) -> None:
    """Without a revision, the operator means what lies there: refused where that is not what the commit says."""
    changed = git(top, "status", "--porcelain", "--untracked-files=no").splitlines()
    pointers = git(
        top, "ls-files", "--others", "--exclude-standard", "--", "*.dvc", "*dvc.yaml", "*dvc.lock"
    ).splitlines()
    found = [line[3:] for line in changed] + pointers
    if found:
        listed = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise ValueError(
            f"{top} has changes that no commit holds ({listed}), so nobody could find again what is registered; "
            f"commit them, or name a commit: dvc:{place.repository}@HEAD:{place.path}"
        )


def _fetched(place: Place, folder: Path, address: str) -> Checkout:
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    if place.artifact is not None:
        tags = [f"+refs/tags/{place.artifact}{mark}*:refs/tags/{place.artifact}{mark}*" for mark in "@#"]
        git(folder, "fetch", "--quiet", "--depth", "1", "--no-tags", address, *tags)
        return _at(place, folder, address)
    wanted = place.revision or "HEAD"
    try:
        git(folder, "fetch", "--quiet", "--depth", "1", "--no-tags", address, wanted)
    except LookupError:  # an abbreviated commit, or one that the server does not give alone
        git(folder, "fetch", "--quiet", address, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        return _at(place, folder, address)
    commit = git(folder, "rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}")
    return Checkout(folder, commit, address=address, alias=_alias(place, commit))


def _at(place: Place, folder: Path, address: str) -> Checkout:
    if place.artifact is not None:
        commit, version = _by_gto(place, folder)
        alias = place.stage or ("latest" if place.version == "latest" else None)
        return Checkout(folder, commit, address=address, alias=alias, version=version)
    wanted = place.revision or "HEAD"
    try:
        commit = git(folder, "rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}")
    except LookupError:
        raise LookupError(f"{address} has no revision {wanted!r}; expected a branch, a tag or a commit") from None
    return Checkout(folder, commit, address=address, alias=_alias(place, commit))


def _alias(place: Place, commit: str) -> str | None:
    """What can point elsewhere tomorrow; a commit's own name cannot."""
    wanted = place.revision or "HEAD"
    return None if len(wanted) >= 7 and commit.startswith(wanted) else wanted


def _by_gto(place: Place, folder: Path) -> tuple[str, str]:
    """Commit and version. As ``gto show`` has it: what was withdrawn or deprecated is not there."""
    api = importlib.import_module("gto.api")  # as much to start as all of DVC, and most names are not GTO's
    try:
        found = api.show(str(folder), place.shortcut)
    except Exception as error:  # GTO's own errors: an artifact that was never registered
        raise LookupError(f"{place.shortcut}: {error}") from error
    if not found:
        raise LookupError(
            f"{place.repository} has no {place.shortcut} in force among its annotated tags; "
            "`gto show` lists what it has"
        )
    return str(found[0]["commit_hexsha"]), str(found[0]["version"])


def git(folder: Path, *arguments: str) -> str:
    """What Git prints. LookupError with its words where it refuses; ConnectionError where nobody answers."""
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", *settings, "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )
    except FileNotFoundError:
        raise LookupError("there is no git on the PATH; install Git where Turnout runs") from None
    if done.returncode == 0:
        return done.stdout.strip("\n")
    said = done.stderr.strip() or f"git {arguments[0]} ended with {done.returncode}"
    if any(words in said.lower() for words in _UNREACHABLE):
        raise ConnectionError(said)
    raise LookupError(said)


def _environment() -> dict[str, str]:
    """Never asks anybody: a password that Git does not find is an error, not a prompt."""
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    stalled = {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "30"}
    asking = {"GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15")}
    return {**os.environ, **quiet, **stalled, **asking, "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}
