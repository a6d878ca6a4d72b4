"""Users of the digits route, for people who watch: ``locust -f loadtests/locustfile.py --host http://127.0.0.1:8000``."""

from __future__ import annotations

import random

from locust import HttpUser, between, task
from locust.clients import ResponseContextManager


class DigitsUser(HttpUser):
    """One person with one key: always the same version, until the weights change."""

    wait_time = between(0.05, 0.2)

    def on_start(self) -> None:
        self.key = f"user-{random.getrandbits(48):x}"

    @task(10)
    def predict(self) -> None:
        rows = [[float(random.randint(0, 16)) for _ in range(64)]]
        body = {"inputs": rows, "key": self.key}
        with self.client.post("/predict/digits", json=body, name="/predict", catch_response=True) as answer:
            self._check(answer)

    @task(1)
    def predict_many(self) -> None:
        rows = [[float(random.randint(0, 16)) for _ in range(64)] for _ in range(16)]
        with self.client.post(
            "/predict/digits", json={"inputs": rows}, name="/predict x16", catch_response=True
        ) as answer:
            self._check(answer)

    @staticmethod
    def _check(answer: ResponseContextManager) -> None:
        if answer.status_code == 200 and "version" not in answer.json():
            answer.failure("an answer without a version")  # type: ignore[no-untyped-call]
