"""Whom a real gateway tells: people of what happened, once, and sinks of each decision, through kills and outages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.redis_server import find_redis
from loadtests.replica_set import ReplicaSet
from tests.live.scenario import ROW, register
from tests.telemetry.decisions.follower import Receiving, receiving

ROUTE = "echo"
SPLIT = [{"version": 1, "weight": 100}, {"version": 2, "weight": 0}]

pytestmark = pytest.mark.timeout(600)


def told(there: Receiving) -> list[dict[str, Any]]:
    return [json.loads(body) for body in there.bodies()]


def recorded(there: Receiving, since: int = 0) -> set[str]:
    """The ids of the decisions that have come, after so many attempts."""
    return {event["id"] for body in there.bodies()[since:] for event in json.loads(body)}


def prepared(gateway: LiveGateway) -> None:
    register(gateway, ROUTE, 2)
    gateway.put_route(ROUTE, {"model": ROUTE, "split": SPLIT, "known_good": 1})


def answered(gateway: LiveGateway, count: int) -> set[str]:
    """The decision ids that clients were given."""
    answers = [gateway.predict(ROUTE, [ROW]) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {200}
    return {answer.headers["x-decision-id"] for answer in answers}


def logged(gateway: LiveGateway, decision: str) -> bool:
    """It stands in the log's files, and so outlives the process."""
    headers = {"authorization": f"Bearer {gateway.token}"}
    return gateway.client.get(f"/admin/decisions/{decision}", headers=headers).status_code == 200


def metric(gateway: LiveGateway, line: str) -> float:
    found = re.search(rf"^{re.escape(line)} (\S+)$", gateway.metrics(), re.MULTILINE)
    return 0.0 if found is None else float(found[1])


def test_a_killed_gateway_owes_what_it_could_not_tell_and_every_decision_that_it_has_kept(tmp_path: Path) -> None:
    """A rollback and sixty decisions while both receivers refuse; then kill -9, and the next process tells them."""
    with receiving() as people, receiving() as sink:
        people.answer = sink.answer = lambda _: 503
        settings = {
            "notifications": {"targets": [{"name": "ops", "url": people.url}]},
            "telemetry": {
                "decisions": {
                    "sync_s": 0.1,
                    "sinks": [{"name": "events", "kind": "cloudevents", "url": sink.url, "from_start": True}],
                }
            },
        }
        with LiveGateway(tmp_path / "home", settings=settings) as gateway:
            prepared(gateway)
            given = answered(gateway, 60)
            gateway.rollback(ROUTE, to=2)
            wait_until(lambda: people.got, what="an attempt to tell of the rollback")
            sent = 'gateway_decision_sink_sent_total{sink="events"}'
            failed = 'gateway_decision_sink_failed_attempts_total{sink="events"}'
            wait_until(lambda: metric(gateway, failed) >= 1, what="an attempt of the sink")
            lag = 'gateway_decision_sink_lag_records{sink="events"}'
            wait_until(lambda: metric(gateway, lag) >= 60, what="sixty records that are owed")
            wait_until(lambda: all(logged(gateway, one) for one in given), what="the decisions in the log")
            gateway.kill()
            people.answer = sink.answer = lambda _: 204
            refused, since = len(people.got), len(sink.got)
            gateway.start()
            wait_until(lambda: gateway.client.get("/readyz").status_code == 200, what="readyz")
            wait_until(lambda: given <= recorded(sink, since), what="the decisions of the killed process")
            more = answered(gateway, 20)
            wait_until(lambda: more <= recorded(sink), what="the decisions of this one")
            delivered = 'gateway_notifications_total{outcome="delivered",target="ops"}'
            wait_until(lambda: metric(gateway, delivered) == 1, what="the notification")
            wait_until(lambda: metric(gateway, sent) >= 80, what="the sink's count")
        assert refused < len(people.got) <= refused + 2  # one may have been under way when it was killed
        assert {notice["event"] for notice in told(people)} == {"rollback"}
        assert len({notice["delivery"] for notice in told(people)}) == 1
        assert told(people)[-1]["title"] == "Route echo went back to echo/2"


@pytest.mark.skipif(find_redis() is None, reason="no redis-server here: apt-get install redis-server")
def test_replicas_tell_of_an_event_once_and_the_next_leader_tells_what_a_killed_one_owed(tmp_path: Path) -> None:
    """Two gateways on one Redis; who leads is killed while its receiver refuses."""
    with receiving() as people:
        settings = {"notifications": {"targets": [{"name": "ops", "url": people.url}]}}
        with ReplicaSet(tmp_path, count=2, settings=settings) as cluster:
            first, second = cluster.replicas
            prepared(first)
            first.rollback(ROUTE, to=2)
            wait_until(lambda: quarantined(second) == {"1"}, what="the rollback on the second")
            second.lift(ROUTE, 1)
            wait_until(lambda: second.resident().get("echo/1", {}).get("state") == "active", what="version 1 there")
            second.rollback(ROUTE, to=1)
            wait_until(lambda: len(events(people)) == 3, what="two rollbacks and a lift")
            wait_until(lambda: not any(metric(each, _under_way()) for each in cluster.replicas), what="nothing owed")
            people.answer = lambda _: 503
            wait_until(lambda: quarantined(first) == {"2"}, what="the rollback on the first")
            first.lift(ROUTE, 2)
            wait_until(lambda: len(events(people)) == 4, what="an attempt")
            leading = wait_until(
                lambda: [replica for replica in cluster.replicas if metric(replica, _under_way()) == 1],
                what="one that owes it",
            )
            assert len(leading) == 1
            other = second if leading == [first] else first
            leading[0].kill()
            people.answer = lambda _: 204
            wait_until(lambda: metric(other, _delivered()) >= 1, what="the other to lead and tell")
            wait_until(lambda: metric(other, _under_way()) == 0, what="nothing owed")
        # Each event has a courier's task of its own: they may overtake each other.
        assert sorted(events(people).values()) == ["lift", "lift", "rollback", "rollback"]


def events(there: Receiving) -> dict[str, str]:
    """What happened, by the name of its delivery, which is the same each time that one is tried again."""
    return {notice["delivery"]: notice["event"] for notice in told(there)}


def quarantined(gateway: LiveGateway) -> set[str]:
    return set(gateway.route(ROUTE)["status"]["quarantined"])


def _under_way() -> str:
    return 'gateway_notifications_under_way{target="ops"}'


def _delivered() -> str:
    return 'gateway_notifications_total{outcome="delivered",target="ops"}'
