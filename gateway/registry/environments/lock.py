"""A lock file: the packages of an environment, each at one version, as ``pip freeze``, ``pip-compile`` or uv writes it.

    # python 3.11                              the interpreter; also "python==3.11.9", ".python-version" style
    numpy==2.2.6 --hash=sha256:5a…             where one has hashes, all must
    scikit-learn==1.5.2 ; sys_platform == "linux"

What is no pinned package from an index (``-r``, ``-e``, a folder, a URL, a range) is refused: it would not mean the
same tomorrow. Lines that name an index are taken where the settings name that index too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from gateway.errors import InvalidRegistration

__all__ = ["MAX_LOCK_BYTES", "Lock", "Pinned", "normal_name", "read_lock", "same_version"]

MAX_LOCK_BYTES = 4 * 1024 * 1024

_VERSION = r"[0-9]+(?:\.[0-9]+){0,2}"
_PYTHON_HEADER = re.compile(
    rf"#\s*(?:requires-)?python(?:[-_ ]version)?\s*[:= ]=*\s*[\"']?({_VERSION})[\"']?\s*"
    rf"|#.*\bwith\s+python\s+({_VERSION})\b.*"
    rf"|#.*--python-version[ =]({_VERSION})\b.*",
    re.IGNORECASE,
)
_PYTHON_LINE = re.compile(rf"(?:python\s*==\s*)?({_VERSION})", re.IGNORECASE)
_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[A-Za-z0-9._,\s-]*\])?"
    r"\s*={2,3}\s*(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)\s*(?P<marker>;.*)?"
)
_HASH = re.compile(r"\s--hash[= ](?P<algorithm>[a-z0-9]+):(?P<digest>[0-9A-Fa-f]+)")
_INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url)[ =]\s*(?P<url>\S+)")
_HARMLESS = ("--require-hashes", "--only-binary", "--prefer-binary")
_STRONG = frozenset({"sha256", "sha384", "sha512"})


@dataclass(frozen=True, slots=True)
class Pinned:
    """One package. ``conditional``: it has a marker, so it may not be needed here. ``text``: its line, for pip."""

    name: str
    version: str
    line: int
    conditional: bool = False
    hashed: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Lock:
    """``python`` None: whichever is here. ``hashed``: every package has a hash, which is checked when it is fetched."""

    packages: tuple[Pinned, ...]
    python: str | None
    hashed: bool
    text: bytes


def read_lock(data: bytes, *, indexes: Collection[str] = ()) -> Lock:
    """InvalidRegistration names the line that is not taken, and what would be. ``indexes``: those of the settings."""
    if len(data) > MAX_LOCK_BYTES:
        raise InvalidRegistration(f"the lock file has {len(data)} bytes; at most {MAX_LOCK_BYTES} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRegistration(f"the lock file is not text: {error}; expected lines like numpy==2.2.6") from None
    packages: list[Pinned] = []
    python: str | None = None
    for number, line in _lines(text):
        if line.startswith("#"):
            python = python or _header(line)
        elif line.startswith("-"):
            _check_option(line, number, indexes)
        elif found := _PYTHON_LINE.fullmatch(line):
            python = found[1]
        else:
            packages.append(_pinned(line, number))
    return _lock(packages, python, data)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first: a backslash at the end goes on, a comment ends a line."""
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun or number
        bare = line if line.lstrip().startswith("#") else re.sub(r"(^|\s)#.*$", "", line)
        if bare.rstrip().endswith("\\") and not bare.lstrip().startswith("#"):
            parts.append(bare.rstrip()[:-1])
            continue
        whole = " ".join([*parts, bare]).strip()
        if whole:
            yield begun, whole
        begun, parts = 0, []
    if parts:
        yield begun, " ".join(parts).strip()


def _header(line: str) -> str | None:
    found = _PYTHON_HEADER.fullmatch(line)
    return None if found is None else found[1] or found[2] or found[3]


def _check_option(line: str, number: int, indexes: Collection[str]) -> None:
    if re.split(r"[=\s]", line, maxsplit=1)[0] in _HARMLESS:
        return
    index = _INDEX.fullmatch(line)
    if index is None:
        raise InvalidRegistration(
            f"line {number} of the lock file, {line[:80]!r}, is not taken: only packages pinned to a version are, like "
            "numpy==2.2.6; write the result of pip freeze, pip-compile or uv pip compile"
        )
    if index["url"].rstrip("/") not in {known.rstrip("/") for known in indexes}:
        raise InvalidRegistration(
            f"line {number} of the lock file names the package index {index['url']!r:.200}, which is not one of "
            "registry.environments.indexes in the settings; name it there, or leave the line out"
        )


def _pinned(line: str, number: int) -> Pinned:
    hashes = list(_HASH.finditer(line))
    weak = sorted({found["algorithm"] for found in hashes} - _STRONG)
    if weak:
        raise InvalidRegistration(f"line {number} of the lock file has a {weak[0]} hash; expected sha256 or longer")
    found = _PINNED.fullmatch(_HASH.sub("", line).strip())
    if found is None or found["version"].endswith(".*"):
        raise InvalidRegistration(
            f"line {number} of the lock file, {line[:80]!r}, does not pin a package to one version; expected a line "
            "like numpy==2.2.6, as pip freeze, pip-compile or uv pip compile write it"
        )
    return Pinned(normal_name(found["name"]), found["version"], number, found["marker"] is not None, bool(hashes), line)


def _lock(packages: list[Pinned], python: str | None, data: bytes) -> Lock:
    if not packages:
        raise InvalidRegistration("the lock file names no packages; numpy at least is needed to run versions")
    bare = [package for package in packages if not package.hashed]
    if bare and len(bare) < len(packages):
        raise InvalidRegistration(
            f"line {bare[0].line} of the lock file: {bare[0].name} has no hash, and others have; give all one, or none"
        )
    seen: dict[str, Pinned] = {}
    for package in packages:
        before = seen.setdefault(package.name, package)
        clash = not same_version(before.version, package.version)
        if clash and not (before.conditional and package.conditional):
            raise InvalidRegistration(
                f"the lock file pins {package.name} twice: {before.version} in line {before.line}, {package.version} "
                f"in line {package.line}; expected one version"
            )
    return Lock(tuple(packages), python, not bare, data)


def normal_name(name: str) -> str:
    """As package indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def same_version(wanted: str, found: str) -> bool:
    """As ``==`` compares (PEP 440): zeros at the end count nothing, nor does a local part that is not asked for."""
    if "+" not in wanted:
        found = found.partition("+")[0]
    return _plain(wanted) == _plain(found)


def _plain(version: str) -> str:
    release, separator, local = version.lower().removeprefix("v").partition("+")
    release = re.sub(r"[-_.]?(alpha|beta|rc|a|b|c|post|dev)[-_.]?", lambda part: "." + _SHORT[part[1]], release)
    return re.sub(r"(\.0)+(?=$|\.[a-z])", "", release) + separator + re.sub(r"[-_]", ".", local)


_SHORT = {
    "alpha": "a",
    "a": "a",
    "beta": "b",
    "b": "b",
    "rc": "rc",
    "c": "rc",
    "post": "post",
    "dev": "dev",
}
