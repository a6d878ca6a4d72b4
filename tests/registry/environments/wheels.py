"""Wheels made on the spot, as small as wheels can be, so that real pip installs real packages in no time."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path

__all__ = ["installed_wheel", "sha256_of", "wheel"]


def wheel(folder: Path, name: str, version: str, files: Mapping[str, str] | None = None) -> Path:
    """``NAME-VERSION-py3-none-any.whl`` with one module, unless ``files`` says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    contents = dict(files or {f"{name}/__init__.py": f'__version__ = "{version}"\n'})
    contents[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    rows = [f"{place},sha256={_digest(text)},{len(text.encode())}" for place, text in contents.items()]
    contents[f"{about}/RECORD"] = "\n".join([*rows, f"{about}/RECORD,,", ""])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in contents.items():
            archive.writestr(place, text)
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def installed_wheel(folder: Path, name: str) -> Path:
    """A wheel of a package as it is installed here, so that no index is asked for it: not compressed, without tests."""
    found = distribution(name)
    about = f"{name}-{found.version}.dist-info"
    files = [file for file in found.files or () if {"..", "tests"}.isdisjoint(file.parts)]
    files = [file for file in files if file.suffix != ".pyc"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{found.version}-{_tag(found)}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            if file.name not in ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD"):
                archive.write(str(file.locate()), str(file))
        archive.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in archive.namelist()))
    return path


def _tag(found: Distribution) -> str:
    """The last of those that the wheel says: its name has them all folded into one."""
    lines = (found.read_text("WHEEL") or "").splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")][-1]
