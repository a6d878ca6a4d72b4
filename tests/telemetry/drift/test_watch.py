"""The watch: counts of many replicas judged as one, by the one that leads, through restarts, losses and outages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gateway.cli.drift_command import sentence
from gateway.clock import ManualClock
from gateway.control.coordination import Alone
from gateway.control.shared_watch import SharedWatch
from gateway.errors import Fenced, StoreUnavailable, UnknownRoute
from gateway.messages import VersionRef
from gateway.routing.table import Rule
from gateway.settings_drift import ModelDrift
from gateway.telemetry.drift.looks import Look, Looked, LooksHere, ReadProfile, VersionLook
from gateway.telemetry.drift.sharing import Profiled, Tally
from gateway.telemetry.drift_families import DriftFamilies
from tests.control.scene import until
from tests.telemetry.drift.watch_scene import BODY, DIGEST, ONE, RNG, ROWS, TWO, Ground, Replica, Scene, table

OTHER = "sha256:" + "cd" * 32


@pytest.mark.parametrize("replicas", [4, 16])
async def test_counts_of_many_replicas_give_the_report_of_one_to_the_last_bit(replicas: int) -> None:
    """The same rows, in other parts and another order: every number of every report is equal."""
    rows = np.random.default_rng(3).standard_normal((6, 960, 6))
    rows[3:, :, 2] += 0.6
    told = []
    for many in (1, replicas):
        ground, clock = Ground(), ManualClock()
        scenes = [Scene(Replica(ground, f"r{n}"), clock, routes=table(1)) for n in range(many)]
        ground.elect("r0")
        for part in rows:
            for number, scene in enumerate(scenes):
                mine = part[number::many][:: -1 if number % 2 else 1]
                scene.count(mine[: len(mine) // 3])
                scene.count(mine[len(mine) // 3 :])
            clock.advance(600.0)
            for scene in reversed(scenes):
                await scene.watch.beat()
        told.append(json.dumps(await scenes[0].watch.reports.report("r")))
        assert json.dumps(await scenes[-1].watch.reports.report("r")) == told[-1], (
            "a replica that follows tells the same"
        )
    assert told[0] == told[1]
    assert '"state": "alarm"' in told[0]


async def test_an_alarm_is_told_by_who_leads_and_goes_on_under_the_next_leader() -> None:
    """The next one reads what the last one believed: the alarm stands, is not raised anew, and is cleared by it."""
    ground, clock, rng = Ground(), ManualClock(), np.random.default_rng(4)
    first, second = (Scene(Replica(ground, name), clock, routes=table(1)) for name in ("a", "b"))
    ground.elect("a")
    for scene in (first, second):
        scene.count(rng.standard_normal((400, 6)) + np.array([1.5, 0, 0, 0, 0, 0]))
        await second.look()
        await first.look()
    assert first.standing() == {"drift/m/1/world": True}
    assert not second.alarms
    ground.elect("b")
    for _ in range(6):
        second.count(rng.standard_normal((400, 6)))
        await first.watch.beat()
        await second.look()
    assert second.standing() == {"drift/m/1/world": False}
    assert (await second.watch.reports.report("r"))["versions"][0]["budget"]["alarms"] > 0
    assert not first.watch.figures(), "who no longer leads shows nothing"
    assert {figures.version for figures in second.watch.figures()} == {ONE}


async def test_a_leader_whose_term_has_ended_keeps_nothing() -> None:
    """It learns so when it keeps: what the next leader believes is not overwritten."""
    ground, clock = Ground(), ManualClock()
    scene = Scene(Replica(ground, "a"), clock, routes=table(1))
    ground.elect("a")
    scene.count(np.zeros((50, 6)))
    await scene.look()
    kept = dict(ground.values)
    scene.count(np.zeros((50, 6)))
    await scene.watch._publish()
    ground.term += 1
    with pytest.raises(Fenced):
        await scene.watch.look()
    assert ground.values == kept


async def test_while_the_ground_is_away_counts_wait_and_none_is_lost() -> None:
    """Looks fail quietly; the first one afterwards sees all rows."""
    ground, clock = Ground(), ManualClock()
    scene = Scene(Replica(ground, "a"), clock, routes=table(1))
    ground.elect("a")
    ground.up = False
    for _ in range(3):
        scene.count(RNG.standard_normal((100, 6)), seen=200)
        await scene.look()
    ground.up = True
    await scene.look()
    (version,) = (await scene.watch.reports.report("r"))["versions"]
    assert version["rows"] == {"seen": 600, "counted": 300, "sampling": 0.5, "reference": ROWS}


class Faulty(Replica):
    """A hold over which a fault comes that nobody thought of, once."""

    fault: Exception | None = None

    async def lead(self) -> int | None:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        return await super().lead()


async def test_a_fault_that_nobody_thought_of_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its trace, and drift is found afterwards as before."""
    ground, clock, rng = Ground(), ManualClock(), np.random.default_rng(4)
    shared = Faulty(ground, "a")
    scene = Scene(shared, clock, routes=table(1))
    ground.elect("a")
    shared.fault = ArithmeticError("nobody thought of this")
    scene.watch.start()
    await until(lambda: "nobody thought of this" in caplog.text)
    for _ in range(4):
        scene.count(rng.standard_normal((400, 6)) + np.array([1.5, 0, 0, 0, 0, 0]))
        await until(lambda: clock.waiting)
        clock.advance(600.0)
    await until(lambda: scene.standing() == {"drift/m/1/world": True})
    await scene.watch.close()
    assert clock.waiting == 0


async def test_the_silence_of_few_rows_is_told_from_health_and_an_alarm_with_the_rows_that_raised_it() -> None:
    """Ten rows rule out nothing that matters, and the command says so; two thousand do."""
    ground, clock, rng = Ground(), ManualClock(), np.random.default_rng(6)
    scene = Scene(Replica(ground, "a"), clock, routes=table(1))
    ground.elect("a")
    told = []
    for rows, shift in ((10, 0.0), (2_000, 0.0), (2_000, 1.5)):
        scene.count(rng.standard_normal((rows, 6)) + shift)
        await scene.look()
        (version,) = (await scene.watch.reports.report("r"))["versions"]
        told.append((version["state"], "possible yet" in sentence(version)))
    assert told == [("quiet", True), ("quiet", False), ("alarm", False)]
    assert all(feature["window"]["rows"] >= 2_000 for feature in version["features"] if feature["state"] == "alarm")


def test_sums_beyond_64_bits_go_round_and_differences_stay_right() -> None:
    """Squares of a column that is a thousand times too large reach them in weeks; looks only take differences."""
    before = Tally.from_counters({"seen": 1, "1": (1 << 63) - 5}, 2)
    after = Tally.from_counters({"seen": 2, "1": (1 << 63) + 7}, 2)
    assert (after.counts - before.counts).tolist() == [0, 12]


async def test_a_restart_alone_loses_no_alarm_and_takes_no_row_twice(tmp_path: Path) -> None:
    """Counters of a lone gateway are gone with it; what it believed is not."""
    clock, rng = ManualClock(), np.random.default_rng(4)
    for life in range(3):
        alone = Alone(tmp_path, clock)
        scene = Scene(SharedWatch(alone, "drift"), clock, routes=table(1))
        for _ in range(3):
            shift = 1.5 if life == 0 else 0.0
            scene.count(rng.standard_normal((300, 6)) + np.array([shift, 0, 0, 0, 0, 0]))
            await scene.look()
        (version,) = (await scene.watch.reports.report("r"))["versions"]
        assert version["features"][0]["state"] == ("alarm" if life == 0 else "quiet"), life
        assert version["rows"]["counted"] == 900
        assert version["budget"]["alarms"] == 3, "the column, the answers made of it, and the whole; once"
        await scene.watch.close()
        await alone.close()


async def test_counters_that_are_lost_are_nobodys_evidence() -> None:
    """One of two replicas' counters vanish: what is left was judged already and is not judged again."""
    ground, clock, rng = Ground(), ManualClock(), np.random.default_rng(5)
    scenes = [Scene(Replica(ground, name), clock, routes=table(1)) for name in ("a", "b")]
    ground.elect("a")
    for _ in range(3):
        for scene in reversed(scenes):
            scene.count(rng.standard_normal((300, 6)))
            await scene.look()
    (scope,) = [scope for scope in ground.counters if "beside" not in scope]
    del ground.counters[scope]["b"]
    scenes[0].count(rng.standard_normal((10, 6)))
    await scenes[0].look()
    state = scenes[0].watch._beliefs[scope].state
    assert (state.starts.windows[:, 0] >= 0).all()
    assert not state.raised


async def test_versions_on_a_route_are_compared_unless_rules_choose_too() -> None:
    """Two arms that chance feeds: different inputs are a routing fault. With a rule they differ by design."""
    clock, rng = ManualClock(), np.random.default_rng(6)
    fed = {}
    for name, rules in (("chance", ()), ("rule", (Rule("staff", lambda _: False, 2),))):
        ground = Ground()
        scene = Scene(Replica(ground, "a"), clock, routes=table(1, 2, rules=rules))
        ground.elect("a")
        for _ in range(4):
            scene.count(rng.standard_normal((400, 6)), ONE)
            scene.count(rng.standard_normal((400, 6)) + np.array([0, 0, 1.0, 0, 0, 0]), TWO)
            await scene.look()
        fed[name] = scene.standing()
    assert fed["chance"] == {"drift/m/2/routing": True}
    assert fed["rule"] == {"drift/m/2/world": True, "drift/m/2/routing": False}


async def test_what_matters_is_said_by_model_and_by_feature() -> None:
    """A shift of 0.5 where 1.0 matters is minor; where 0.1 does it is an alarm."""
    clock, rng = ManualClock(), np.random.default_rng(6)
    found = []
    for least in (ModelDrift(least_effect=1.0), ModelDrift(least_effect=1.0, features={"x[0]": 0.1, "y": 3.0})):
        ground = Ground()
        scene = Scene(Replica(ground, "a"), clock, routes=table(1), models={"m": least.model_dump()})
        ground.elect("a")
        for _ in range(4):
            scene.count(rng.standard_normal((500, 6)) + np.array([0.5, 0, 0, 0, 0, 0]))
            await scene.look()
        (version,) = (await scene.watch.reports.report("r"))["versions"]
        found.append({row["feature"]: row["state"] for row in version["features"]}["x[0]"])
    assert found == ["minor", "alarm"]


async def test_unknown_routes_unread_profiles_and_silence_are_said() -> None:
    """No route: 404. A profile that cannot be read: no report, and no failure. No rows: no data, neither drift nor
    health."""
    ground, clock = Ground(), ManualClock()
    scene = Scene(Replica(ground, "a"), clock, routes=table(1))
    ground.elect("a")
    with pytest.raises(UnknownRoute):
        await scene.watch.reports.report("other")
    await scene.look()
    (version,) = (await scene.watch.reports.report("r"))["versions"]
    assert version["state"] == "no-data"
    scene.subjects._references.clear()
    scene.subjects._read_profile = lambda _: b"no profile"
    await scene.look()
    (version,) = (await scene.watch.reports.report("r"))["versions"]
    assert version["state"] == "no-profile"


async def test_metrics_are_bounded_whatever_the_number_of_features() -> None:
    """The furthest features and the blocks, and one series for all together."""
    ground, clock = Ground(), ManualClock()
    scene = Scene(Replica(ground, "a"), clock, routes=table(1), features_shown=2)
    ground.elect("a")
    scene.count(RNG.standard_normal((500, 6)) + np.array([0, 2.0, 0, 0, 0, 0]))
    await scene.look()
    (figures,) = scene.watch.figures()
    features = {feature for feature, _ in figures.scores}
    assert "x[1]" in features
    assert len(features - {"all", "inputs", "outputs"}) == 2
    assert figures.alarms["all"] == figures.alarms["x[1]"] == 1
    assert figures.blames["world"] >= 1
    scene.watch.version_retired(ONE)
    await scene.look()
    assert not scene.watch._counted._tallies


class NoLooksAt(LooksHere):
    """Fails for one version, as a profile may that nobody thought of."""

    def __init__(self, read: ReadProfile, version: VersionRef) -> None:
        super().__init__(read)
        self.version: VersionRef | None = version

    async def do(self, look: Look) -> Looked:
        if isinstance(look, VersionLook) and look.version == self.version:
            raise StoreUnavailable("the process that looks for drift was lost with a look")
        return await super().do(look)


async def test_a_version_that_cannot_be_judged_costs_no_other_its_looks_and_is_seen_to_wait() -> None:
    """The first of two fails at each look: the second is judged, and the time of the first one's stands still."""
    ground, clock = Ground(), ManualClock()
    ground.elect("a")

    async def read(_: str) -> bytes:
        return json.dumps(BODY).encode()

    looks = NoLooksAt(read, ONE)
    scene = Scene(Replica(ground, "a"), clock, routes=table(1, 2), looks=looks)
    for _ in range(3):
        for version in (ONE, TWO):
            scene.count(RNG.standard_normal((500, 6)), version)
        await scene.look()
    told = scene.watch.looked_at()
    assert (told[ONE], told[TWO]) == (clock.wall() - 1200.0, clock.wall())
    assert [one.version for one in scene.watch.figures()] == [TWO]
    family = {one.name: one for one in DriftFamilies(scene.watch.figures, scene.watch.looked_at).collect()}
    assert len(family["gateway_drift_looked_timestamp_seconds"].samples) == 2
    looks.version = None
    await scene.look()
    assert scene.watch.looked_at()[ONE] == clock.wall()
    assert len(scene.watch.figures()) == 2


async def test_a_profile_that_is_away_for_a_moment_is_read_at_the_next_look(caplog: pytest.LogCaptureFixture) -> None:
    """Where artifacts lie may be out of reach when a version is first looked at: told once, and judged once it is back,
    with all that was counted meanwhile. What is no profile is not read again."""
    ground, clock = Ground(), ManualClock()
    ground.elect("a")
    scene = Scene(Replica(ground, "a"), clock, routes=table(1))
    reads: list[str] = []

    def away(digest: str) -> bytes:
        reads.append(digest)
        raise StoreUnavailable("the bucket does not answer")

    here, scene.subjects._read_profile = scene.subjects._read_profile, away
    for _ in range(3):
        scene.count(RNG.standard_normal((500, 6)))
        await scene.look()
    assert (await scene.watch.reports.report("r"))["versions"][0]["state"] == "no-profile"
    assert scene.watch.looked_at()[ONE] == clock.wall() - 1200.0
    assert len([text for text in caplog.messages if "cannot be read" in text]) == 1
    scene.subjects._read_profile = here
    await scene.look()
    (version,) = (await scene.watch.reports.report("r"))["versions"]
    assert (version["state"], version["rows"]["counted"]) == ("quiet", 1500)
    scene.profiles[ONE] = OTHER
    scene.subjects._read_profile = lambda digest: (reads.append(digest), b"no profile")[1]
    for _ in range(3):
        await scene.look()
    assert reads.count(OTHER) == 1


@pytest.mark.parametrize("left", [True, False], ids=["has left the routes", "was evicted"])
async def test_counts_of_versions_that_come_and_go_do_not_gather(tmp_path: Path, left: bool) -> None:
    """One that has left the routes leaves no counts behind; those of one that is only unloaded stay. One that comes
    back is judged on from what was believed of it, and no row of it is taken twice."""
    coordination = Alone(tmp_path, ManualClock())
    scene = Scene(SharedWatch(coordination, "drift"), ManualClock(), routes=table(1, 2))
    for rows in (300, 400):
        scene.routes = table(1, 2)
        scene.count(RNG.standard_normal((rows, 6)), TWO)
        await scene.look()
        assert (await counted_by(coordination))[str(TWO)] == rows
        scene.routes = table(1) if left else table(1, 2)
        scene.watch.version_retired(TWO)
        await scene.look()
        assert (str(TWO) in await counted_by(coordination)) is not left
    scene.routes = table(1, 2)
    await scene.look()
    (_, version) = (await scene.watch.reports.report("r"))["versions"]
    assert version["state"] == "quiet"


async def counted_by(coordination: Alone) -> dict[str, int]:
    """Rows by version, of all that anybody has published."""
    scopes = {f"m/{number}": Profiled(VersionRef("m", number), DIGEST).scope for number in (1, 2)}
    gathered = {name: await coordination.gather(scope) for name, scope in scopes.items()}
    return {name: counts["0"] for name, counts in gathered.items() if counts}
