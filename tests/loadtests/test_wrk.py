"""Closed loops: what is missing is named, and what was counted is what happened."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import orjson
import pytest

from loadtests.cores import pinned, shared
from loadtests.measurement import COUNT, Ask, Sample, median_sample
from loadtests.models import MLP, TINY
from loadtests.scenarios.rounds import Entrant, Plan, over, take_turns
from loadtests.servers import floor
from loadtests.wrk import MissingTool, require_wrk, script

needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None or shutil.which("taskset") is None, reason="needs wrk and taskset; see loadtests/wrk.py"
)


def test_a_missing_tool_is_named_with_what_to_install(tmp_path: Path) -> None:
    """Nobody has to look up which package has it."""
    with pytest.raises(MissingTool, match=r"wrk: apt-get install wrk"):
        require_wrk(search=str(tmp_path))


def test_the_script_quotes_what_lua_would_misread() -> None:
    """Header values with quotes and backslashes arrive as they are."""
    text = script(Ask("/x", b"", {"x-note": 'a "b" \\ c'}), Path("/tmp/body"))
    assert r'wrk.headers["x-note"] = "a \"b\" \\ c"' in text


def test_counted_bodies_never_repeat_over_runs() -> None:
    """What one run asked would be in the response cache when the next one asks."""
    ask = MLP.counted_json()
    texts = [script(ask, Path("/tmp/body")) for _ in range(2)]
    starts = [int(text.partition("local count = ")[2].split("\n", 1)[0]) for text in texts]
    assert abs(starts[1] - starts[0]) >= 200_000
    assert max(starts) < 2**24
    assert "local count" not in script(MLP.json(), Path("/tmp/body"))


def test_a_counted_body_is_the_plain_one_but_for_its_first_number() -> None:
    """A miss and a hit are compared on the same work."""
    counted, plain = MLP.counted_json(route="kept"), MLP.json()
    assert counted.path == "/predict/kept"
    rows = orjson.loads(counted.body.replace(COUNT, b"7"))["inputs"]
    assert rows[0][0] == 7
    assert rows[0][1:] == orjson.loads(plain.body)["inputs"][0][1:]


@needs_wrk
def test_a_floor_answers_and_its_cost_is_counted(tmp_path: Path) -> None:
    """One round of the bare server: no errors, and processor time for each request."""
    with floor("bare", pinned()) as server:
        samples = take_turns([Entrant(server, TINY.json())], Plan(1, 1, tmp_path), clients=4)
    (sample,) = samples["bare"]
    assert sample.errors == 0
    assert sample.per_second > 0
    assert sample.cpu_ms > 0
    assert sample.p99_ms >= sample.p50_ms > 0


def test_ratios_are_taken_within_a_round_and_errors_add_up() -> None:
    """A slow minute that hits both servers leaves the ratio alone; a round's errors are not lost in a median."""

    def sample(cpu_ms: float, errors: float = 0) -> Sample:
        return Sample(1.0, cpu_ms, 1.0, 1.0, 1.0, errors)

    samples = {"a": [sample(2), sample(20), sample(2, 1)], "bare": [sample(1), sample(10), sample(1)]}
    assert over(samples, "a", "bare") == (2, 2, 2)
    assert median_sample(samples["a"]).errors == 1


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_cores_are_ones_this_process_may_use() -> None:
    """In a container with some of the machine's cores, the others are left alone."""
    for cores in (pinned(), shared()):
        assert cores.server_prefix[:2] == ("taskset", "-c")
        assert cores.server
        assert cores.clients
