"""Compiles the way of a request to C when a wheel is built: the modules that pyproject.toml names, by mypyc.

Asked for by HATCH_BUILD_HOOK_ENABLE_CUSTOM=1, since it takes a C compiler, Python's headers and two minutes. Such a
wheel holds the same modules and beside each its compiled form, which Python prefers; without any of it all else is the
same, and slower.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_GROUP = "turnout"
_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
extensions = mypycify(sys.argv[2:], opt_level="3", debug_level="0", multi_file=True, group_name=sys.argv[1])
setup(name=sys.argv[1], packages=[], py_modules=[], ext_modules=extensions, script_args=["build_ext", "--inplace"])
"""
_TYPES = [
    "--no-site-packages",
    "--ignore-missing-imports",
    "--python-version",
    ".".join(map(str, sys.version_info[:2])),
]
"""Of the libraries nothing is believed: what compiled code gets from them it takes as it comes, whatever their types
say, so that every environment makes the same."""


class CompiledWheel(BuildHookInterface[Any]):
    """``modules`` of its table are what is compiled."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._folder = TemporaryDirectory(prefix="turnout-compiled-")
        folder = Path(self._folder.name).resolve()
        for name in self.build_config.packages:
            shutil.copytree(Path(self.root, name), folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        for library in _compile(folder, self.config["modules"]):
            build_data["force_include"][str(library)] = str(library.relative_to(folder))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()


def _compile(folder: Path, modules: Sequence[str]) -> list[Path]:
    """The libraries, each where its module lies, and the one in which their code is."""
    command = [sys.executable, "-c", _SETUP, _GROUP, *_TYPES, *modules]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the modules could not be compiled:\n{done.stdout}")
    shutil.rmtree(folder / "build")
    return sorted(folder.rglob("*.so"))
