"""The gateway's end: callers who wait together, a recorder that is away, replicas that find each other's labels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gateway.clock import ManualClock
from gateway.errors import Overloaded, StoreUnavailable
from gateway.routing.table import Arm, Route, RoutingTable
from gateway.telemetry.feedback.asks import ASK_JOIN, ASK_REPORT
from gateway.telemetry.feedback.desk import MAX_WAITING, JoinedLabel, TruthDesk
from gateway.telemetry.feedback.families import TruthFamilies
from gateway.telemetry.feedback.part import TruthPart
from tests.telemetry.feedback.stream import BINARY, Case, cases, chunks, plainly, record, told


class Recorder:
    """The part, asked as the gateway asks it; ``gate`` holds its answers back, ``away`` is what it says instead."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.part = TruthPart(path, clock)
        self.part.told("table", told())
        self.gate = asyncio.Event()
        self.gate.set()
        self.away: Exception | None = None
        self.joins: list[int] = []

    async def __call__(self, kind: str, body: Mapping[str, Any], /) -> Mapping[str, Any]:
        await self.gate.wait()
        if self.away is not None:
            raise self.away
        if kind == ASK_JOIN:
            self.joins.append(len(body["labels"]))
        return self.part.ask(kind, body)


class Log:
    """What replicas share, in memory."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    async def append(self, scope: str, values: Sequence[bytes], /) -> None:
        self.values += values

    async def following(self, scope: str, after: str, /) -> tuple[str, Sequence[bytes]]:
        if after == "":
            return str(len(self.values)), ()
        return str(len(self.values)), self.values[int(after) :]


class Replica:
    def __init__(self, path: Path, clock: ManualClock, shared: Log | None = None) -> None:
        self.recorder = Recorder(path, clock)
        self.joined: list[JoinedLabel] = []
        self.desk = TruthDesk(self.recorder, wanted=lambda: True, joined=self.joined.append, clock=clock, shared=shared)

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = self.recorder.part.ask(ASK_REPORT, {"route": "digits", "days": 0})["feedback"]
        return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def alone(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Replica]:
    replica = Replica(tmp_path / "labels.db", clock)
    yield replica
    await replica.desk.close()
    replica.recorder.part.close()


@pytest.fixture
def two(tmp_path: Path, clock: ManualClock) -> Iterator[tuple[Replica, Replica]]:
    log = Log()
    pair = Replica(tmp_path / "one.db", clock, log), Replica(tmp_path / "two.db", clock, log)
    yield pair
    for replica in pair:
        replica.recorder.part.close()


def labels_of(stream: Sequence[Case]) -> list[tuple[str, Any]]:
    return [(case.id, case.label) for case in stream]


async def test_two_senders_at_once_share_writes_and_each_hears_of_its_own(alone: Replica) -> None:
    """Both send the same labels in another order: each joins once, is a duplicate once, and the sums are right."""
    stream = cases(1000)
    alone.recorder.part.take([record(case) for case in stream])
    alone.recorder.gate.clear()
    sent = [*chunks(labels_of(stream), 50), *chunks(labels_of(stream[::-1]), 50)]
    waiting = [asyncio.ensure_future(alone.desk.join(chunk, None)) for chunk in sent]
    await asyncio.sleep(0)
    alone.recorder.gate.set()
    verdicts = await asyncio.gather(*waiting)
    outcomes = [outcome for found in verdicts for outcome, _, _ in found]
    assert (outcomes.count("joined"), outcomes.count("duplicate")) == (1000, 1000)
    assert len(alone.recorder.joins) <= 3
    report = await alone.desk.report("digits", 0)
    for number, version in report["versions"].items():
        mine = plainly(case for case in stream if str(case.version.number) == number)
        assert {name: version["measures"][name]["value"] for name in mine} == mine


async def test_labels_for_a_recorder_that_is_away_are_refused_to_each_sender(alone: Replica) -> None:
    """Nobody waits for ever, nobody is told that a label is kept which is not; and more than may wait is refused."""
    alone.recorder.away = StoreUnavailable("the recorder does not run just now")
    waiting = [asyncio.ensure_future(alone.desk.join([("x", 1)], None)) for _ in range(3)]
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(failure) for failure in failures] == [StoreUnavailable] * 3
    assert len({id(failure) for failure in failures}) == 3
    with pytest.raises(Overloaded, match="wait"):
        await alone.desk.join([("x", 1)] * (MAX_WAITING + 1), None)


async def test_what_labels_say_is_told_once_and_shown_in_metrics(alone: Replica) -> None:
    """Evidence by place, epoch and split; scores by version, of versions that a route names and no others."""
    stream = cases(300)
    alone.recorder.part.take([record(case) for case in stream])
    await alone.desk.join(labels_of(stream), None)
    await alone.desk.look()
    await alone.desk.look()
    assert [(label.bucket, label.wrong) for label in alone.joined] == [
        (case.place, case.answer != case.label) for case in stream
    ]
    route = Route("digits", "digits", (Arm(1, 1),), truth=BINARY)
    registry = CollectorRegistry()
    registry.register(TruthFamilies(lambda: alone.desk.scores, lambda: RoutingTable({"digits": route}, None, 1)))
    text = generate_latest(registry).decode()
    accuracy = plainly(case for case in stream if case.version.number == 1)["accuracy"]
    assert f'gateway_truth_score{{metric="accuracy",model="digits",version="1"}} {accuracy}' in text
    assert 'gateway_truth_label_share{model="digits",version="1"} 1.0' in text
    assert 'gateway_feedback_total{model="digits",outcome="joined",version="1"}' in text
    assert 'version="2"' not in text


async def looks(*replicas: Replica, times: int = 4) -> None:
    for _ in range(times):
        for replica in replicas:
            await replica.desk.look()


async def test_a_label_finds_the_replica_that_gave_the_answer(two: tuple[Replica, Replica], clock: ManualClock) -> None:
    """Whichever replica it was sent to, before or after the answer: it joins where the answer is, once, and nobody
    counts it as unknown; one of nobody's answer is unknown once."""
    one, other = two
    await looks(one, other, times=1)
    stream = cases(40)
    one.recorder.part.take([record(case) for case in stream[:20]])
    assert {outcome for outcome, _, _ in await other.desk.join(labels_of(stream), None)} == {"held"}
    await looks(one, other)
    one.recorder.part.take([record(case) for case in stream[20:39]])
    await looks(one, other)
    assert one.counts() == {"joined": 20, "early": 19}
    assert other.recorder.part._ledger.held == one.recorder.part._ledger.held == 1
    clock.advance(BINARY.horizon_s + 1)
    for replica in two:
        replica.recorder.part.tick()
    assert one.counts() == {"joined": 20, "early": 19}
    assert other.recorder.part._ledger.counts() == [("", 0, "unknown", 1)]


async def test_what_cannot_be_read_of_the_others_stops_nobody(two: tuple[Replica, Replica]) -> None:
    """Lines of another release, or none at all, among those that can be read."""
    one, other = two
    await looks(one, other, times=1)
    (case,) = cases(1)
    one.recorder.part.take([record(case)])
    log = other.desk._shared
    assert isinstance(log, Log)
    await log.append(
        "labels", [b"\xff", b"[]", b'["label"]', b'["label", "00"]', b'["label", "zz", 1, null]', b'["weather", "00"]']
    )
    await other.desk.join(labels_of([case]), None)
    await looks(one, other)
    assert one.counts() == {"joined": 1}


async def test_a_label_is_its_senders_on_every_replica(two: tuple[Replica, Replica]) -> None:
    """So that a noisy one has one share of each; an older replica does not say whose a label is."""
    one, other = two
    await looks(one, other, times=1)
    await one.desk.join(labels_of(cases(3)), None, "labels-of-fraud")
    log = one.desk._shared
    assert isinstance(log, Log)
    await log.append("labels", [orjson.dumps(["label", "00" * 16, 1, None])])
    await looks(one, other)
    for replica in two:
        held = replica.recorder.part._ledger._held
        senders = dict(held._connection.execute("SELECT sender, count(*) FROM held_by GROUP BY sender"))
        assert senders == {"labels-of-fraud": 3, "": 1}
