"""A real writing process is killed in the middle: what it had taken is there, a gap is told of, the chain stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.telemetry.decisions.notes import NOTES_FILE
from gateway.telemetry.decisions.verify import verify
from tests.telemetry.decisions.scene import checkpoints, controls, open_part

WRITER = """
import sys
from pathlib import Path
from gateway.clock import SystemClock
from tests.telemetry.decisions.scene import answers, open_part

part = open_part(Path(sys.argv[1]), SystemClock(), segment_bytes=200_000, sync_s=0.01, checkpoint_records=1000)
for count, burst in enumerate(answers(10_000_000), 1):
    part.take(burst)
    part.tick()
    print(count * 256, flush=True)
"""


@pytest.mark.parametrize("after", [3000, 7000])
def test_kill_9_in_the_middle_of_writing_loses_nothing_that_was_taken_and_the_chain_verifies(
    tmp_path: Path, after: int
) -> None:
    """Taken is written: only what the killed process had not yet written may be missing, and a gap record says so."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    told, notes = 0, tmp_path / NOTES_FILE
    if writer.stdout is None:
        raise AssertionError("no pipe")
    for line in writer.stdout:
        told = int(line)
        # As soon as something was durable, a checkpoint says so: how soon that is, the disk decides.
        if told >= after and notes.exists() and notes.stat().st_size:
            break
    writer.kill()
    told = max([told, *(int(line) for line in writer.stdout.read().split() if line.isdigit())])
    writer.wait(60)
    writer.stdout.close()
    part = open_part(tmp_path)
    part.close()
    [gap] = controls(tmp_path, "gap")
    assert (gap["cause"], gap["records"]) == ("unclean-end", None)
    report = verify(tmp_path, checkpoints(tmp_path))
    assert report.faults == []
    assert report.records >= told
    assert report.agreed >= 2
