"""Quiet with bursts: 20 users, and for ten seconds of every minute 400; five minutes."""

from __future__ import annotations

from locust import LoadTestShape

QUIET, BURST = 20, 400
PERIOD_S, BURST_S, LENGTH_S = 60, 10, 300


class Bursts(LoadTestShape):
    """All at once: what a batcher and its queue feel when a mail goes out to everybody."""

    def tick(self) -> tuple[int, float] | None:
        now = self.get_run_time()
        if now > LENGTH_S:
            return None
        users = BURST if now % PERIOD_S >= PERIOD_S - BURST_S else QUIET
        return users, float(BURST)
