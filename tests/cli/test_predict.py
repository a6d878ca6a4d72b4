"""``turnout predict`` on a home and through a gateway: one command, one output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loadtests.live_gateway import LiveGateway
from tests.cli.conftest import Turnout, echo_source
from tests.cli.warm import WarmCommands

SIGNATURE = """{"inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}]}"""


@pytest.fixture
def both(tmp_path: Path, commands: WarmCommands) -> Iterator[tuple[Turnout, Turnout]]:
    """The command through a gateway, and straight on its home."""
    settings = {"batch": {"directories": [str(tmp_path)], "priority": "normal"}}
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        remote = Turnout({"TURNOUT_URL": gateway.url, "TURNOUT_TOKEN": gateway.token}, tmp_path, commands)
        yield remote, Turnout({"TURNOUT_HOME": str(gateway.home)}, tmp_path, commands)


def test_the_same_command_works_on_a_home_and_through_a_gateway(both: tuple[Turnout, Turnout], tmp_path: Path) -> None:
    """One output to the last byte; through the gateway it is a job there, and recorded."""
    remote, local = both
    (tmp_path / "signature.json").write_text(SIGNATURE)
    local.done("register", "echo", echo_source(tmp_path), "--signature", tmp_path / "signature.json")
    x = np.arange(40, dtype="f4").reshape(10, 4)
    rows = "".join(f"{n},{','.join(map(str, row))}\n" for n, row in enumerate(x))
    (tmp_path / "in.csv").write_text(f"id,a,b,c,d\n{rows}")

    asked = ("predict", "echo/1", tmp_path / "in.csv")
    there = remote.done(*asked, tmp_path / "a.csv", "--id", "id", "--json").json
    here = local.done(*asked, tmp_path / "b.csv", "--id", "id", "--json").json

    assert (there["recorded"], here["recorded"]) == ("decision-log", "receipt")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv").read_text().splitlines()[:2] == ["id,y[0],y[1],y[2],y[3]", "0,0.0,1.0,2.0,3.0"]
    assert "was done already" in local.done(*asked, tmp_path / "b.csv", "--id", "id").out
    jobs = remote.done("jobs", "--json").json
    assert [(job["kind"], job["state"], job["title"]) for job in jobs] == [("batch", "done", "echo/1: in.csv to a.csv")]
    assert remote.done("jobs", jobs[0]["id"], "--json").json == jobs[0]
    for turnout in both:
        refused = turnout(*asked, tmp_path / "c.csv")
        assert refused.status == 1
        assert "5 columns (id, a, b, c, d) for input 'x', whose rows have 4 values" in refused.err
    assert local("jobs").status == 1
    assert local(*asked, tmp_path / "c.csv", "--missing", "maybe").status == 1
