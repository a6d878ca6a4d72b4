"""The demo tells its story to the end, and ends in order when it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gateway.cli.demo.traffic import Answered, Tally, percentile
from gateway.cli.demo.watch import failures_by_version
from tests.cli.conftest import ROOT

STORY_S = 500.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example models are kept from one test to the next."""
    return tmp_path_factory.mktemp("demo") / "home"


def start(home: Path, temporary: Path, *, background: bool = False) -> subprocess.Popen[str]:
    """``background``: as a script starts it with ``&``, which has it ignore SIGINT from the first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    temporary.mkdir(exist_ok=True)
    # TURNOUT_SERVER__PORT is the user's own and must not reach the demo's gateway.
    own = {"TURNOUT_HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "TURNOUT_SERVER__PORT": "1"}
    command = [sys.executable, "-m", "gateway.cli", "demo", "--fast"]
    ignoring = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    return subprocess.Popen(
        [*ignoring, *command] if background else command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, **own},
        cwd=home.parent,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_shows_the_guard_at_work_and_no_client_sees_an_error(home: Path, tmp_path: Path) -> None:
    """Off a terminal: plain lines, from the first registration to the last rollback, exit 0, nothing left."""
    demo = start(home, tmp_path / "tmp")
    out, err = demo.communicate(timeout=STORY_S)
    assert demo.returncode == 0, out + err
    assert "Traceback" not in err
    assert "\x1b" not in out
    for words in (
        "registered digits/4",
        "version 4 becomes a canary",
        "guard: rollback route/digits",
        "the guard took version 4 off the route by itself",
        "clients saw 0 errors",
        "admin: rollback route/digits",
        "turnout rollout digits 5",
        "rollout: rollout-step route/digits (30% of the split)",
        "the rollout took version 5 back by itself",
        "Verdict    rolled-back (disagreement)",
        "the gateway has stopped",
    ):
        assert words in out, out
    assert list((tmp_path / "tmp").glob("turnout-*")) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("number", "background"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_a_demo_that_is_stopped_ends_its_gateway_and_exits_0(
    home: Path, tmp_path: Path, number: signal.Signals, *, background: bool
) -> None:
    """Ctrl-C in the middle: the gateway is told to stop, its home is deleted, no process is left."""
    demo = start(home, tmp_path / "tmp", background=background)
    if demo.stdout is None:
        pytest.fail("no output")
    for line in demo.stdout:
        if "registered digits/1" in line:
            break
    family = psutil.Process(demo.pid).children(recursive=True)
    assert family
    demo.send_signal(number)
    out, err = demo.communicate(timeout=200)
    assert demo.returncode == 0, out + err
    assert "Stopped." in err
    assert "Traceback" not in err
    assert list((tmp_path / "tmp").glob("turnout-*")) == []
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def test_a_tally_counts_what_clients_saw() -> None:
    """Answers by version, fallbacks, errors, and a window for the screen."""
    tally, now = Tally(), time.monotonic()
    tally.answered(Answered(now - 60, 1, "split", 0.5, right=True))
    tally.answered(Answered(now, 1, "split", 0.01, right=True))
    tally.answered(Answered(now, 2, "fallback", 0.02, right=False))
    tally.failed("500")
    assert (tally.total, tally.errors, tally.fallbacks, tally.by_version) == (4, 1, 1, {1: 2, 2: 1})
    assert [answer.seconds for answer in tally.window(1)] == [0.01]
    assert tally.first_fallback_wall is not None


def test_a_percentile_is_a_value_that_was_seen() -> None:
    """None of nothing."""
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0


def test_failures_are_read_out_of_the_metrics_by_version() -> None:
    """Of the one route, over all causes."""
    text = (
        "# TYPE gateway_fallbacks_total counter\n"
        'gateway_fallbacks_total{cause="ModelError",route="digits",version="4"} 7.0\n'
        'gateway_fallbacks_total{cause="VersionHung",route="digits",version="4"} 2.0\n'
        'gateway_fallbacks_total{cause="ModelError",route="other",version="4"} 5.0\n'
    )
    assert failures_by_version(text, "digits") == {4: 9}
