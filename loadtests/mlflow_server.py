"""Starts and ends a real MLflow server: SQLite behind it, artifacts in a folder that it hands out, on a free port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx

from loadtests.live_gateway import free_port, wait_until
from loadtests.tied import tied

__all__ = ["COMMIT", "MlflowServer"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""Where ``mlflow_training`` says that its code is."""

START_S = 180.0
TRAIN_S = 600.0


class MlflowServer:
    """Use as a context manager. ``proxied`` False: artifacts are where clients reach them themselves, in the folder."""

    def __init__(self, folder: Path, *, proxied: bool = True) -> None:
        self.folder = folder
        self.artifacts = folder / "artifacts"
        self.port = free_port()
        self._proxied = proxied
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Its port stays the same, so that it can be ended and started again under a gateway that follows it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        if self._proxied:
            command += ["--serve-artifacts", "--artifacts-destination", str(self.artifacts)]
        else:
            command += ["--no-serve-artifacts", "--default-artifact-root", self.artifacts.as_uri()]
        with (self.folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                tied(command), stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0, cwd=self.folder
            )
        wait_until(self._answers, within_s=START_S, what="the MLflow server")

    def stop(self) -> None:
        """Ends the processes that it started too: its workers outlive it otherwise."""
        if self._process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
                break
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def train(self, *words: str) -> Any:
        """Runs ``loadtests.mlflow_training`` against this server, as people train; its last line is its answer."""
        command = [sys.executable, "-W", "ignore", "-m", "loadtests.mlflow_training", self.url, *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TRAIN_S)
        if done.returncode:
            raise AssertionError(
                f"training ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            )
        return json.loads(done.stdout.splitlines()[-1])

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One call of MLflow's own REST API (``registered-models/alias``): what its users and its UI do."""
        answer = httpx.request(method, f"{self.url}/api/2.0/mlflow/{path}", json=body, timeout=180.0)
        answer.raise_for_status()
        return answer.json()

    def register_again(self, name: str) -> str:
        """The files of version 1 as a further version, as somebody may register them in MLflow's pages."""
        first = self.call("GET", f"model-versions/get?name={name}&version=1")["model_version"]
        asked = {"name": name, "source": first["source"], "model_id": first["source"].removeprefix("models:/")}
        made = self.call("POST", "model-versions/create", asked)["model_version"]
        return str(made["version"])

    def set_alias(self, name: str, alias: str, version: int | str) -> None:
        self.call("POST", "registered-models/alias", {"name": name, "alias": alias, "version": str(version)})

    def aliases(self, name: str) -> dict[str, str]:
        """Alias to version."""
        found = self.call("GET", f"registered-models/get?name={name}")["registered_model"]
        return {row["alias"]: row["version"] for row in found.get("aliases", ())}

    def tags(self, name: str, version: int | str) -> dict[str, str]:
        found = self.call("GET", f"model-versions/get?name={name}&version={version}")["model_version"]
        return {row["key"]: row["value"] for row in found.get("tags", ())}

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"mlflow ended:\n{(self.folder / 'mlflow.log').read_text()[-3000:]}")
        try:
            return httpx.get(f"{self.url}/health", timeout=10.0).status_code == 200
        except httpx.TransportError:
            return False
