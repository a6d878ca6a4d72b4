"""Counts of real children and inline engines, over real channels; and what a hostile child may send."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.tree import DecisionTreeClassifier

from gateway.errors import VersionUnavailable
from gateway.messages import DATATYPES, Arrays, VersionRef
from gateway.registry.profile import compute_profile
from gateway.registry.profile_reading import plan_of, read_profile
from gateway.serving.conversation import Conversation
from gateway.serving.counts import CaptureReader, Counting, CountingPlan, CountsReader
from gateway.serving.engine import VersionSpec
from gateway.serving.fork_server import ForkServer
from gateway.serving.inline_counting import InlineCounting
from gateway.serving.inline_engine import InlineEngine
from gateway.serving.process_engine import ProcessEngine
from runtimes.base import LoadSpec
from runtimes.counting import Plan
from runtimes.counting_child import PART_BYTES
from runtimes.counting_rows import Counter
from runtimes.echo import DEFAULT_SIGNATURE
from runtimes.packets import ChannelFault, Op, Packet, send
from runtimes.signature import Signature, TensorSpec
from tests.runtimes.counted import profile_body, rows_of
from tests.runtimes.versions import exported_torch, iris, load_spec, signature
from tests.serving.processes import LONG_S, eventually

REFERENCE = rows_of(2000, 4)
PROFILE = profile_body({"x": REFERENCE}, {"y": REFERENCE})


class Tellings(list[tuple[str, int, int, bytes]]):
    """What was told of counts."""

    def __call__(self, digest: str, seen: int, counted: int, counts: bytes) -> None:
        self.append((digest, seen, counted, counts))

    def seen(self, digest: str = "sha256:own") -> int:
        return sum(seen for own, seen, _, _ in self if own == digest)

    def counted(self, digest: str = "sha256:own") -> int:
        return sum(counted for own, _, counted, _ in self if own == digest)

    def total(self, digest: str = "sha256:own") -> np.ndarray[Any, Any]:
        vectors = [np.frombuffer(counts, "<i8") for own, _, _, counts in self if own == digest and counts]
        return np.sum(vectors, axis=0)


def plan(body: dict[str, Any] = PROFILE, digest: str = "sha256:own") -> CountingPlan:
    return CountingPlan(digest, json.dumps(body))


def counting(told: Tellings, *plans: CountingPlan, probe: Arrays | None = None) -> Counting:
    return Counting(plans or (plan(),), told, probe)


def spec_of(load: LoadSpec, **fields: Any) -> VersionSpec:
    return VersionSpec(VersionRef("digits", 3), "sha256:0", load, **fields)


def expected(rows: np.ndarray[Any, Any], body: dict[str, Any] = PROFILE) -> np.ndarray[Any, Any]:
    counter = Counter(Plan.from_json(body))
    counter.add({"x": rows}, {"y": rows}, len(rows))
    return counter.take()[1]


async def run(engine: ProcessEngine | InlineEngine, inputs: Arrays) -> Any:
    """One batch as traffic brings it."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    engine.launch([inputs], limit_s=LONG_S, done=answered.set_result)
    return await answered


@pytest.fixture
async def forks() -> AsyncIterator[ForkServer]:
    server = ForkServer(preload=())
    yield server
    await server.close()


@pytest.fixture
async def child(forks: ForkServer) -> AsyncIterator[ProcessEngine]:
    engine = ProcessEngine(spec_of(LoadSpec("echo", "", ())), forks, lambda _: None)
    await engine.start()
    yield engine
    await engine.close()


async def test_a_child_counts_what_it_ran_and_tells_the_integers(child: ProcessEngine) -> None:
    """Bit for bit what the same rows give when they are counted at once; nothing of it delays an answer."""
    told = Tellings()
    child.count(counting(told))
    live = rows_of(700, 4, seed=3)
    for begin in range(0, 700, 7):
        result = await run(child, {"x": live[begin : begin + 7]})
        assert np.array_equal(result.outputs["y"], live[begin : begin + 7])
    await eventually(lambda: told.seen() == 700)
    assert told.counted() == 700
    assert np.array_equal(told.total(), expected(live))


async def test_warm_up_and_self_inferences_are_not_traffic(child: ProcessEngine) -> None:
    """What runs by itself (warm-up, checks) and the probe's very inputs leave no trace in the counts."""
    told, probe = Tellings(), {"x": rows_of(1, 4)}
    child.count(counting(told, probe=probe))
    await child.run([{"x": rows_of(5, 4)}], limit_s=LONG_S)
    await run(child, probe)
    await run(child, {"x": rows_of(3, 4)})
    await eventually(lambda: told.seen() > 0)
    assert (told.seen(), told.counted()) == (3, 3)


async def test_rows_that_came_over_borrowed_channels_are_counted_by_the_same_child(child: ProcessEngine) -> None:
    """Several web workers, one vector: their batches run in one child, which tells its owner."""
    told = Tellings()
    child.count(counting(told))
    lines = [
        Conversation(VersionRef("digits", 3), child.share(), lambda _: None, max_rows=32, shared=True) for _ in "ab"
    ]
    live = rows_of(40, 4, seed=5)
    try:
        for place, line in enumerate(lines):
            line.begin(DEFAULT_SIGNATURE)
            answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            line.launch([{"x": live[place * 20 : place * 20 + 20]}], LONG_S, answered.set_result)
            await answered
        await eventually(lambda: told.seen() == 40)
        assert np.array_equal(told.total(), expected(live))
    finally:
        for line in lines:
            line.close()


async def test_two_profiles_are_counted_side_by_side_and_may_be_replaced(child: ProcessEngine) -> None:
    """A candidate is counted with its known good's profile besides its own; a change leaves the other one alone."""
    other = profile_body({"x": REFERENCE * 2}, {"y": REFERENCE * 2})
    told = Tellings()
    child.count(counting(told, plan(), plan(other, "sha256:other")))
    live = rows_of(50, 4, seed=6)
    await run(child, {"x": live})
    await eventually(lambda: told.counted() == 50 == told.counted("sha256:other"))
    assert np.array_equal(told.total("sha256:other"), expected(live, other))
    child.count(counting(told, plan()))
    await run(child, {"x": live})
    await eventually(lambda: told.counted() == 100)
    assert told.counted("sha256:other") == 50
    assert np.array_equal(told.total(), expected(np.concatenate([live, live])))


async def test_a_child_that_dies_takes_at_most_what_it_had_not_told(forks: ForkServer) -> None:
    """The next one counts on from nothing; what was told stays told."""
    told = Tellings()
    first = ProcessEngine(spec_of(LoadSpec("echo", "", ())), forks, lambda _: None)
    await first.start()
    first.count(counting(told))
    await run(first, {"x": rows_of(10, 4)})
    await eventually(lambda: told.counted() == 10)
    await run(first, {"x": rows_of(10, 4)})
    os.kill(first.pid or 0, signal.SIGKILL)
    await first.close()
    second = ProcessEngine(spec_of(LoadSpec("echo", "", ())), forks, lambda _: None)
    await second.start()
    second.count(counting(told))
    await run(second, {"x": rows_of(10, 4, seed=9)})
    await eventually(lambda: told.counted() >= 20)
    await second.close()
    assert told.counted() in (20, 30)


async def test_a_profile_that_does_not_fit_is_seen_and_not_counted(child: ProcessEngine) -> None:
    """Another signature's profile counts no row, and harms nobody."""
    wide = rows_of(100, 9)
    told = Tellings()
    child.count(counting(told, plan(profile_body({"x": wide}, {"y": wide}))))
    await run(child, {"x": rows_of(8, 4)})
    await eventually(lambda: told.seen() == 8)
    assert told.counted() == 0
    assert all(counts == b"" for _, _, _, counts in told)


async def test_a_thousand_features_come_in_parts(forks: ForkServer) -> None:
    """Far more integers than a packet holds, whole at the other end."""
    reference = rows_of(500, 1000)
    body = profile_body({"x": reference}, {"y": reference})
    assert Plan.from_json(body).size * 8 > 2 * PART_BYTES
    wide = Signature((TensorSpec("x", "FP32", ("batch", 1000)),), (TensorSpec("y", "FP32", ("batch", 1000)),))
    engine = ProcessEngine(spec_of(LoadSpec("echo", "", (), signature=wide)), forks, lambda _: None)
    await engine.start()
    told = Tellings()
    engine.count(counting(told, plan(body)))
    live = rows_of(100, 1000, seed=2)
    for begin in range(0, 100, 20):
        await run(engine, {"x": live[begin : begin + 20]})
    await eventually(lambda: told.counted() == 100)
    await engine.close()
    assert np.array_equal(told.total(), expected(live, body))


async def test_an_inline_version_is_counted_in_the_gateway() -> None:
    """Buffered likewise, with the same integers; its probes are left out."""
    engine = InlineEngine(spec_of(LoadSpec("echo", "", ())))
    await engine.start()
    told, probe = Tellings(), {"x": rows_of(1, 4)}
    engine.count(counting(told, probe=probe))
    live = rows_of(60, 4, seed=8)
    for begin in range(0, 60, 6):
        await run(engine, {"x": live[begin : begin + 6]})
    await run(engine, probe)
    await eventually(lambda: told.counted() == 60)
    await engine.close()
    assert told.seen() == 60
    assert np.array_equal(told.total(), expected(live))


async def test_inline_rows_are_counted_in_the_end_though_processors_are_short() -> None:
    """A slice at a time, within its share of the time."""
    told = Tellings()
    inline = InlineCounting(counting(told), asyncio.get_running_loop(), short=lambda: True)
    live = rows_of(1000, 4, seed=8)
    for begin in range(0, 1000, 50):
        inline.note({"x": live[begin : begin + 50]}, {"y": live[begin : begin + 50]}, 50)
    await eventually(lambda: told.counted() == 1000)
    inline.stop()
    assert np.array_equal(told.total(), expected(live))


def _iris(folder: Path, kind: str) -> LoadSpec:
    """A classifier of iris as each runtime takes it."""
    if kind == "torch":
        given = signature(
            {"x": ("FP32", ("batch", 4))}, {"logits": ("FP32", ("batch", 3)), "label": ("INT64", ("batch",))}
        )
        return load_spec(folder, "torch", "m.pt2", {"m.pt2": exported_torch()}, signature=given)
    estimator = DecisionTreeClassifier(random_state=1).fit(*iris())
    if kind == "sklearn":
        return load_spec(folder, "sklearn", "m.skops", {"m.skops": skops.io.dumps(estimator)})
    converted = to_onnx(estimator, iris()[0][:1].astype(np.float32), options={"zipmap": False})
    return load_spec(folder, "onnx", "m.onnx", {"m.onnx": converted.SerializeToString()})


@pytest.mark.parametrize("kind", ["onnx", "sklearn", "torch"])
async def test_every_runtime_is_profiled_and_counted(forks: ForkServer, tmp_path: Path, kind: str) -> None:
    """Its own answers on the reference make the output bins; what it ran live is counted in them, exactly."""
    spec = _iris(tmp_path, kind)
    engine = ProcessEngine(spec_of(spec), forks, lambda _: None)
    info = await engine.start()
    (given,) = info.signature.inputs
    np.save(tmp_path / "iris.npy", iris()[0].astype(DATATYPES[given.datatype]))
    named = replace(spec, signature=info.signature)
    data = await asyncio.to_thread(compute_profile, tmp_path / "iris.npy", info.signature, named)
    profile = read_profile(data)
    assert {feature.side for feature in profile.plan.features} == {"input", "output"}
    told = Tellings()
    engine.count(counting(told, CountingPlan("sha256:own", plan_of(data))))
    rows = np.load(tmp_path / "iris.npy")
    for begin in range(0, len(rows), 10):
        await run(engine, {given.name: rows[begin : begin + 10]})
    await eventually(lambda: told.counted() == len(rows))
    await engine.close()
    assert np.array_equal(told.total(), profile.reference), "the same rows again are the reference itself"


HONEST = expected(rows_of(5, 4))


def counts_packet(vector: np.ndarray[Any, Any] = HONEST, **changes: Any) -> Packet:
    fields = {"slot": 0, "output": 0, "flags": 1, "layout": 0, "rows": 5, "size_bytes": 5, "tail": vector.tobytes()}
    return Packet(Op.COUNTS, **{**fields, **changes})


def altered(place: int, value: int) -> np.ndarray[Any, Any]:
    vector = HONEST.copy()
    vector[place] = value
    return vector


LIES = {
    "another plan": counts_packet(slot=1),
    "a part out of turn": counts_packet(output=1, flags=2),
    "no parts": counts_packet(flags=0),
    "too short": counts_packet(HONEST[:-1]),
    "too long": counts_packet(np.append(HONEST, 0)),
    "more counted than seen": counts_packet(size_bytes=4),
    "other rows": counts_packet(altered(0, 6)),
    "a negative count": counts_packet(altered(1, -1)),
    "bins that do not add up": counts_packet(altered(1, int(HONEST[1]) + 1)),
    "a sum out of bounds": counts_packet(altered(Plan.from_json(PROFILE).features[0].total, 1 << 60)),
    "integers for nothing": counts_packet(rows=0, size_bytes=0),
    "endless rows": counts_packet(size_bytes=1 << 60),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_hostile_child_sends_is_not_believed(lie: str) -> None:
    """Each is a breach of the protocol, and nothing is told of it."""
    told = Tellings()
    with pytest.raises(ChannelFault):
        CountsReader(counting(told), 0).take(LIES[lie])
    assert not told


def test_counts_for_plans_that_were_replaced_are_dropped() -> None:
    """They crossed the change on their way: no breach, and nobody's counts."""
    told = Tellings()
    reader = CountsReader(counting(told), 1)
    reader.take(counts_packet(layout=0))
    assert not told
    reader.take(counts_packet(layout=1))
    assert told.counted() == 5


async def test_a_profile_of_live_rows_comes_out_of_the_child(child: ProcessEngine) -> None:
    """In parts, whole at the other end; the next one asked for takes the place of one under way."""
    dropped = child.capture(1000, 1)
    made = child.capture(100, 1)
    live = rows_of(300, 4, seed=3)
    for begin in range(0, 300, 10):
        await run(child, {"x": live[begin : begin + 10]})
    profile = read_profile(await asyncio.wait_for(made, LONG_S))
    assert dropped.cancelled()
    assert profile.rows == 100
    assert [feature.name for feature in profile.plan.features][:4] == ["x[0]", "x[1]", "x[2]", "x[3]"]


async def test_a_capture_ends_with_its_child(forks: ForkServer) -> None:
    """Whoever waits is told, and does not wait for rows that nobody runs any more."""
    engine = ProcessEngine(spec_of(LoadSpec("echo", "", ())), forks, lambda _: None)
    await engine.start()
    made = engine.capture(100, 1)
    engine.kill()
    with pytest.raises(VersionUnavailable):
        await asyncio.wait_for(made, LONG_S)
    await engine.close()


@pytest.mark.parametrize("size", [3, 1 << 40])
async def test_a_profile_larger_than_announced_or_allowed_is_a_breach(size: int) -> None:
    """The gateway holds no more of it than it said, and it may not say more than is allowed."""
    reader = CaptureReader(0, asyncio.get_running_loop().create_future())
    with pytest.raises(ChannelFault):
        reader.take(Packet(Op.PROFILE, size_bytes=size, tail=b"12345"))
    assert not reader.made.done()


@pytest.mark.parametrize("asked", [True, False])
async def test_a_lying_child_is_left(asked: bool) -> None:
    """Counts that lie, or that nobody asked for, end the channel with the breach as its reason."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    conversation = Conversation(VersionRef("digits", 3), ours, lost.set_result, max_rows=8)
    conversation.begin(DEFAULT_SIGNATURE)
    if asked:
        conversation.counting.count(counting(Tellings()))
    with theirs:
        send(theirs, LIES["a negative count"])
        verdict = await asyncio.wait_for(lost, LONG_S)
    conversation.close()
    assert "broke the protocol" in str(verdict)
