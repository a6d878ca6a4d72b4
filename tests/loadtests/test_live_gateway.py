"""What the live tests stand on: ports that two programs which test at once never share."""

from __future__ import annotations

import subprocess
import sys

from loadtests.live_gateway import free_port


def test_two_programs_draw_their_ports_from_blocks_of_their_own() -> None:
    """A server of one cannot start where the other's is about to: neither gets a port that the other may get."""
    draw = "from loadtests.live_gateway import free_port; print(*(free_port() for _ in range(150)))"
    ours = {free_port() for _ in range(150)}
    done = subprocess.run([sys.executable, "-c", draw], capture_output=True, text=True, check=True)
    theirs = {int(word) for word in done.stdout.split()}
    assert ours
    assert theirs
    assert not ours & theirs
