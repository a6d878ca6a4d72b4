"""Starts and ends a real Prometheus on the checked-in rules and scrape file: a free port, a folder, other targets."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from loadtests.live_gateway import free_port, wait_until

__all__ = ["CONFIG", "PrometheusServer", "find_prometheus"]

CONFIG = Path(__file__).parent.parent / "config" / "prometheus"

START_S = 60.0


def find_prometheus() -> str | None:
    """Debian's ``prometheus``, which has ``promtool`` with it; None when it is not here."""
    return shutil.which("prometheus") if shutil.which("promtool") else None


class PrometheusServer:
    """``targets`` by the name of the job, in place of those of the file; ``every`` is its interval of scrapes and of
    evaluations. Use as a context manager."""

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[str]], *, every: str = "1s") -> None:
        program = find_prometheus()
        if program is None:
            raise FileNotFoundError("no prometheus: apt-get install prometheus")
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = _config(folder, targets, every)
        self._command = [program, f"--config.file={self._config}", f"--storage.tsdb.path={folder / 'data'}"]
        self._command += [f"--web.listen-address=127.0.0.1:{self.port}", "--enable-feature=exemplar-storage"]
        self.client = httpx.Client(base_url=self.url, timeout=90.0)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self.folder / "prometheus.log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._ready, within_s=START_S, what="the Prometheus")
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def _ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"prometheus ended:\n{(self.folder / 'prometheus.log').read_text()[-3000:]}")
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, path: str, **parameters: Any) -> Any:
        """``data`` of an answer of its HTTP API; AssertionError with its words when it refuses."""
        body = self.client.get(f"/api/v1/{path}", params=parameters).json()
        assert body["status"] == "success", f"{path} {parameters}: {body.get('error')}"
        return body["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector now; a scalar as a vector of one."""
        data = self.ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Of an expression of one series; None while there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None


def _config(folder: Path, targets: Mapping[str, Sequence[str]], every: str) -> Path:
    """The checked-in file, with other targets and intervals, beside links to the checked-in rules."""
    body = yaml.safe_load((CONFIG / "prometheus.yml").read_text(encoding="utf-8"))
    body["global"] = {"scrape_interval": every, "evaluation_interval": every}
    body["scrape_configs"] = [job for job in body["scrape_configs"] if job["job_name"] in targets]
    for job in body["scrape_configs"]:
        job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
    body["rule_files"] = [str(CONFIG / name) for name in body["rule_files"]]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(body), encoding="utf-8")
    return path
