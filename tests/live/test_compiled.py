"""That ``make test-compiled`` tests compiled code, and ``make test`` the other."""

from __future__ import annotations

import os
import subprocess
import sys

import gateway


def test_what_runs_here_and_what_is_started_from_here_is_the_code_that_is_meant():
    meant = "build/compiled" in os.environ.get("PYTHONPATH", "")
    assert gateway.is_compiled() is meant
    told = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "--version"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert told == f"turnout {gateway.__version__}{', compiled' if meant else ''}\n"
