"""Ever more users: 20 more each 20 seconds up to 400, and the point where latency bends."""

from __future__ import annotations

from locust import LoadTestShape

STEP_S, STEP_USERS, MOST = 20, 20, 400


class Ramp(LoadTestShape):
    """Ends a step after the last users came."""

    def tick(self) -> tuple[int, float] | None:
        users = STEP_USERS * (1 + int(self.get_run_time() // STEP_S))
        return None if users > MOST else (users, float(STEP_USERS))
