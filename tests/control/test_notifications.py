"""Notifications: of each event once, whoever leads, restarts or dies; and a dead receiver is nobody's trouble."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gateway.clock import Clock, ManualClock, SystemClock
from gateway.control.alarms import Alarm, Alarms
from gateway.control.coordination import Alone, Coordination
from gateway.control.coordination_redis import RedisCoordination
from gateway.control.memory_store import MemoryStore
from gateway.control.notifications import Notifications
from gateway.control.redis_store import RedisStore
from gateway.control.store import AuditEntry, Store
from gateway.errors import SettingsError
from gateway.settings import NotificationSettings, SecretSource
from loadtests.redis_server import RedisServer
from tests.control.receiver import Receiver, receiver
from tests.control.rollout_scene import begin, report, until_phase
from tests.control.scene import MODEL, Scene, scene, until
from tests.control.test_redis_store import line_of

SECRET = b"not to be told"
BORN = 1_700_000_000.0


def rollback_of(route: str = "digits", *, to: int = 3, reason: str = "olga said so") -> AuditEntry:
    return AuditEntry("olga", "rollback", f"route/{route}", reason, {"to": to, "trigger": "operator"})


OTHER = AuditEntry("olga", "weights", "route/digits", "", {})


@asynccontextmanager
async def telling(
    store: Store, coordination: Coordination, clock: Clock, *targets: dict[str, Any], **changes: Any
) -> AsyncIterator[Notifications]:
    """One process's, at work; it has seen the store as it stands."""
    settings = NotificationSettings.model_validate({"targets": targets, **changes})
    made = Notifications(settings, store=store, coordination=coordination, clock=clock)
    made.start()
    made.took((await store.snapshot()).revision)
    try:
        yield made
    finally:
        await made.close()


async def happens(store: Store, entry: AuditEntry, *watching: Notifications) -> None:
    revision = await store.commit([], entry)
    for one in watching:
        one.took(revision)


async def at_rest(condition: Callable[[], object], clock: ManualClock, telling: Notifications, step_s: float) -> None:
    """Until it holds, with the clock moved on whenever all that is under way waits for it: each courier for its next
    look, each notice for its next attempt. So an attempt takes no time by this clock, however slow the machine is."""

    def resting() -> bool:
        standings = telling.statistics()
        return clock.waiting == len(standings) + sum(one.under_way for one in standings)

    while not condition():
        await until(lambda: condition() or resting())
        if not condition():
            clock.advance(step_s)


async def settled(telling: Notifications, number: int) -> None:
    await until(lambda: all(f"settled to {number}]" in part for part in repr(telling).split("<Courier ")[1:]))


def names(there: Receiver) -> list[str]:
    return [headers["x-turnout-delivery"] for headers, _ in there.got]


def titles(there: Receiver) -> list[str]:
    return [json.loads(body)["title"] for _, body in there.got]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall=BORN)


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock)


async def test_an_event_is_told_signed_with_what_why_figures_what_to_do_and_a_link(
    store: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    """And what is no event is told to nobody."""
    (tmp_path / "secret").write_bytes(SECRET)
    async with receiver(204) as there:
        target = {"name": "ops", "url": there.url, "secret": {"file": str(tmp_path / "secret")}}
        public = {"public_url": "https://turnout.example/"}
        async with telling(store, Alone(tmp_path, clock), clock, target, **public) as telling_ops:
            await happens(store, OTHER, telling_ops)
            await happens(store, rollback_of(), telling_ops)
            await settled(telling_ops, 2)
        [(headers, body)] = there.got
    found = json.loads(body)
    assert (found["event"], found["route"], found["reason"], found["at"]) == (
        "rollback",
        "digits",
        "olga said so",
        BORN,
    )
    assert found["title"] == "Route digits went back to version 3"
    assert found["what_to_do"].startswith("Nothing, if it was meant.")
    assert found["numbers"]["Trigger"] == "operator"
    assert found["link"] == "https://turnout.example/admin/routes/digits"
    assert (headers["x-turnout-event"], headers["x-turnout-delivery"]) == ("rollback", found["delivery"])
    stamp, _, digest = headers["x-turnout-signature"].partition(",v1=")
    assert stamp == f"t={BORN:.0f}"
    assert digest == hmac.new(SECRET, f"{BORN:.0f}.".encode() + body, hashlib.sha256).hexdigest()


async def test_nobody_is_told_of_what_was_before_he_was_named(
    store: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    """A new target hears of what happens from now on."""
    await store.commit([], rollback_of(reason="long ago"))
    async with (
        receiver(204) as there,
        telling(store, Alone(tmp_path, clock), clock, {"name": "ops", "url": there.url}) as telling_ops,
    ):
        await settled(telling_ops, 1)
        await happens(store, rollback_of(to=4), telling_ops)
        await settled(telling_ops, 2)
        assert titles(there) == ["Route digits went back to version 4"]


async def test_what_a_gateway_could_not_send_the_next_one_sends_under_the_same_name(
    store: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    """And nothing that was taken is sent again, also what came after that which was not."""
    async with receiver(204, 503, 503, 204) as there:
        target = {"name": "ops", "url": there.url}
        async with telling(store, Alone(tmp_path, clock), clock, target) as first:
            await settled(first, 0)
            await happens(store, rollback_of(to=1), first)
            await settled(first, 1)
            await happens(store, rollback_of(to=2), first)
            await until(lambda: len(there.got) == 2)
        there.answers[:] = [204]
        async with telling(store, Alone(tmp_path, clock), clock, target) as second:
            await settled(second, 2)
        async with telling(store, Alone(tmp_path, clock), clock, target) as third:
            await settled(third, 2)
    one, two, again = names(there)
    assert (one != two, two == again) == (True, True)


async def test_a_dead_target_holds_up_nobody_and_is_given_up_after_its_time(
    store: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    """The other hears at once; what was given up stands in the audit log and in the figures, and is no event itself."""
    async with receiver(204) as gone:
        url = gone.url
    async with receiver(204) as there:
        targets = {"name": "dead", "url": url}, {"name": "alive", "url": there.url}
        async with telling(store, Alone(tmp_path, clock), clock, *targets, give_up_s=300) as telling_both:
            await until(lambda: repr(telling_both).count("settled to 0") == 2)
            for number in (1, 2, 3):
                await happens(store, rollback_of(to=number), telling_both)
            await until(lambda: len(there.got) == 3)
            await at_rest(telling_both.degraded, clock, telling_both, 5.0)
            assert "dead takes none: ConnectError" in telling_both.degraded()[0]
            await at_rest(lambda: telling_both.statistics()[0].endings.get("given-up") == 3, clock, telling_both, 5.0)
            dead, alive = telling_both.statistics()
            assert (alive.endings, dead.under_way, telling_both.degraded()) == ({"delivered": 3}, 0, [])
            assert clock.wall() - BORN < 420
        records = [record for record in await store.audit() if record.entry.action == "notification-given-up"]
        assert [record.entry.detail["sequence"] for record in records if record.entry.detail] == [1, 2, 3]
        assert records[0].entry.subject == "notifications/dead"
        assert "ConnectError" in records[0].entry.reason


async def test_a_notice_that_its_receiver_cannot_digest_holds_up_no_other(
    store: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    """500 for one, again and again, and the next one comes through; after a restart it alone is sent again."""

    target: dict[str, Any] = {"name": "ops"}
    async with receiver(204) as there:
        there.choose = lambda body: 500 if b"version 1" + b'"' in body else 204
        target["url"] = there.url
        async with telling(store, Alone(tmp_path, clock), clock, target) as first:
            await settled(first, 0)
            for number in range(1, 31):
                await happens(store, rollback_of(to=number), first)
            await until(lambda: first.statistics()[0].endings.get("delivered") == 29, clock=clock, step_s=0.1)
            assert first.statistics()[0].under_way == 1
        told = len(there.got)
        async with telling(store, Alone(tmp_path, clock), clock, target):
            await until(lambda: len(there.got) > told + 1, clock=clock, step_s=0.1)
        assert {names(there)[0]} == set(names(there)[told:])


async def test_a_refusal_is_not_asked_for_again(store: MemoryStore, clock: ManualClock, tmp_path: Path) -> None:
    """A 4xx would be a 4xx again; it is in the audit log, and the next event is told."""
    async with (
        receiver(410, 204) as there,
        telling(store, Alone(tmp_path, clock), clock, {"name": "ops", "url": there.url}) as telling_ops,
    ):
        await settled(telling_ops, 0)
        await happens(store, rollback_of(to=1), telling_ops)
        await until(lambda: telling_ops.statistics()[0].endings == {"refused": 1})
        await happens(store, rollback_of(to=2), telling_ops)
        await until(lambda: telling_ops.statistics()[0].endings == {"refused": 1, "delivered": 1})
        [record] = [record for record in await store.audit() if record.entry.action == "notification-refused"]
        assert record.entry.reason == "410 after 1 attempts: Route digits went back to version 1"


async def test_a_target_hears_of_the_events_and_routes_that_it_names(
    store: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    """And of what is about no route."""
    async with receiver(204) as there:
        target = {"name": "ops", "url": there.url, "events": ["rollback", "drift"], "routes": ["digits"]}
        async with telling(store, Alone(tmp_path, clock), clock, target) as telling_ops:
            await settled(telling_ops, 0)
            await happens(store, rollback_of("iris"), telling_ops)
            await happens(store, AuditEntry("olga", "lift", "route/digits", "", {"version": 2}), telling_ops)
            await happens(store, rollback_of("digits"), telling_ops)
            moved = Alarm("drift/digits/3/world", "drift", "model/digits", True, "it moved", "look", {"effect": 0.31})
            await Alarms(store, clock).write(moved)
            telling_ops.took(4)
            await settled(telling_ops, 4)
        assert titles(there) == [
            "Route digits went back to version 3",
            "Drift on model digits: it does not see what it was made for",
        ]
        assert json.loads(there.got[1][1])["numbers"] == {"effect": "0.31"}


async def test_a_test_reaches_every_target_whatever_it_wants(
    store: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    """By the way of every event; and what a viewer sees of the targets holds no address."""
    async with receiver(204) as there:
        target = {"name": "ops", "url": there.url, "events": ["lift"], "routes": ["iris"], "format": "slack"}
        async with telling(store, Alone(tmp_path, clock), clock, target) as telling_ops:
            await settled(telling_ops, 0)
            telling_ops.took(await telling_ops.test("olga", "a new hook"))
            await settled(telling_ops, 1)
            [view] = telling_ops.view()
    assert json.loads(there.got[0][1])["text"] == "A test of Turnout's notifications: a new hook"
    assert (view["name"], view["outcomes"], view["trouble"]) == ("ops", {"delivered": 1}, "")
    assert there.url not in json.dumps(view)


@pytest.mark.parametrize("jump_s", [-86_400.0, 400 * 86_400.0])
async def test_a_wall_clock_that_jumps_neither_gives_a_notice_up_at_once_nor_tries_it_for_ever(
    store: MemoryStore, clock: ManualClock, tmp_path: Path, jump_s: float
) -> None:
    """A year ahead: it is tried for a minute all the same. A day back: for its time, by a clock that does not jump."""
    async with (
        receiver(503) as there,
        telling(store, Alone(tmp_path, clock), clock, {"name": "ops", "url": there.url}, give_up_s=120) as telling_ops,
    ):
        await settled(telling_ops, 0)
        await store.commit([], rollback_of())
        clock.jump_wall(jump_s)
        began = clock.monotonic()
        telling_ops.took(1)
        await at_rest(lambda: telling_ops.statistics()[0].endings, clock, telling_ops, 2.0)
        assert 30 <= clock.monotonic() - began <= 180  # the pause after the last attempt would pass the end
        assert len(there.got) > 5


async def test_a_store_that_is_away_delays_what_is_told_and_loses_nothing(
    store: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    """Read when it answers again."""
    async with (
        receiver(204) as there,
        telling(store, Alone(tmp_path, clock), clock, {"name": "ops", "url": there.url}) as telling_ops,
    ):
        await settled(telling_ops, 0)
        await store.commit([], rollback_of())
        store.fail("the disk is full")
        telling_ops.took(1)
        await until(lambda: clock.waiting)
        store.fail(None)
        await until(lambda: len(there.got) == 1, clock=clock, step_s=0.5)
        await settled(telling_ops, 1)


async def test_a_home_that_cannot_be_written_makes_no_notice_come_twice(
    store: MemoryStore, clock: ManualClock, tmp_path: Path
) -> None:
    """How far it has come is known to the process until it can be kept."""
    home = tmp_path / "home"
    async with (
        receiver(204) as there,
        telling(store, Alone(home, clock), clock, {"name": "ops", "url": there.url}) as telling_ops,
    ):
        folder = home / "coordination"
        await until(lambda: folder.exists() and b'"cursor": 0' in _all(folder))
        kept = home / "elsewhere"
        folder.rename(kept)
        folder.write_text("in the way")
        for number in (1, 2):
            await happens(store, rollback_of(to=number), telling_ops)
            await until(lambda wanted=number: len(there.got) == wanted, clock=clock, step_s=0.5)
        folder.unlink()
        kept.rename(folder)
        await until(lambda: b'"cursor": 2' in _all(folder), clock=clock, step_s=0.5)
        assert len(there.got) == 2


def _all(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if not path.name.startswith("."))


async def test_a_store_that_went_back_is_followed_from_where_it_stands(clock: ManualClock, tmp_path: Path) -> None:
    """Restored from a copy: numbers that were used before are other events now, under other names."""
    old, fresh = MemoryStore(clock=clock), MemoryStore(clock=clock)
    async with receiver(204) as there:
        target = {"name": "ops", "url": there.url}
        async with telling(old, Alone(tmp_path, clock), clock, target) as before:
            await settled(before, 0)
            for number in (1, 2, 3):
                await happens(old, rollback_of(to=number), before)
            await settled(before, 3)
        await fresh.commit([], OTHER)
        async with telling(fresh, Alone(tmp_path, clock), clock, target) as after:
            await settled(after, 1)
            await happens(fresh, rollback_of(to=9), after)
            await settled(after, 2)
        assert titles(there)[3:] == ["Route digits went back to version 9"]
        assert len(set(names(there))) == 4


# With everything around it


async def test_a_rollback_and_the_end_of_its_rollout_are_told_with_the_figures_that_decided_them(
    tmp_path: Path,
) -> None:
    """By the whole control plane: a harmful candidate in its rollout."""
    clock = ManualClock()
    async with receiver(204) as there:
        targets = [{"name": "ops", "url": there.url}]
        store = MemoryStore(clock=clock)
        async with scene(tmp_path, clock=clock, store=store, notifications={"targets": targets}, guard=QUIET) as stage:
            await begin(stage)
            await until_phase(stage, clock, "stepping")
            stage.script(2).model = _broken
            await until_phase(stage, clock, "rolled-back")
            await report(stage, clock)
            await until(lambda: len(there.got) == 2, clock=clock, step_s=0.1)
            rollback, end = (json.loads(body) for _, body in there.got)
        assert (rollback["event"], end["event"]) == ("rollback", "rollout-end")
        assert rollback["title"] == f"Route {MODEL} went back to digits/1"
        assert rollback["numbers"]["In quarantine"] == "2"
        assert rollback["numbers"]["Error"].startswith("harmful: ")
        assert end["title"] == "digits/2 was rolled back on route digits"
        assert end["numbers"]["Error"] == rollback["numbers"]["Error"]
        assert end["detail"]["evidence"]["streams"]["error"]["verdict"] == "harmful"
        assert end["detail"]["verdict"] == "rolled-back"


QUIET = {"enabled": False}


def _broken(inputs: Any) -> Any:
    raise ValueError("it is broken")


async def test_a_gateway_without_targets_starts_nothing(tmp_path: Path) -> None:
    """No task, no post, no client."""
    async with scene(tmp_path) as stage:
        assert repr(stage.plane.notifications) == "<Notifications []>"
        assert isinstance(stage, Scene)


# Many replicas


@asynccontextmanager
async def replica(redis: RedisServer, prefix: str, name: str) -> AsyncIterator[tuple[RedisStore, RedisCoordination]]:
    """Its leases end when a test says so: a machine that stands still for a moment ends none."""
    line = line_of(redis, prefix)
    store = await RedisStore(line).open()
    try:
        yield store, RedisCoordination(line, lease_s=600, replica=name)
    finally:
        await store.close()


async def test_two_replicas_tell_of_each_event_once_also_when_the_one_that_leads_ends(
    redis_server: RedisServer,
) -> None:
    """They lead in turn; the receiver is away while the post changes hands."""
    prefix, clock = f"test-{uuid4().hex}", SystemClock()
    async with (
        receiver(204) as there,
        replica(redis_server, prefix, "one") as (store, first),
        replica(redis_server, prefix, "two") as (other, second),
    ):
        target = {"name": "ops", "url": there.url}
        async with telling(other, second, clock, target) as staying:
            async with telling(store, first, clock, target) as leaving:
                for number in range(10):
                    await happens(store, rollback_of(to=number), leaving, staying)
                await until(lambda: len(there.got) == 10)
                there.answers[:] = [503]
                await happens(store, rollback_of(to=10), leaving, staying)
                await until(lambda: len(there.got) >= 12)
            await first.close()
            there.answers[:] = [204]
            for number in range(11, 15):
                await happens(other, rollback_of(to=number), staying)
            await settled(staying, 15)
            await second.close()
    taken = [body for _, body in there.got[:10]] + [body for _, body in there.got[-5:]]
    assert len(set(names(there))) == 15
    assert sorted(json.loads(body)["sequence"] for body in taken) == list(range(1, 16))


async def test_a_leader_that_was_stopped_and_goes_on_sends_nothing_that_another_has_sent(
    redis_server: RedisServer,
) -> None:
    """Its own clock stands still while its lease ends and another takes the post."""
    prefix, frozen = f"test-{uuid4().hex}", ManualClock(wall=SystemClock().wall())
    async with (
        receiver(503, 204) as there,
        replica(redis_server, prefix, "stopped") as (store, first),
        replica(redis_server, prefix, "two") as (other, second),
    ):
        target = {"name": "ops", "url": there.url}
        async with telling(store, first, frozen, target) as stopped:
            await settled(stopped, 0)
            await happens(store, rollback_of(), stopped)
            await until(lambda: len(there.got) == 1)
            await store.line.command("DEL", store.line.key("leader", "notifications/ops"))  # its lease has ended
            async with telling(other, second, SystemClock(), target) as going_on:
                await until(lambda: len(there.got) == 2)
                await settled(going_on, 1)
                frozen.advance(30.0)
                await until(lambda: "[0 under way" in repr(stopped), clock=frozen, step_s=1.0)
                await settled(stopped, 1)
            assert len(there.got) == 2
            assert len(set(names(there))) == 1
            await first.close()
            await second.close()


async def test_a_redis_that_lost_what_was_kept_makes_nobody_hear_anything_twice(redis_server: RedisServer) -> None:
    """The process knows how far it came."""
    prefix = f"test-{uuid4().hex}"
    async with receiver(204) as there, replica(redis_server, prefix, "one") as (store, first):
        async with telling(store, first, SystemClock(), {"name": "ops", "url": there.url}) as telling_ops:
            await settled(telling_ops, 0)
            await happens(store, rollback_of(to=1), telling_ops)
            await settled(telling_ops, 1)
            await first.resign("notifications/ops")
            await first.forget("notifications/ops")
            await happens(store, rollback_of(to=2), telling_ops)
            await settled(telling_ops, 2)
        await first.close()
        assert len(there.got) == 2


def test_a_secret_address_is_read_where_it_is(tmp_path: Path) -> None:
    """Slack's addresses are secrets: the settings name the file that has one."""
    (tmp_path / "slack").write_text("https://hooks.example/T/B/X\n")
    target = {"name": "slack", "format": "slack", "url": {"file": str(tmp_path / "slack")}}
    settings = NotificationSettings.model_validate({"targets": [target]})
    assert isinstance(settings.targets[0].url, SecretSource)
    clock = ManualClock()
    made = Notifications(settings, store=MemoryStore(), coordination=Alone(tmp_path, clock), clock=clock)
    assert "hooks.example" not in repr(made)
    (tmp_path / "slack").write_text("hooks.example/T/B/X")
    with pytest.raises(
        SettingsError, match=r"notifications\.targets\.slack\.url: what is kept there is no address"
    ) as told:
        Notifications(settings, store=MemoryStore(), coordination=Alone(tmp_path, clock), clock=clock)
    assert "hooks.example" not in str(told.value)
