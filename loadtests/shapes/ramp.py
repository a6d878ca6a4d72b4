"""Ever more users: 20 more each 20 seconds up to 400, and the point where latency bends."""

from __future__ import annotations

import math

from locust import LoadTestShape

STEP_S, STEP_USERS, MOST = 20, 20, 400


class Ramp(LoadTestShape):
    """Ends a step after the last users came, or at ``--run-time``."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        now: float = self.get_run_time()  # type: ignore[no-untyped-call]
        options = self.runner.environment.parsed_options if self.runner else None
        if now > ((options and options.run_time) or math.inf):
            return None
        users = STEP_USERS * (1 + int(now // STEP_S))
        return None if users > MOST else (users, float(STEP_USERS))
