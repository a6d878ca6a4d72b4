"""Quiet with bursts: 20 users, and for ten seconds of every minute 400; five minutes, or ``--run-time``."""

from __future__ import annotations

from locust import LoadTestShape

QUIET, BURST = 20, 400
PERIOD_S, BURST_S, LENGTH_S = 60, 10, 300
SPAWNED_PER_S = 100.0


class Bursts(LoadTestShape):
    """Within four seconds: what a batcher and its queue feel when a mail goes out to everybody."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        now: float = self.get_run_time()  # type: ignore[no-untyped-call]
        options = self.runner.environment.parsed_options if self.runner else None
        if now > ((options and options.run_time) or LENGTH_S):
            return None
        users = BURST if PERIOD_S / 6 <= now % PERIOD_S < PERIOD_S / 6 + BURST_S else QUIET
        return users, SPAWNED_PER_S
