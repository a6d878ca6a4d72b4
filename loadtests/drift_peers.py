"""Evidently's default report and River's ADWIN on streams like those of the drift benchmark, so that anyone can repeat
the comparison. Both live in one virtual environment under ``~/.cache/turnout-bench/drift``, made at first use (pip
downloads it); remove the folder to start anew. Where it cannot be made, the comparison is left out and said so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtests.peers import CACHE

__all__ = ["PeerFigures", "peer_figures"]

PACKAGES = ("evidently==0.7.23", "river==0.26.1", "pandas<3", "numpy")
_LIMIT_S = 1_200

_SCRIPT = """\
import json, statistics, sys, warnings

warnings.simplefilter("ignore")
import numpy as np
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
from river.drift import ADWIN

FEATURES, ROWS, CALM, FALSE_ROWS = 50, 10_000, 2_000, 40_000
reports, streams = int(sys.argv[1]), int(sys.argv[2])
names = [f"f{place}" for place in range(FEATURES)]
rng = np.random.default_rng(5)


def frame(rows, shift=0.0):
    values = rng.standard_normal((rows, FEATURES))
    values[:, 0] += shift
    return pd.DataFrame(values, columns=names)


def drifted(known, now):
    found = Report([DataDriftPreset()]).run(now, known).dict()["metrics"]
    for metric in found:
        config = metric["config"]
        if "column" in config and "threshold" in config:
            far = "p_value" not in config["method"]
            if (metric["value"] >= config["threshold"]) == far:
                yield config["column"]


def first_alarm(values):
    detector = ADWIN()
    for row, value in enumerate(values):
        detector.update(float(value))
        if detector.drift_detected and row >= CALM:
            return row - CALM + 1
    return None


known = frame(ROWS)
windows = {}
for rows in (50, 100, 200, 1000, 5000):
    windows[rows] = statistics.mean(bool(list(drifted(known, frame(rows)))) for _ in range(reports))
evidently = {}
for shift in (0.0, 0.2, 0.5):
    found = [list(drifted(known, frame(1000, shift))) for _ in range(reports)]
    evidently[shift] = {
        "found": statistics.mean("f0" in columns for columns in found),
        "others": statistics.mean(len(set(columns) - {"f0"}) for columns in found),
    }
adwin = {}
for shift in (0.2, 0.5):
    runs = [np.concatenate([rng.standard_normal(CALM), rng.standard_normal(20_000) + shift]) for _ in range(streams)]
    adwin[shift] = [first_alarm(values) for values in runs]
false = 0
for _ in range(FEATURES):
    detector = ADWIN()
    for value in rng.standard_normal(FALSE_ROWS):
        detector.update(float(value))
        false += detector.drift_detected
print(json.dumps({"windows": windows, "evidently": evidently, "adwin": adwin, "false": false, "rows": FALSE_ROWS}))
"""


@dataclass(frozen=True, slots=True)
class PeerFigures:
    """``false_windows``: shares of windows without drift in which Evidently reports one, by rows. Empty where the peers
    could not be had."""

    false_windows: Mapping[int, float] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)

    def adwin(self, shift: float) -> str:
        if not self.told:
            return "-"
        if not shift:
            return f"{self.told['false']} false alarms in 50 streams of {self.told['rows']:,} rows"
        runs = self.told["adwin"][str(shift)]
        found = sorted(rows for rows in runs if rows is not None)
        return f"{found[len(found) // 2]:,} (found in {len(found)} of {len(runs)})" if found else "never"

    def evidently(self, shift: float) -> str:
        """In windows of 1,000 rows."""
        if not self.told:
            return "-"
        found = self.told["evidently"][str(shift)]
        others = f"{found['others']:.1f} others a window"
        return f"{found['found']:.0%} of windows of 1,000 rows, and {others}" if shift else others


def peer_figures(*, quick: bool) -> PeerFigures:
    folder = CACHE / "drift"
    python = folder / "bin" / "python"
    try:
        if not (folder / "ready").exists():
            print(f"drift: installing {', '.join(PACKAGES)} into {folder} (once)", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
            subprocess.run(command, check=True, capture_output=True)
            (folder / "ready").touch()
        amounts = ("2", "3") if quick else ("5", "60")
        command = [str(python), "-c", _SCRIPT, *amounts]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"drift: the peers are left out: {type(error).__name__}", flush=True)
        return PeerFigures()
    told = json.loads(done.stdout.splitlines()[-1])
    return PeerFigures({int(rows): share for rows, share in told["windows"].items()}, told)
