"""What replicas agree on: one contract for each coordination."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.clock import ManualClock
from gateway.control.coordination import Alone, Coordination, ReplicaView
from gateway.control.coordination_redis import RedisCoordination
from gateway.control.redis_line import RedisAddress, RedisLine
from gateway.control.store import Fence
from gateway.errors import Fenced, StoreUnavailable
from loadtests.redis_server import RedisServer

CLOCK = ManualClock()


@pytest.fixture(params=["alone", "redis"])
async def coordination(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Coordination]:
    if request.param == "alone":
        alone = Alone(tmp_path, ManualClock())
        yield alone
        await alone.close()
        return
    line = line_of(request.getfixturevalue("redis_server"))
    shared = RedisCoordination(line, lease_s=600.0)  # no pause of the machine is so long
    yield shared
    await shared.close()
    await line.close()


def line_of(server: RedisServer) -> RedisLine:
    return RedisLine(RedisAddress(port=server.port), prefix=f"test-{uuid4().hex}", deadline_s=60.0)


async def test_a_replica_is_there_once_it_has_announced_itself(coordination: Coordination) -> None:
    """With the revision that it serves, what is behind, and when it was heard."""
    assert list(await coordination.replicas()) == []
    view = ReplicaView(coordination.replica, 7, {"digits": "version 4 is loading"}, "http://here:1", "1.0", 5.0)
    await coordination.announce(view)
    (found,) = await coordination.replicas()
    assert (found.replica, found.revision, dict(found.behind)) == (coordination.replica, 7, view.behind)
    assert found.told_at > 0
    assert ReplicaView.from_json(found.to_json()) == found


async def test_who_leads_goes_on_in_the_same_term(coordination: Coordination) -> None:
    """Asking again renews; another post has its own term; after resigning, the next term is a later one."""
    term = await coordination.lead("rollouts")
    assert term is not None
    assert await coordination.lead("rollouts") == term
    assert await coordination.leader("rollouts") == coordination.replica
    assert await coordination.leader("checkpoints") is None
    await coordination.resign("rollouts")
    assert await coordination.leader("rollouts") is None
    later = await coordination.lead("rollouts")
    assert later is not None
    assert later > term


async def test_a_place_is_claimed_once_in_a_scope(coordination: Coordination) -> None:
    """Within one call too; another scope knows nothing of it; forgotten, it is new again."""
    assert list(await coordination.claim("a", [5 << 8, 2**32 - 1, 5 << 8, 0])) == [True, True, False, True]
    assert list(await coordination.claim("a", [0, 6 << 8])) == [False, True]
    assert list(await coordination.claim("b", [0])) == [True]
    assert list(await coordination.claim("a", [])) == []
    await coordination.forget("a")
    assert list(await coordination.claim("a", [0])) == [True]


async def test_counters_are_said_anew_and_never_added_twice(coordination: Coordination) -> None:
    """What is published takes the place of what was said before."""
    assert dict(await coordination.gather("a")) == {}
    for _ in range(2):
        await coordination.publish("a", {"3 errors": 2, "3 units": 2**40})
    await coordination.publish("a", {"3 errors": 3, "3 units": 2**40, "4 units": 1})
    assert dict(await coordination.gather("a")) == {"3 errors": 3, "3 units": 2**40, "4 units": 1}
    await coordination.publish("a", {})
    assert dict(await coordination.gather("a")) == {}
    await coordination.publish("a", {"4 units": 1})
    await coordination.forget("a")
    assert dict(await coordination.gather("a")) == {}


async def test_what_one_appends_the_others_read_from_where_they_are(redis_server: RedisServer) -> None:
    """In order, each from its own place; who is new begins at the end; and a scope that was forgotten is empty."""
    line = line_of(redis_server)
    one, other = RedisCoordination(line), RedisCoordination(line)
    start, nothing = await one.following("labels", "")
    assert list(nothing) == []
    await one.append("labels", [b"a", b"\xff\x00"])
    middle, first = await other.following("labels", start)
    await other.append("labels", [b"%d" % number for number in range(1500)])
    assert list(first) == [b"a", b"\xff\x00"]
    end, page = await one.following("labels", middle)
    assert (len(page), page[0]) == (1000, b"0")
    end, page = await one.following("labels", end)
    assert (len(page), page[-1]) == (500, b"1499")
    assert await one.following("labels", end) == (end, ())
    assert await other.following("labels", "") == (end, [])
    await one.forget("labels")
    assert await other.following("labels", end) == (end, ())
    await line.close()


async def test_what_is_kept_is_kept_by_who_leads(coordination: Coordination) -> None:
    """Any bytes, whole; a term that has ended keeps nothing."""
    term = await coordination.lead("rollouts")
    assert term is not None
    assert await coordination.kept("a") is None
    await coordination.keep("a", b"\x00\xff\n", Fence("rollouts", term))
    assert await coordination.kept("a") == b"\x00\xff\n"
    await coordination.resign("rollouts")
    later = await coordination.lead("rollouts")
    assert later is not None
    with pytest.raises(Fenced, match=f"term {term}"):
        await coordination.keep("a", b"old", Fence("rollouts", term))
    await coordination.keep("a", b"new", Fence("rollouts", later))
    assert await coordination.kept("a") == b"new"
    await coordination.forget("a")
    assert await coordination.kept("a") is None


# Alone


async def test_what_is_kept_and_the_terms_outlive_the_process(tmp_path: Path) -> None:
    """A later process of the home leads in a later term."""
    first = Alone(tmp_path, CLOCK)
    term = await first.lead("rollouts")
    assert term is not None
    await first.keep("a", b"state", Fence("rollouts", term))
    second = Alone(tmp_path, CLOCK)
    assert await second.kept("a") == b"state"
    later = await second.lead("rollouts")
    assert later is not None
    assert later > term


async def test_a_home_that_cannot_be_written_makes_it_unavailable(tmp_path: Path) -> None:
    """Told with the path; nothing is said to be kept."""
    (tmp_path / "coordination").write_text("in the way", encoding="ascii")
    alone = Alone(tmp_path, CLOCK)
    with pytest.raises(StoreUnavailable, match="coordination"):
        await alone.lead("rollouts")
    with pytest.raises(StoreUnavailable, match="coordination"):
        await alone.keep("a", b"state")
