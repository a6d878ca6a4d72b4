"""The recorder's process: what it is given is written, and what happens to it reaches nobody who asks for answers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.clock import SystemClock
from gateway.errors import NotFound, RecorderUnavailable
from gateway.events.records import Content, RequestRecord
from gateway.live_secrets import LiveSecrets
from gateway.recording.bursts import pack_burst
from gateway.recording.needs import SECRETS, recorder_needs, secrets_told
from gateway.recording.recorder import Recorder
from gateway.recording.road import Road, ignore
from gateway.settings import Settings
from gateway.telemetry.sink import open_sink
from tests.telemetry.decisions.follower import receiving
from tests.telemetry.records import request

WAIT_S = 60.0


async def until(condition: Callable[[], Any], what: str) -> None:
    """Of a real process, so there is nothing to advance."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - of another process, which sets no event here
            await asyncio.sleep(0.02)
    assert condition(), what


@asynccontextmanager
async def recorder(folder: Path, **options: Any) -> AsyncIterator[Recorder]:
    sink = open_sink("requests.jsonl", folder)
    assert sink is not None
    found = Recorder({"request_log": {"limit": 10_000}}, descriptors=[sink.fileno()], clock=SystemClock(), **options)
    await found.start()
    try:
        yield found
    finally:
        await found.close(WAIT_S)
        sink.close()


def pid_of(found: Recorder) -> int:
    pid = found.statistics().pid
    assert pid is not None
    return pid


def lines(folder: Path, event: str = "request") -> list[dict[str, Any]]:
    text = (folder / "requests.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]


def burst(first: int, count: int = 10) -> list[RequestRecord]:
    return [request(request_id=str(number)) for number in range(first, first + count)]


async def test_what_is_given_before_it_runs_and_until_it_ends_is_written_in_order(tmp_path: Path) -> None:
    """Nobody waits for it to start, and closing waits until all is written."""
    async with recorder(tmp_path) as found:
        for first in range(0, 5000, 10):
            found.requests_finished(burst(first))
    assert [line["request_id"] for line in lines(tmp_path)] == [str(number) for number in range(5000)]
    assert found.statistics().road.recorded == 5000
    assert found.statistics().road.lost == {}


async def test_one_that_is_killed_is_replaced_and_what_it_had_is_counted(tmp_path: Path) -> None:
    """Lines that came and those that the log says were dropped add up to all that were given."""
    given = 0
    async with recorder(tmp_path) as found:
        found.requests_finished(burst(0))
        await found.road.clear()
        given += 10
        for round_number in range(2):
            os.kill(pid_of(found), signal.SIGSTOP)
            for number in range(20):
                found.requests_finished(burst(given + number * 10))
            given += 200
            os.kill(pid_of(found), signal.SIGKILL)
            await until(lambda: found.statistics().restarts == round_number + 1, "a new one")  # noqa: B023
            found.requests_finished(burst(given))
            given += 10
            await asyncio.wait_for(found.road.clear(), WAIT_S)
    lost = found.statistics().road.lost
    assert lost == {"recorder": 400}
    written, dropped = lines(tmp_path), lines(tmp_path, "log-lines-dropped")
    assert len(written) + sum(line["count"] for line in dropped) == given
    assert sum(line["count"] for line in dropped) == 400


async def test_one_that_is_stopped_costs_bounded_memory_and_says_what_it_missed(tmp_path: Path) -> None:
    """Bursts are dropped and counted once the road is full; it says full before that. Awake again, it catches up."""
    async with recorder(tmp_path, limit_bytes=200_000) as found:
        found.requests_finished(burst(0))
        await found.road.clear()
        os.kill(pid_of(found), signal.SIGSTOP)
        fullest, first_full = 0, None
        for number in range(1, 2001):
            found.requests_finished(burst(number * 10))
            held = found.statistics().road.held_bytes
            fullest = max(fullest, held)
            if found.road.full and first_full is None:
                first_full = held
        assert fullest <= 200_000
        assert first_full is not None
        assert "does not keep up" in found.degraded()[0]
        assert first_full < 150_000
        lost = found.statistics().road.lost["full"]
        assert lost > 0
        os.kill(pid_of(found), signal.SIGCONT)
        await asyncio.wait_for(found.road.clear(), WAIT_S)
        assert not found.road.full
        found.requests_finished(burst(0))
    dropped = lines(tmp_path, "log-lines-dropped")
    assert sum(line["count"] for line in dropped) == lost
    assert len(lines(tmp_path)) + lost == 20_020


async def test_large_tensors_stay_here_and_their_digests_go(tmp_path: Path) -> None:
    """A request with megabytes crosses as a few hundred bytes, with the digest that its tensors have."""
    async with recorder(tmp_path) as found:
        await asyncio.wait_for(found.road.clear(), WAIT_S)
        large = Content({"x": np.zeros((1, 1_000_000), np.float32)}, {"y": np.ones((1, 3), np.float32)})
        sent: list[int] = []
        offer = found.road.offer
        found.road.offer = lambda body, records: sent.append(len(body)) or offer(body, records)  # type: ignore[method-assign, func-returns-value]
        found.requests_finished([request(content=large), *burst(0)])
        await found.settle()
        assert len(sent) == 2
        assert sum(sent) < 20_000
    assert len(lines(tmp_path)) == 11


async def test_a_record_that_cannot_cross_is_lost_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An observer is dropped for good when it raises; one bad record is not worth that."""
    async with recorder(tmp_path) as found:
        found.requests_finished([*burst(0), request(error=object()), *burst(10)])
    assert len(lines(tmp_path)) == 20
    assert found.statistics().road.lost == {"form": 1}
    assert any("cannot be recorded" in entry.message for entry in caplog.records)


async def test_it_is_asked_and_what_nobody_answers_is_not_found(tmp_path: Path) -> None:
    """Also while it is stopped: the asker is told, within a bound; and one who asks while it dies is told so."""
    async with recorder(tmp_path) as found:
        found.requests_finished(burst(0))
        assert (await found.ask("request-log", {}, within_s=WAIT_S))["dropped"] == 0
        with pytest.raises(NotFound, match="'nonsense'"):
            await found.ask("nonsense", {}, within_s=WAIT_S)
        os.kill(pid_of(found), signal.SIGSTOP)
        with pytest.raises(RecorderUnavailable, match="has not answered"):
            await found.ask("request-log", {}, within_s=0.05)
        asking = asyncio.ensure_future(found.ask("request-log", {}, within_s=WAIT_S))
        await asyncio.sleep(0)
        os.kill(pid_of(found), signal.SIGKILL)
        with pytest.raises(RecorderUnavailable, match="ended while it was asked"):
            await asking


async def test_a_new_one_is_told_what_lasts_and_events_that_the_old_one_had_not_taken(tmp_path: Path) -> None:
    """Tables and the like are told anew; what was on its way is told again."""
    async with recorder(tmp_path) as found:
        await found.road.clear()
        os.kill(pid_of(found), signal.SIGSTOP)
        found.tell("line", {"wall": 0.0, "event": "lasting", "number": 1}, lasting="number")
        found.tell("line", {"wall": 0.0, "event": "once", "number": 2})
        os.kill(pid_of(found), signal.SIGKILL)
        await until(lambda: found.statistics().restarts == 1, "a new one")
        await asyncio.wait_for(found.road.clear(), WAIT_S)
    assert [line["number"] for line in lines(tmp_path, "once")] == [2]
    assert {line["number"] for line in lines(tmp_path, "lasting")} == {1}


async def test_further_lines_are_read_beside_the_main_one(tmp_path: Path) -> None:
    """A web worker's road leads to the same process, and is acknowledged by itself."""
    async with recorder(tmp_path) as found:
        line = found.line()
        assert line is not None
        road = Road()
        road.connect(line, ignore, road.hang_up)
        road.begin()
        assert road.offer(pack_burst(burst(0)), 10)
        await asyncio.wait_for(road.clear(), WAIT_S)
        assert road.statistics().recorded == 10
        road.hang_up()
    assert len(lines(tmp_path)) == 10


async def test_closing_one_that_hangs_is_bounded(tmp_path: Path) -> None:
    """It is killed after a while; the gateway must end."""
    async with recorder(tmp_path) as found:
        await found.road.clear()
        os.kill(pid_of(found), signal.SIGSTOP)
        assert not await found.close(within_s=0.1)


async def test_secrets_that_change_reach_the_recorder_and_the_one_that_takes_over(tmp_path: Path) -> None:
    """By the settings: headers of spans and of sinks, read again while it runs; a new process is told the newest."""
    path = tmp_path / "token"
    path.write_text("first", encoding="utf-8")
    header = {"authorization": {"file": str(path)}}
    with receiving() as there:
        sink = {"name": "logs", "kind": "otlp", "url": there.url, "headers": header, "from_start": True}
        telemetry = {"request_log": "off", "decisions": {"sinks": [sink], "sync_s": 0.1}}
        settings = Settings.model_validate({"home": str(tmp_path / "home"), "telemetry": telemetry})
        secrets = LiveSecrets(SystemClock())
        needs = recorder_needs(settings, gateway="one", read=secrets.read)
        found = Recorder(needs.options, clock=SystemClock())
        secrets.on_change(lambda: found.hand(SECRETS, secrets_told(settings, secrets.read)))
        await found.start()
        try:
            for number, said in enumerate(("first", "second", "third", "third")):
                path.write_text(said, encoding="utf-8")
                await secrets.look()
                if number == 3:
                    os.kill(pid_of(found), signal.SIGKILL)
                    await until(lambda: found.statistics().restarts == 1, "a new one")
                seen = len(there.got)
                found.tell("table", told_table())
                found.requests_finished([request(request_id=f"{number}")])
                await until(lambda: len(there.got) > seen, "an export")  # noqa: B023
                assert there.got[-1][0]["authorization"] == said
        finally:
            await found.close(WAIT_S)
            needs.close()
            await secrets.close()


def told_table() -> dict[str, Any]:
    route = {"model": "digits", "epoch": 2, "weights": {"3": 100}, "intervals": [], "known_good": 3}
    return {"revision": 7, "routes": {"digits": {**route, "decisions": {"content": "none", "redact": []}}}}


async def test_what_keeps_a_part_from_keeping_what_comes_is_said_until_it_is_over(tmp_path: Path) -> None:
    """Labels whose file has no place, and nobody who would write at all: ``/readyz`` has both."""
    home = tmp_path / "home"
    home.write_text("in the way", encoding="utf-8")
    truth = {"path": str(home / "labels.db"), "answers": 10, "held": 10, "days": 1, "stands_s": 60.0}
    found = Recorder({"truth": truth}, clock=SystemClock())
    assert "does not run" in found.degraded()[0]
    await found.start()
    try:
        await until(lambda: any("labels cannot be kept" in text for text in found.degraded()), "the reason")
        home.unlink()
        await until(lambda: not found.degraded(), "the end of it")
    finally:
        await found.close(WAIT_S)
