"""A file system that is soon full, for tests of what then happens."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["small_file_system"]


@contextmanager
def small_file_system(mount: Path, *, size: str) -> Iterator[Path]:
    """``size`` as ``mount`` takes it: ``512k``. The test is skipped where none can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
