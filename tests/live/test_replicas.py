"""Three real gateways on one real Redis, under load, while everything around them goes wrong: nobody may notice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.registry.blobs import BlobStore
from loadtests.closed_loop import Answer, Load
from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.redis_server import find_redis
from loadtests.replica_set import Replica, ReplicaSet
from tests.live.scenario import ROW, after, audit, failed, load, mislabelled, register, self_naming

ROUTE = "echo"
LIMITS = {"timeout_ms": 90_000}
"""A request that waits while its replica is stopped is answered when that goes on, however long it took."""

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_redis() is None, reason="no redis-server here: apt-get install redis-server"),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ReplicaSet]:
    with ReplicaSet(tmp_path) as running:
        first = running.replicas[0]
        register(first, ROUTE, 2)
        split = [{"version": 1, "weight": 100}, {"version": 2, "weight": 0}]
        first.put_route(ROUTE, {"model": ROUTE, "split": split, "known_good": 1, "fallback": 1, "limits": LIMITS})
        yield running


@contextmanager
def loaded(replicas: list[Replica]) -> Iterator[list[Load]]:
    """Four clients on each; at the end, not one request has failed or was answered under a wrong label."""
    with ExitStack() as ends:
        loads = [ends.enter_context(load(replica, ROUTE, clients=4, pause_s=0.005)) for replica in replicas]
        for each in loads:
            after(each, 20)
        yield loads
    answers: list[Answer] = [answer for each in loads for answer in each.answers]
    assert failed(answers) == []
    assert mislabelled(answers) == []


def only(gateway: LiveGateway, version: int) -> None:
    answers = [gateway.predict(ROUTE, [ROW], key=f"k{number}").json() for number in range(8)]
    assert {answer["version"] for answer in answers} == {version}


def everything_to(gateway: LiveGateway, version: int) -> Any:
    view = gateway.weights(ROUTE, {version: 100, 3 - version: 0})
    assert view["status"]["applied"] is True
    return view


def refused(gateway: LiveGateway, version: int, kind: str = "store-unavailable") -> str:
    """A change that the store cannot take: 503, and why."""
    problem = gateway.admin("POST", f"/routes/{ROUTE}/weights", {"weights": {str(version): 100}}, expect=503)
    assert problem["type"].endswith(kind)
    return str(problem["detail"])


def served(gateway: LiveGateway) -> int:
    return int(gateway.client.get("/readyz").json()["revision"])


def degraded(gateway: LiveGateway) -> str:
    body = gateway.client.get("/readyz")
    assert body.status_code == 200
    return " ".join(body.json()["degraded"])


def test_a_change_that_was_waited_for_is_served_by_every_replica(cluster: ReplicaSet) -> None:
    """Twenty changes through three replicas in turn: once acknowledged with wait=applied, no replica answers otherwise;
    each says the same revision; versions are registered through any of them."""
    with loaded(cluster.replicas):
        for number in range(20):
            version = 2 - number % 2
            everything_to(cluster.replicas[number % 3], version)
            for replica in cluster.replicas:
                only(replica, version)
    found = cluster.replicas[1].admin("GET", "/replicas")
    assert len(found["replicas"]) == 3
    assert {(row["revision"], row["lag"]) for row in found["replicas"]} == {(found["store"]["revision"], 0)}
    assert [row["replica"] for row in found["replicas"] if row.get("here")] != []
    assert (found["store"]["durable"], found["store"]["up"], found["store"]["refused"]) == ("always", True, None)
    assert cluster.replicas[2].admin("GET", "/audit/verify")["ok"] is True


def test_a_replica_that_was_stopped_and_continued_catches_up(cluster: ReplicaSet) -> None:
    """While it is stopped its lease ends, and nobody waits for it; continued, it takes the newest revision, answers
    those who waited, and takes its own sleep for no version's fault."""
    first, sleeper, third = cluster.replicas
    with loaded(cluster.replicas):
        sleeper.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        try:
            revision = everything_to(first, 2)["revision"]
            assert len(cluster.living()) == 2
            only(third, 2)
        finally:
            sleeper.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        wait_until(lambda: served(sleeper) >= revision, what="the replica that slept")
        # Its watchdogs slept too: for a moment a version may count as hanging, and the fallback answers for it.
        wait_until(lambda: first_answers(sleeper) == {2}, what="answers of the new version")
        wait_until(lambda: len(cluster.living()) == 3, what="its lease")
    assert audit(first, "rollback") == []


def test_a_replica_that_is_killed_is_missed_for_a_lease_and_no_longer(cluster: ReplicaSet) -> None:
    """Changes go on through the others; it comes back to the newest revision."""
    first, second, third = cluster.replicas
    with loaded([first, second]):
        third.kill()
        everything_to(second, 2)
        wait_until(lambda: len(cluster.living()) == 2, what="the lease's end")
    third.start()
    wait_until(lambda: third.client.get("/readyz").status_code == 200, what="the replica that was killed")
    only(third, 2)


def test_redis_ends_and_comes_back_with_its_data(cluster: ReplicaSet) -> None:
    """Serving goes on, changes get 503 with the reason, tokens still work; afterwards everything is as it was."""
    with loaded(cluster.replicas) as loads:
        revision = everything_to(cluster.replicas[0], 2)["revision"]
        cluster.redis.kill()
        assert "is it running" in refused(cluster.replicas[1], 1)
        for replica in cluster.replicas:
            wait_until(lambda replica=replica: "store:" in degraded(replica), what="the trouble in readyz")
            assert replica.admin("GET", f"/routes/{ROUTE}")["status"]["in_force"] == revision
            only(replica, 2)
        for each in loads:
            after(each, 50)
        cluster.redis.start()
        wait_until(lambda: not any(degraded(replica) for replica in cluster.replicas), what="the store again")
        assert everything_to(cluster.replicas[2], 1)["revision"] == revision + 1
    assert cluster.replicas[0].admin("GET", "/audit/verify")["ok"] is True


def test_redis_comes_back_empty_and_wipes_nothing(cluster: ReplicaSet) -> None:
    """It is not believed, not even by a replica that starts meanwhile; one replica puts its state back, and all go on
    from there at a later revision."""
    first, second, third = cluster.replicas
    with loaded([first, second]):
        revision = everything_to(first, 2)["revision"]
        cluster.redis.kill()
        cluster.redis.forget()
        third.terminate()
        cluster.redis.start()
        third.start()
        wait_until(lambda: third.client.get("/readyz").status_code == 200, what="the replica that started meanwhile")
        for replica in cluster.replicas:
            wait_until(lambda replica=replica: "restore-from-replica" in degraded(replica), what="the refusal")
            assert served(replica) == revision
            assert "gateway_state_store_refused 1.0" in replica.metrics()
            only(replica, 2)
        assert "is empty" in refused(second, 1, kind="store-refused")
        done = second.admin("POST", "/store/restore-from-replica", {"reason": "emptied by a test"})
        assert done["revision"] > revision
        wait_until(lambda: not any(degraded(replica) for replica in cluster.replicas), what="the store again")
        wait_until(lambda: cluster.revisions() == {done["revision"]}, what="one revision")
        everything_to(third, 1)
        for replica in cluster.replicas:
            only(replica, 1)
    assert first.admin("GET", "/audit/verify")["ok"] is True
    assert [record["reason"] for record in audit(first, "store-restore")] == ["emptied by a test"]


def test_a_rollback_while_redis_does_not_answer_holds_and_is_reconciled(cluster: ReplicaSet) -> None:
    """Redis is stopped by SIGSTOP, as if cut off: a local rollback is in force at once on its replica, outlives that
    replica's restart, and reaches the others, once, when Redis answers again."""
    first, second, third = cluster.replicas
    first.weights(ROUTE, {1: 50, 2: 50})
    with loaded([first, second]):
        cluster.redis.pause()
        view = third.rollback(ROUTE, local=True)
        assert (view["durable"], view["status"]["known_good"]) == (False, 1)
        only(third, 1)
        assert "did not answer in time" in refused(first, 1)
        third.kill()
        third.start()
        wait_until(lambda: third.client.get("/readyz").status_code == 200, what="the replica that was killed")
        only(third, 1)
        assert "gateway_state_rollbacks_not_stored 1.0" in third.metrics()
        cluster.redis.resume()
        wait_until(lambda: all(first_answers(replica) == {1} for replica in cluster.replicas), what="the rollback")
        wait_until(lambda: "gateway_state_rollbacks_not_stored 0.0" in third.metrics(), what="its place in the store")
    assert len(audit(first, "rollback")) == 1
    assert "2" in first.route(ROUTE)["status"]["quarantined"]
    assert not (third.home / "rollbacks-not-stored").exists()


def first_answers(gateway: LiveGateway) -> set[int]:
    return {gateway.predict(ROUTE, [ROW], key=f"k{number}").json()["version"] for number in range(8)}


# The network


@pytest.fixture
def cabled(tmp_path: Path) -> Iterator[ReplicaSet]:
    with ReplicaSet(tmp_path, cabled=True) as running:
        first = running.replicas[0]
        register(first, ROUTE, 2)
        split = [{"version": 1, "weight": 100}, {"version": 2, "weight": 0}]
        first.put_route(ROUTE, {"model": ROUTE, "split": split, "known_good": 1, "fallback": 1, "limits": LIMITS})
        yield running


@pytest.mark.parametrize("kind", ["stalled", "reset"])
def test_a_replica_that_is_cut_off_serves_on_and_catches_up(cabled: ReplicaSet, kind: str) -> None:
    """Its own line to Redis drops all packets, or resets connections. It answers by its last revision and refuses
    changes; the others wait for its lease and go on; mended, it takes the newest revision, and what it refused was
    not done."""
    first, second, third = cabled.replicas
    cable = cabled.cables[2]
    before = served(third)
    with loaded(cabled.replicas) as loads:
        cable.stall() if kind == "stalled" else cable.cut()
        refused(third, 2)
        wait_until(lambda: "store:" in degraded(third), what="the trouble in readyz")
        revision = everything_to(first, 2)["revision"]
        only(second, 2)
        only(third, 1)
        assert served(third) == before
        for each in loads:
            after(each, 50)
        cable.mend()
        wait_until(lambda: served(third) >= revision, what="the replica that was cut off")
        only(third, 2)
        wait_until(lambda: len(cabled.living()) == 3, what="its lease")
        assert everything_to(third, 1)["revision"] == revision + 1
        only(first, 1)
    assert first.admin("GET", "/audit/verify")["ok"] is True


def test_a_change_right_after_an_outage_waits_for_replicas_that_are_still_unheard(cabled: ReplicaSet) -> None:
    """All leases ended while Redis was cut off from everybody. The first to come back does not take the silence of
    the others for their death: applied means applied by all three."""
    with loaded(cabled.replicas):
        for cable in cabled.cables:
            cable.cut()
        wait_until(lambda: all("store:" in degraded(replica) for replica in cabled.replicas), what="the outage")
        quiet = time.monotonic() + 3.5
        wait_until(lambda: time.monotonic() > quiet, what="the end of all leases")
        for cable in cabled.cables:
            cable.mend()
        wait_until(lambda: not degraded(cabled.replicas[0]), what="the store again")
        everything_to(cabled.replicas[0], 2)
        for replica in cabled.replicas:
            only(replica, 2)


# The bytes of a version


def test_a_replica_that_lacks_the_bytes_of_a_version_goes_on_with_what_it_had(tmp_path: Path) -> None:
    """It names the missing file; who waits for the change is told that not all serve it; once the bytes are there,
    it serves it too, by itself."""
    with ReplicaSet(tmp_path, bytes_apart=[2]) as cluster:
        first, second, third = cluster.replicas
        self_naming(third, ROUTE, 1)
        copy_bytes(tmp_path / "bytes-2", tmp_path / "shared")
        first.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 100}], "known_good": 1})
        with loaded(cluster.replicas):
            self_naming(first, ROUTE, 2)
            view = first.weights(ROUTE, {2: 100})
            assert view["status"]["applied"] is False
            wait_until(lambda: first_answers(second) == {2}, what="the replica that has them")
            only(third, 1)
            rows = {row["replica"]: row["behind"] for row in first.admin("GET", "/replicas")["replicas"]}
            (why,) = [behind[ROUTE] for behind in rows.values() if behind]
            assert why.startswith("failed: version 2")
            assert "artifact store" in why
            copy_bytes(tmp_path / "shared", tmp_path / "bytes-2")
            wait_until(lambda: first_answers(third) == {2}, within_s=150, what="the version that came later")


def copy_bytes(source: Path, target: Path) -> None:
    BlobStore(source).copy_to(target)
