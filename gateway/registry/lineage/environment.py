"""What a training runs with: packages, Python, machine. Imports the standard library only, since other interpreters run
it as a script (``PYTHON -E environment.py`` prints the JSON) to tell of themselves.

The lock is the text ``name==version`` a line, sorted; its digest names the set of packages. Packages of a repository or
a folder keep where they came from. A library that the process has not imported is not asked: CUDA is
told by torch where the training has it, else by the driver's own file.
"""

import hashlib
import json
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

__all__ = ["capture", "installed", "lock_digest", "lock_text", "machine"]

_FEATURES = re.compile(r"sse4_[12]|avx.*|fma|f16c|bmi[12]|amx_.*|asimd.*|sve.*|bf16|i8mm")
"""Those that numerical libraries choose their code by; results may differ in the last digits between them."""
_CPU = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")


def capture(names: tuple[str, ...] = ()) -> dict[str, Any]:
    """All of it. ``names``: only these packages and what they need; none: every package that is installed."""
    packages = installed(names)
    return {"lock": lock_digest(packages), "packages": packages, **machine()}


def machine() -> dict[str, Any]:
    """Python, system and processor; ``cuda`` where there is any."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "libc": " ".join(part for part in platform.libc_ver() if part) or None,
        "cpu": _cpu(),
    }
    cuda = _cuda()
    return found | ({"cuda": cuda} if cuda else {})


def installed(names: tuple[str, ...] = ()) -> dict[str, str]:
    """Name to version; to ``version @ place`` for what was not installed from an index."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        name = _normal(distribution.metadata["Name"] or "")
        if name:
            found.setdefault(name, distribution)  # the first on the path is the one that is imported
    wanted = _needed(names, found) if names else set(found)
    return {name: _version(found[name]) for name in sorted(wanted)}


def lock_text(packages: dict[str, str]) -> str:
    """Lines that pip installs: ``name==version``, or ``name @ place`` for what has one."""
    lines = []
    for name, version in sorted(packages.items()):
        number, at, place = version.partition(" @ ")
        lines.append(f"{name} @ {place}" if at else f"{name}=={number}")
    return "".join(f"{line}\n" for line in lines)


def lock_digest(packages: dict[str, str]) -> str:
    return "sha256:" + hashlib.sha256(lock_text(packages).encode()).hexdigest()


def _needed(names: tuple[str, ...], found: dict[str, metadata.Distribution]) -> set[str]:
    """The packages named, and what they require that is installed; extras are left out."""
    waiting, needed = [_normal(name) for name in names], set[str]()
    while waiting:
        name = waiting.pop()
        if name in needed or name not in found:
            continue
        needed.add(name)
        requirements = [line.strip() for line in found[name].requires or () if "extra ==" not in line]
        waiting += [_normal(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]) for line in requirements]
    return needed


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(distribution: metadata.Distribution) -> str:
    """PEP 610: what pip notes beside a package from a repository, an archive or a folder."""
    try:
        noted = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        noted = {}
    place, vcs = str(noted.get("url") or ""), noted.get("vcs_info") or {}
    if not place or (place.startswith("file:") and "dir_info" not in noted):
        return distribution.version  # an archive that lay on this machine: its number says what it was
    if vcs:
        return f"{distribution.version} @ {vcs.get('vcs')}+{_without_secrets(place)}@{vcs.get('commit_id')}"
    return f"{distribution.version} @ {_without_secrets(place)}"


def _without_secrets(place: str) -> str:
    parts = urlsplit(place)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else place


def _cpu() -> dict[str, Any]:
    try:
        text = _CPU.read_text("utf-8", "replace")
    except OSError:
        text = ""
    lines: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(":")
        lines[name.strip()] = value.strip()
    flags = (lines.get("flags") or lines.get("Features") or "").split()
    return {
        "model": lines.get("model name") or platform.processor() or None,
        "features": sorted(flag for flag in flags if _FEATURES.fullmatch(flag)),
        "cores": os.cpu_count(),
    }


def _cuda() -> dict[str, Any] | None:
    """None where no torch of this process and no driver of this machine says anything."""
    found: dict[str, Any] = {}
    torch = sys.modules.get("torch")
    version = getattr(getattr(torch, "version", None), "cuda", None)
    if version:
        found["version"] = str(version)
    try:
        driver = re.search(r"Kernel Module(?: for \S+)?\s+(\S+)", _DRIVER.read_text("utf-8", "replace"))
    except OSError:
        driver = None
    if driver:
        found["driver"] = driver[1]
    return found or None


if __name__ == "__main__":
    json.dump(capture(), sys.stdout)
