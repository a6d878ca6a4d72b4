"""Following a name in another system: what it points at is imported, gated and offered, and nothing else changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gateway.clock import ManualClock
from gateway.control.coordination import Alone, Coordination
from gateway.control.coordination_redis import RedisCoordination
from gateway.control.documents import RouteDocument, RouteStatus
from gateway.control.follow_control import FollowControl
from gateway.control.follow_state import FollowPhase, FollowState
from gateway.control.follower import Follower
from gateway.control.following import Followed, Following
from gateway.control.gatekeeping import GateOutcome, OpenGate, Override
from gateway.control.notification_events import notice_of
from gateway.control.redis_line import RedisAddress, RedisLine
from gateway.control.route_spec import ArmSpec, RouteSpec
from gateway.control.store import AuditEntry, Change, DocumentKey, Fence, Store
from gateway.errors import (
    Conflict,
    Fenced,
    GateRefused,
    InvalidInput,
    NotFound,
    SourceUnavailable,
    StorageFull,
    TurnoutError,
)
from gateway.registry.blobs import Progress
from gateway.registry.catalogue import ModelDocument
from gateway.registry.registration import RegistrationOptions
from gateway.registry.sources import Resolved
from loadtests.redis_server import RedisServer
from tests.control.rollout_scene import QUICK, passed
from tests.control.scene import MODEL, Link, Scene, digest, scene, until

SOURCE = "mlflow:models:/digits@champion"
PLAN = {name: value for name, value in QUICK.items() if name != "candidate"}


class Shelf:
    """Another system with one name, which points at a version; version n has the files of ``digest(n)``. It can be
    down, hold an import until it is let go, and have files overwritten."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.version = 1
        self.looks = 0
        self.imports: list[int] = []
        self.down: TurnoutError | None = None
        self.trouble: TurnoutError | None = None
        self.files: dict[int, str] = {}
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def resolve(self, place: str) -> Resolved:
        assert place == SOURCE
        self.looks += 1
        if self.down is not None:
            raise self.down
        return Resolved(self._identity(self.version), "champion")

    async def register(
        self,
        model: str,
        source: str | Path,
        options: RegistrationOptions,
        *,
        actor: str,
        progress: Progress | None = None,
    ) -> Mapping[str, Any]:
        self.imports.append(self.version)
        await self.go_on.wait()
        if self.trouble is not None:
            raise self.trouble
        number = self.version
        files = self.files.get(number, digest(number))
        imported = {"system": "mlflow", "name": "digits", "version": str(number), "files": files, "at": 0.0}
        imported |= {"alias": "champion", "url": None}
        key = DocumentKey("model", model)
        found = await self.store.read(key)
        assert found is not None
        document = ModelDocument.from_json(found.body)
        document.refuse_overwritten(files, imported)
        document, here = document.add_version(files, created_at=0.0, imported=imported)
        if document.to_json() != found.body:
            entry = AuditEntry(actor, "register", str(key))
            await self.store.commit([Change(key, document.to_json(), found.revision)], entry)
        return {"model": model, "version": here, "imported": imported}

    def _identity(self, version: int) -> dict[str, str | None]:
        known = {"system": "mlflow", "name": "digits", "version": str(version)}
        return {**known, "digest": self.files.get(version), "algorithm": None, "url": None}


class Gates(OpenGate):
    """Refuses what it is told to."""

    def __init__(self) -> None:
        self.refuse: set[int] = set()
        self.asked: list[tuple[int, str, int | None]] = []

    async def require(
        self,
        model: str,
        version: int,
        *,
        purpose: str,
        against: int | None = None,
        override: Override | None = None,
        actor: str,
    ) -> GateOutcome:
        self.asked.append((version, purpose, against))
        if version in self.refuse:
            raise GateRefused(f"{model}/{version} fails its gates: accuracy 0.71, at least 0.9 was asked")
        return GateOutcome()


class Stage:
    """A scene with a follower of its own."""

    def __init__(self, made: Scene, clock: ManualClock, coordination: Coordination, shelf: Shelf | None = None) -> None:
        self.scene = made
        self.clock = clock
        self.gates = Gates()
        self.shelf = shelf or Shelf(made.store)
        self.coordination = coordination
        self.following = Following(
            store=made.store,
            models=self.shelf,
            rollouts=made.plane.rollouts,
            gates=self.gates,
            jobs=made.plane.jobs,
            resolve=self.shelf.resolve,
            clock=clock,
        )
        self.follower = self.fresh()

    def fresh(self) -> Follower:
        """As a gateway has it that starts."""
        return Follower(
            self.following, coordination=self.coordination, reconciler=self.scene.plane.reconciler, clock=self.clock
        )

    async def follow(self, **changes: Any) -> None:
        await self.scene.put({1: 100}, follow={"source": SOURCE, "every_s": 10, "plan": PLAN, **changes})

    async def look(self) -> dict[str, Any]:
        """One look, from its beginning to its end."""
        before = self.shelf.looks
        self.clock.advance(1000.0)
        await self.follower.tick()
        await until(lambda: self.shelf.looks > before and "0 looked at" in repr(self.follower))
        return await self.status()

    async def begin(self) -> None:
        """A look that does not come to its end: the import is held."""
        self.shelf.go_on.clear()
        before = len(self.shelf.imports)
        self.clock.advance(1000.0)
        await self.follower.tick()
        await until(lambda: len(self.shelf.imports) > before)

    async def status(self) -> dict[str, Any]:
        view = await self.scene.plane.routes.get(MODEL)
        found: dict[str, Any] = view["status"].get("follow") or {}
        return found

    async def actions(self) -> list[str]:
        return [one.entry.action for one in await self.scene.store.audit() if one.entry.action.startswith("follow")]


@asynccontextmanager
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, versions=2, home=tmp_path) as made:
        await made.plane.upstream.follower.close()  # the test moves its own
        here = Stage(made, clock, Alone(tmp_path / "follow", clock))
        try:
            yield here
        finally:
            await here.follower.close()


async def test_a_name_that_moves_is_imported_and_offered(tmp_path: Path) -> None:
    """The version is registered and passes the gates; the route serves what it served."""
    async with stage(tmp_path) as here:
        await here.follow()
        state = await here.look()
        assert (state["state"], state["version"], state["identity"]["version"]) == ("current", 1, "1")
        here.shelf.version = 3
        state = await here.look()
        assert (state["state"], state["version"], state["problem"]) == ("offered", 3, "")
        assert here.gates.asked == [(3, f"rollout:{MODEL}", 1)]
        assert here.scene.arms() == {1: 100}
        assert (await here.scene.plane.routes.get(MODEL))["status"]["rollout"] is None
        assert await here.actions() == ["follow-moved", "follow-current", "follow-moved", "follow-offered"]
        notices = [notice_of(record) for record in await here.scene.store.audit()]
        (offer,) = [notice for notice in notices if notice is not None]
        assert (offer.event, offer.title) == ("follow-offer", "digits/3 is there to be rolled out on route digits")
        assert offer.numbers == {"Follows": SOURCE, "Points at": "digits version 3"}
        (job,) = here.scene.plane.jobs.list(kind="import")[:1]
        assert (job.state, job.actor) == ("done", "follow")


async def test_looks_that_see_the_same_write_nothing(tmp_path: Path) -> None:
    """However often it is asked: no revision, no record, no import."""
    async with stage(tmp_path) as here:
        await here.follow()
        here.shelf.version = 2
        await here.look()
        revision = (await here.scene.plane.routes.get(MODEL))["revision"]
        for _ in range(3):
            assert (await here.look())["state"] == "offered"
        assert (await here.scene.plane.routes.get(MODEL))["revision"] == revision
        assert here.shelf.imports == [2]


async def test_what_is_offered_is_seen_being_rolled_out(tmp_path: Path) -> None:
    """An operator takes the offer; the state follows the rollout to its end."""
    async with stage(tmp_path) as here:
        await here.follow()
        here.shelf.version = 2
        await here.look()
        await here.scene.plane.rollouts.start(MODEL, QUICK, actor="olga")
        assert (await here.look())["state"] == "started"
        await here.scene.plane.rollouts.abort(MODEL, actor="olga", reason="not today")
        state = await here.look()
        assert state["state"] == "ended"
        assert "not today" in state["problem"]
        assert (await here.look())["state"] == "ended"


async def test_a_rollout_is_begun_where_the_route_says_so(tmp_path: Path) -> None:
    """By the plan of the route; once, however often it is looked at."""
    async with stage(tmp_path) as here:
        await here.follow(then="start")
        here.shelf.version = 2
        assert (await here.look())["state"] == "started"
        rollout = (await here.scene.plane.rollouts.get(MODEL))["rollout"]
        assert (rollout["candidate"], rollout["by"]) == (2, "follow")
        assert rollout["plan"]["steps"][0]["weight"] == 20
        assert (await here.look())["state"] == "started"
        await here.scene.plane.rollouts.abort(MODEL, actor="olga")
        assert (await here.look())["state"] == "ended"
        assert (await here.look())["state"] == "ended"


async def test_a_rollout_that_was_stopped_while_the_system_was_down_is_not_begun_again(tmp_path: Path) -> None:
    """An operator ended it during the outage: when the name answers again, it points where it did, which was tried."""
    async with stage(tmp_path) as here:
        await here.follow(then="start")
        await here.look()
        here.shelf.version = 2
        assert (await here.look())["state"] == "started"
        here.shelf.down = SourceUnavailable("mlflow: connection refused")
        assert (await here.look())["state"] == "unreachable"
        await here.scene.plane.rollouts.abort(MODEL, actor="ada", reason="not today")
        here.clock.advance(60.0)
        here.shelf.down = None
        state = await here.look()
        assert (state["state"], "not today" in state["problem"]) == ("ended", True)
        assert (await here.look())["state"] == "ended"


async def test_a_rollout_that_others_followed_upon_is_not_begun_again(tmp_path: Path) -> None:
    """The operator stopped it and tried another version, all between two looks."""
    async with stage(tmp_path) as here:
        await here.follow(then="start")
        await here.look()
        here.shelf.version = 3
        assert (await here.look())["state"] == "started"
        await here.scene.plane.rollouts.abort(MODEL, actor="olga")
        await here.scene.plane.rollouts.start(MODEL, QUICK, actor="olga")
        await here.scene.plane.rollouts.abort(MODEL, actor="olga")
        await passed(here.clock)
        state = await here.look()
        assert (state["state"], "changed since" in state["problem"]) == ("ended", True)


async def test_a_name_that_moves_back_and_forth_is_followed(tmp_path: Path) -> None:
    """Back: the rollout that was begun for it ends, and the version that serves is the one meant. Forth: it is begun
    again, of the same version under the same number."""
    async with stage(tmp_path) as here:
        await here.follow(then="start")
        await here.look()
        here.shelf.version = 3
        assert (await here.look())["state"] == "started"
        here.shelf.version = 1
        state = await here.look()
        assert (state["state"], state["version"]) == ("current", 1)
        last = (await here.scene.plane.rollouts.get(MODEL))["rollout"]
        assert (last["phase"], last["ended_by"]) == ("aborted", "follow")
        here.shelf.version = 3
        await passed(here.clock)
        state = await here.look()
        assert (state["state"], state["version"]) == ("started", 3)


async def test_an_operators_rollout_is_left_alone(tmp_path: Path) -> None:
    """What the name points at waits until that has ended."""
    async with stage(tmp_path) as here:
        await here.follow(then="start")
        await here.look()
        await here.scene.plane.rollouts.start(MODEL, QUICK, actor="olga")
        here.shelf.version = 3
        state = await here.look()
        assert (state["state"], state["version"]) == ("waiting", 3)
        assert "version 2 is being rolled out" in state["problem"]
        await here.scene.plane.rollouts.abort(MODEL, actor="olga")
        await passed(here.clock)
        assert (await here.look())["state"] == "started"
        assert here.shelf.imports == [1, 3]


async def test_a_system_that_is_down_changes_nothing_and_is_shown(tmp_path: Path) -> None:
    """One state, one record, however long; when it answers again, the state is what it was."""
    async with stage(tmp_path) as here:
        await here.follow()
        here.shelf.version = 2
        await here.look()
        here.shelf.down = SourceUnavailable("mlflow: connection refused")
        state = await here.look()
        assert (state["state"], state["before"], state["version"]) == ("unreachable", "offered", 2)
        assert "connection refused" in state["problem"]
        (record,) = [one for one in await here.scene.store.audit() if one.entry.action == "follow-unreachable"]
        notice = notice_of(record)
        assert notice is not None
        assert (notice.event, notice.reason) == ("follow-trouble", "mlflow: connection refused")
        here.shelf.down = SourceUnavailable("mlflow: no route to host")
        since = state["since"]
        assert (await here.look())["since"] == since
        assert here.scene.arms() == {1: 100}
        here.shelf.down = None
        assert (await here.look())["state"] == "offered"
        assert (await here.actions())[-3:] == ["follow-offered", "follow-unreachable", "follow-offered"]


async def test_a_system_that_was_never_there_is_shown_too(tmp_path: Path) -> None:
    """A route may follow a name before its system is up."""
    async with stage(tmp_path) as here:
        here.shelf.down = SourceUnavailable("mlflow: connection refused")
        await here.follow()
        assert (await here.look())["state"] == "unreachable"
        here.shelf.down = None
        assert (await here.look())["state"] == "current"
        assert await here.actions() == ["follow-unreachable", "follow-moved", "follow-current"]


async def test_looks_at_a_system_that_is_down_become_rarer(tmp_path: Path) -> None:
    """Up to a quarter of an hour; each costs a process."""
    async with stage(tmp_path) as here:
        here.shelf.down = SourceUnavailable("mlflow: connection refused")
        await here.follow()
        for _ in range(10):
            await here.look()
        before = here.shelf.looks
        here.clock.advance(800.0)
        await here.follower.tick()
        assert here.shelf.looks == before
        here.clock.advance(101.0)
        await here.follower.tick()
        await until(lambda: here.shelf.looks == before + 1)


async def test_a_version_that_fails_its_gates_is_refused_with_their_words(tmp_path: Path) -> None:
    """It stays registered, and is tried again only when somebody says so."""
    async with stage(tmp_path) as here:
        await here.follow()
        here.gates.refuse = {3}
        here.shelf.version = 3
        state = await here.look()
        assert (state["state"], state["version"]) == ("refused", 3)
        assert "accuracy 0.71" in state["problem"]
        await here.look()
        assert here.gates.asked == [(3, f"rollout:{MODEL}", 1)]
        here.gates.refuse = set()
        control = FollowControl(here.scene.store, clock=here.clock)
        assert (await control.again(MODEL, actor="olga"))["status"]["state"] == "importing"
        assert (await here.look())["state"] == "offered"


async def test_files_that_were_overwritten_in_place_are_refused(tmp_path: Path) -> None:
    """The version that was imported keeps; the name now stands for other bytes under the same version."""
    async with stage(tmp_path) as here:
        await here.follow()
        here.shelf.version = 3
        await here.look()
        here.shelf.files[3] = digest(77)
        state = await here.look()
        assert state["state"] == "refused"
        assert "overwritten in place" in state["problem"]
        assert here.scene.arms() == {1: 100}


async def test_a_name_that_moves_during_the_import_is_seen_at_the_next_look(tmp_path: Path) -> None:
    """What came is not taken for what was seen."""
    async with stage(tmp_path) as here:
        await here.follow()
        here.shelf.version = 2
        await here.begin()
        here.shelf.version = 4
        here.shelf.go_on.set()
        await until(lambda: "0 looked at" in repr(here.follower))
        assert (await here.status())["state"] == "importing"
        state = await here.look()
        assert (state["state"], state["identity"]["version"]) == ("offered", "4")


async def test_what_nobody_is_to_blame_for_is_tried_again(tmp_path: Path) -> None:
    """A full disk, said as it is; the version is offered once there is room."""
    async with stage(tmp_path) as here:
        await here.follow()
        here.shelf.version = 2
        here.shelf.trouble = StorageFull("no space left on device")
        state = await here.look()
        assert (state["state"], state["problem"]) == ("failed", "no space left on device")
        here.shelf.trouble = None
        assert (await here.look())["state"] == "offered"


async def test_a_gateway_that_ends_under_an_import_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """The state says importing until then, and the import is made once more."""
    async with stage(tmp_path) as here:
        await here.follow()
        here.shelf.version = 2
        await here.begin()
        await here.follower.close()
        assert (await here.status())["state"] == "importing"
        assert [job.state for job in here.scene.plane.jobs.list(kind="import")] == ["cancelled"]
        here.shelf.go_on.set()
        here.follower = here.fresh()
        assert (await here.look())["state"] == "offered"
        assert here.shelf.imports == [2, 2]


async def test_a_version_in_quarantine_is_not_offered(tmp_path: Path) -> None:
    """It was taken off this route; a name elsewhere does not bring it back."""
    async with stage(tmp_path) as here:
        await here.follow()
        await here.scene.put({1: 50, 2: 50}, follow={"source": SOURCE})
        await here.scene.plane.rollbacks.roll_back(MODEL, to=1, reason="it fails", actor="olga")
        here.shelf.version = 2
        await until(lambda: here.scene.arms() == {1: 100})
        for then in ("offer", "start"):
            await here.follow(then=then)
            if then == "start":
                await FollowControl(here.scene.store, clock=here.clock).again(MODEL, actor="olga")
            state = await here.look()
            assert state["state"] == "refused"
            assert "quarantine" in state["problem"]


async def test_what_an_operator_changes_meanwhile_counts(tmp_path: Path) -> None:
    """A route that follows something else, or nothing, or is gone when the import is done: nothing is written of it."""
    async with stage(tmp_path) as here:
        await here.follow()
        here.shelf.version = 2
        await here.begin()
        await here.scene.put({1: 100})
        here.shelf.go_on.set()
        await until(lambda: "0 looked at" in repr(here.follower))
        assert await here.status() == {}
        with pytest.raises(NotFound, match="follows nothing"):
            await FollowControl(here.scene.store, clock=here.clock).get(MODEL)
        await here.follower.tick()
        assert repr(here.follower) == "<Follower [0 followed | 0 looked at]>"


async def test_of_two_replicas_one_looks(tmp_path: Path, redis_server: RedisServer) -> None:
    """When it ends, the other goes on where it was; what a leader of an ended term says is not written."""
    clock = ManualClock()
    address, prefix = RedisAddress(port=redis_server.port), f"test-{uuid4().hex}"
    lines = [RedisLine(address, prefix=prefix, deadline_s=60.0) for _ in range(2)]
    async with scene(tmp_path, clock=clock, versions=2, home=tmp_path) as made:
        await made.plane.upstream.follower.close()
        shelf = Shelf(made.store)
        first, second = (Stage(made, clock, RedisCoordination(line, lease_s=600.0), shelf) for line in lines)
        await first.follow()
        await first.look()
        await second.follower.tick()
        assert repr(second.follower) == "<Follower [0 followed | 0 looked at]>"
        shelf.version = 2
        await first.begin()
        await first.coordination.resign("follow")
        shelf.go_on.set()
        assert (await second.look())["state"] == "offered"
        shelf.version = 1
        with pytest.raises(Fenced):
            await first.following.look(MODEL, Fence("follow", 1))
        assert (await second.status())["state"] == "offered"
        for here in (first, second):
            await here.follower.close()
            await here.coordination.close()
        for line in lines:
            await line.close()


async def test_a_store_that_is_away_is_asked_again(tmp_path: Path) -> None:
    """Nothing is written, nothing is forgotten."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, versions=2, home=tmp_path) as made:
        await made.plane.upstream.follower.close()
        here = Stage(made, clock, Alone(tmp_path / "follow", clock))
        await here.follow()
        link = Link(made.store)
        here.following = Following(
            store=link,
            models=here.shelf,
            rollouts=made.plane.rollouts,
            gates=here.gates,
            jobs=made.plane.jobs,
            resolve=here.shelf.resolve,
            clock=clock,
        )
        here.follower = here.fresh()
        link.cut()
        await here.follower.tick()
        await until(lambda: "1 followed | 0 looked at" in repr(here.follower))
        assert await here.status() == {}
        link.mend()
        assert (await here.look())["state"] == "current"
        await here.follower.close()


async def test_a_look_at_a_route_that_follows_nothing_is_refused(tmp_path: Path) -> None:
    """Somebody was faster."""
    async with stage(tmp_path) as here:
        await here.scene.put({1: 100})
        with pytest.raises(Followed):
            await here.following.look(MODEL, Fence("follow", 1))
        await here.follow()
        with pytest.raises(Conflict, match="nothing was refused"):
            await FollowControl(here.scene.store, clock=here.clock).again(MODEL, actor="olga")


@pytest.mark.parametrize(
    ("follow", "words"),
    [
        ("file:/tmp/model.onnx", "no name in another system"),
        ("https://example.org/model.onnx", "no name in another system"),
        ({"source": SOURCE, "then": "hope"}, "offer"),
        ({"source": SOURCE, "every_s": 0.1}, "every_s"),
        ({"source": SOURCE, "plan": {"candidate": 3}}, "leave it out"),
        ({"source": SOURCE, "plan": {"steps": [50, 20]}}, "more weight"),
        ({"source": SOURCE, "plan": {"preset": "reckless"}}, "preset"),
        ({"source": SOURCE, "surprise": 1}, "surprise"),
    ],
)
def test_a_spec_that_follows_nonsense_is_refused(follow: Any, words: str) -> None:
    """With the field and what was expected."""
    with pytest.raises(InvalidInput, match=words):
        RouteSpec.parse({"model": MODEL, "split": [{"version": 1, "weight": 1}], "follow": follow})


def test_a_bare_text_is_the_source() -> None:
    """And the spec reads back as it was written."""
    spec = RouteSpec.parse({"model": MODEL, "split": [{"version": 1, "weight": 1}], "follow": SOURCE})
    assert spec.follow is not None
    assert (spec.follow.source, spec.follow.then, spec.follow.every_s) == (SOURCE, "offer", 60.0)
    assert RouteSpec.parse(spec.to_json()) == spec


def test_a_state_reads_back_as_it_was_written() -> None:
    """With what it was before an outage; a document that follows nothing is what it was before there was this."""
    state = FollowState(SOURCE, FollowPhase.OFFERED, 3.0, {"name": "digits", "version": "2"}, 2)
    away = state.unreachable("gone", at=4.0)
    assert FollowState.from_json(away.to_json()) == away
    assert away.answered(at=5.0).phase is FollowPhase.OFFERED
    assert away.unreachable("gone for good", at=6.0) == away
    arms = [{"version": 1, "weight": 1}]
    plain = RouteStatus((ArmSpec(version=1, weight=1),), 1)
    document = RouteDocument(RouteSpec.parse({"model": MODEL, "split": arms}), plain)
    assert "follow" not in document.to_json()["status"]
    following = replace(document, status=replace(plain, follow=away))
    assert RouteDocument.from_json(following.to_json()) == following


def test_a_commit_that_leaves_the_model_as_it_was_is_nothing_new() -> None:
    """The same bytes under a later name are the same; without a digest only the name counts."""
    seen = {"system": "dvc", "name": "repo:m", "version": "aaa", "digest": "12ab", "algorithm": "md5", "url": "repo"}
    state = FollowState(SOURCE, FollowPhase.CURRENT, 3.0, seen, 2)
    assert state.sees(seen)
    assert state.sees(seen | {"version": "bbb"})
    assert not state.sees(seen | {"version": "bbb", "digest": "34cd"})
    assert not state.sees(seen | {"name": "repo:other"})
    unknown = replace(state, identity=seen | {"digest": None})
    assert not unknown.sees(seen | {"digest": None, "version": "bbb"})
    assert not FollowState(SOURCE, FollowPhase.IMPORTING, 3.0).sees(seen)
