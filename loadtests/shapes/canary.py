"""A canary under load: 50 users for two minutes while weight moves from the first version to the second, and back.

Needs a token that may change weights in ``TURNOUT_TOKEN``; the route digits of ``make serve``. In the end, at
``--run-time`` and at Ctrl-C the weights are as they were.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import gevent  # type: ignore[import-untyped]
import httpx
from locust import LoadTestShape, events
from locust.env import Environment

PATH = "/admin/routes/digits"
SHARES = (1, 5, 25, 50, 100, 50, 0)
STEP_S = 15


class Steady(LoadTestShape):
    """As many users all the way, so that a change in latency is the canary's."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        now: float = self.get_run_time()  # type: ignore[no-untyped-call]
        options = self.runner.environment.parsed_options if self.runner else None
        limit = (options and options.run_time) or STEP_S * (len(SHARES) + 1)
        return None if now > limit else (50, 50.0)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **_: Any) -> None:
    walking = gevent.spawn(walk, str(environment.host))

    @events.quitting.add_listener  # type: ignore[untyped-decorator]
    def end(**_: Any) -> None:
        """Ends the walk where it stands, and waits until the weights are back."""
        walking.kill()


def walk(host: str) -> None:
    """Moves the weights step by step. Raises when the gateway refuses: locust shows it."""
    headers = {"authorization": f"Bearer {os.environ.get('TURNOUT_TOKEN', '')}"}
    with httpx.Client(base_url=host, headers=headers, timeout=10) as admin:
        split = admin.get(PATH).raise_for_status().json()["spec"]["split"]
        before = {str(arm["version"]): int(arm["weight"]) for arm in split}
        first, second, *_ = before
        try:
            for share in SHARES:
                put(admin, {first: 100 - share, second: share})
                gevent.sleep(STEP_S)
        finally:
            put(admin, before)


def put(admin: httpx.Client, weights: Mapping[str, int]) -> None:
    admin.post(f"{PATH}/weights", json={"weights": weights}).raise_for_status()
