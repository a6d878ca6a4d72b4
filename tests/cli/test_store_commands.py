"""Replicas and their store from the command line: on a home, and against a replica."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.redis_server import RedisServer
from tests.cli.conftest import Turnout


@pytest.fixture
def replica(tmp_path: Path, redis_server: RedisServer) -> Iterator[LiveGateway]:
    settings = {"store": {"url": redis_server.url, "prefix": f"test-{uuid4().hex}", "deadline_ms": 60_000}}
    with LiveGateway(tmp_path / "home", settings=settings) as running:
        yield running


def test_a_home_of_its_own_has_no_replicas_and_a_durable_store(local: Turnout) -> None:
    """And nothing to adopt."""
    local.done("tokens", "create", "olga")
    assert local.done("replicas").err == "No replica is up.\n"
    assert local.done("store", "status").out.split() == ["store", "local", "revision", "1", "durable", "always"]
    for words in (["adopt"], ["restore-from-replica"]):
        refusal = local("store", *words)
        assert (refusal.status, "set TURNOUT_URL" in refusal.err) == (1, True)


def test_a_replica_is_asked_over_its_address(local: Turnout, replica: LiveGateway) -> None:
    """Who is there, how the store stands; a store that is believed needs no decision; a rollback needs a route."""
    there = {"TURNOUT_URL": replica.url, "TURNOUT_TOKEN": replica.token}
    wait_until(lambda: replica.url in local.done("replicas", **there).out, what="the replica among the living")
    status = local("store", "status", **there)
    assert "redis redis://127.0.0.1" in status.out
    assert "durable    always" in status.out
    for words in (["adopt"], ["restore-from-replica", "--force"]):
        refusal = local("store", *words, **there)
        assert (refusal.status, "nothing to decide" in refusal.err) == (1, True)
    missing = local("rollback", "digits", "--local", **there)
    assert (missing.status, "no route 'digits'" in missing.err) == (1, True)


def test_the_home_of_a_replica_is_not_backed_up_nor_emptied_as_if_it_were_all(
    local: Turnout, replica: LiveGateway
) -> None:
    """Its desired state is in Redis: a backup would have none, and to gc every file would be nobody's."""
    replica.stop()
    home = {"TURNOUT_HOME": str(replica.home)}
    refusal = local("backup", local.folder / "backup.tar", **home)
    assert (refusal.status, "desired state is in Redis" in refusal.err) == (1, True)
    assert not (local.folder / "backup.tar").exists()
    refusal = local("gc", "--yes", **home)
    assert (refusal.status, "TURNOUT_STORE__URL" in refusal.err) == (1, True)
