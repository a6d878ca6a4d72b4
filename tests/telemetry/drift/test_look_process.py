"""Looks in a process of their own: what they find is what a thread finds, and a process that is lost is replaced."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from gateway.clock import ManualClock
from gateway.errors import StoreUnavailable, TurnoutError
from gateway.messages import VersionRef
from gateway.telemetry.drift.judging import Policy
from gateway.telemetry.drift.keeping import Belief
from gateway.telemetry.drift.look_process import LooksElsewhere
from gateway.telemetry.drift.looks import LooksHere, PairLook, VersionLook
from gateway.telemetry.drift.sharing import Tally
from runtimes.counting import Plan
from tests.telemetry.drift.scene import body_of, counted

RNG = np.random.default_rng(12)
BODY = body_of({"x": RNG.standard_normal((3000, 3))}, {"y": RNG.standard_normal((3000, 1))})
PLAN = Plan.from_json(BODY)
BEGUN = Belief.begin(Tally(0, np.zeros(PLAN.size, np.int64)), 0.0)
BODY_COUNTS = counted(PLAN, {"x": RNG.standard_normal((2000, 3))}, {"y": RNG.standard_normal((2000, 1))})
PAIR_BEGUN = Belief.begin(Tally(0, np.zeros(2 * PLAN.size, np.int64)), 0.0)


async def read(_: str) -> bytes:
    return json.dumps(BODY).encode()


def look(profile: str = "p") -> VersionLook:
    rows = np.random.default_rng(2).standard_normal((2000, 3)) + np.array([0.0, 1.0, 0.0])
    counts = counted(PLAN, {"x": rows}, {"y": rows[:, :1]})
    return VersionLook(profile, VersionRef("m", 1), BEGUN, Tally(2000, counts), 600.0, Policy(6), (), 5)


@pytest_asyncio.fixture
async def elsewhere() -> AsyncIterator[LooksElsewhere]:
    looks = LooksElsewhere(read, clock=ManualClock(), environment=os.environ)
    yield looks
    await looks.close()


async def test_a_process_finds_what_a_thread_finds(elsewhere: LooksElsewhere) -> None:
    """To the last bit, of a version and of a pair; the second look is of a belief that came back from the first."""
    here = LooksHere(read)
    both = Tally(2000, np.concatenate([look().tally.counts, BODY_COUNTS]))
    for one in (look(), PairLook("p", PAIR_BEGUN, both, 600.0, Policy(6))):
        found, expected = await elsewhere.do(one), await here.do(one)
        again = await elsewhere.do(one._replace(belief=found.belief, at=1200.0))
        assert found.octets == expected.octets
        assert found.figures == expected.figures
        assert again.octets == (await here.do(one._replace(belief=expected.belief, at=1200.0))).octets
    assert "x[1]" in (await here.do(look())).belief.state.raised


async def test_a_process_that_is_killed_costs_one_look_and_is_replaced(elsewhere: LooksElsewhere) -> None:
    """The next look starts another, which knows nothing and is told all anew."""
    expected = await elsewhere.do(look())
    assert elsewhere.pid is not None
    os.kill(elsewhere.pid, signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        await elsewhere.do(look())
    assert (await elsewhere.do(look())).octets == expected.octets


async def test_it_ends_when_no_look_has_come_for_a_while() -> None:
    """What it held goes back to the system until the next round."""
    clock = ManualClock()
    looks = LooksElsewhere(read, clock=clock, environment=os.environ)
    await looks.do(look())
    assert looks.pid is not None
    clock.advance(10.0)
    assert looks.pid is None
    await looks.close()


async def test_a_look_that_fails_is_told_of_and_the_process_goes_on() -> None:
    """A profile that is none is the fault of that profile alone."""

    async def read_some(profile: str) -> bytes:
        return b"none" if profile == "bad" else await read(profile)

    looks = LooksElsewhere(read_some, clock=ManualClock(), environment=os.environ)
    with pytest.raises(TurnoutError, match="failed"):
        await looks.do(look("bad"))
    pid = looks.pid
    assert (await looks.do(look())).belief.state.raised
    assert looks.pid == pid
    await looks.close()
