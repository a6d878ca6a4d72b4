"""What a name of DVC's says: ``REPO[@REV]:PATH``, or one that GTO gave, ``REPO:fraud@v1.2.0`` or ``REPO:fraud#prod``.

REPO is a folder of this machine, a URL (``https:``, ``ssh:``, ``git:``, ``file:``) or ``user@host:path``. An artifact
that ``dvc.yaml`` of a subfolder declares is named as in its tag: ``REPO:models/eu=fraud@v1.2.0``. A file whose own name
looks like GTO's is named from the top: ``REPO:./fraud#prod``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_VERSION = r"v(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:[-+][0-9A-Za-z.+-]+)?"
_NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9\-/_]*[a-zA-Z0-9])?"
_GTO = re.compile(
    rf"(?P<artifact>(?:[a-zA-Z0-9\-_./]+=)?{_NAME})(?:@(?P<version>latest|{_VERSION})|#(?P<stage>{_NAME}))"
)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_OVER_SSH = re.compile(r"[^/@:]+@[^/@:]+:")
_TRANSPORTS = ("https", "http", "ssh", "git")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@#=+\-~^]*")

EXPECTED = "expected dvc:REPO[@REV]:PATH, dvc:REPO:NAME@VERSION or dvc:REPO:NAME#STAGE"


@dataclass(frozen=True)
class Place:
    """``path`` is a file or folder of the repository; or ``artifact`` is a name of GTO's, with a version or a stage."""

    repository: str
    revision: str | None = None
    path: str | None = None
    artifact: str | None = None
    version: str | None = None
    stage: str | None = None

    @property
    def local(self) -> bool:
        return not (_URL.match(self.repository) or _OVER_SSH.match(self.repository))

    @property
    def shortcut(self) -> str:
        """GTO's own spelling: ``fraud@v1.2.0``, ``models/eu:fraud#prod``."""
        end = f"@{self.version}" if self.version else f"#{self.stage}"
        return f"{self.name}{end}"

    @property
    def name(self) -> str:
        return (self.artifact or "").replace("=", ":")


def parse(text: str) -> Place:
    """ValueError says what of the name is not understood."""
    where, colon, what = text.rpartition(":")
    if not colon or not where or not what or what.startswith("//"):
        raise ValueError(f"{text!r} names no file of a repository; {EXPECTED}")
    repository, revision = _apart(where.removeprefix("file://") if where.startswith("file:///") else where)
    _check_repository(repository)
    named = _GTO.fullmatch(what)
    if named is None:
        return Place(repository, _checked_revision(revision), path=_inside(what))
    if revision is not None:
        raise ValueError(
            f"{what!r} is a name of GTO's, which says the commit itself; leave out @{revision}, "
            f"or write ./{what} for a file"
        )
    return Place(repository, artifact=named["artifact"], version=named["version"], stage=named["stage"])


def _apart(where: str) -> tuple[str, str | None]:
    """REPO and REV. The first ``@`` that is no part of a host's or a folder's name begins the revision."""
    host = _URL.match(where)
    start = where.find("/", host.end()) if host else 0
    if host is None and (over_ssh := _OVER_SSH.match(where)):
        start = over_ssh.end()
    if host is None and start == 0 and Path(where).is_dir():
        return where, None
    found = [place.start() for place in re.finditer("@", where) if start >= 0 and place.start() > max(start, 0)]
    if host is None and start == 0:  # folders' names may have it too
        found = [place for place in found if Path(where[:place]).is_dir()][-1:] or found
    for place in found:
        if where[place - 1] != "/":
            return where[:place], where[place + 1 :]
    return where, None


def _check_repository(repository: str) -> None:
    if repository.startswith("-") or "::" in repository or any(ord(letter) < 32 for letter in repository):
        raise ValueError(f"{repository!r} is no repository that is taken; {EXPECTED}")
    scheme, colon, rest = repository.partition("://")
    if colon and scheme not in _TRANSPORTS:
        raise ValueError(f"{scheme}: is no transport for a repository; expected one of {', '.join(_TRANSPORTS)}")
    if colon and "@" in rest.split("/")[0] and ":" in rest.split("/")[0].rpartition("@")[0]:
        raise ValueError(
            "the repository's address has a password in it, which would be kept with the version; "
            "give it to Git's credential helper instead"
        )


def _checked_revision(revision: str | None) -> str | None:
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision or "@{" in revision):
        raise ValueError(f"revision {revision!r} is none that is taken; expected a branch, a tag or a commit")
    return revision


def _inside(what: str) -> str:
    path = PurePosixPath(what)
    if path.is_absolute() or ".." in path.parts or "\\" in what or "\0" in what:
        raise ValueError(f"path {what!r} leads out of the repository; {EXPECTED}")
    return str(path)
