"""Starts and ends a real gateway: ``turnout serve`` in a subprocess, its own home, a free port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import yaml

START_S = 60.0
"""Also what a change may take to be in force, on a machine with no idle time: versions load when nobody else works."""

_APPLIED = f"?wait=applied&timeout_s={START_S:g}"
_ANSWER_S = 90.0
_PORTS, _BLOCK = range(20_000, 32_000), 100
"""Below those that the kernel gives away itself: no connection and no other server takes one between two starts."""


def free_port() -> int:
    """Given to nobody else: programs that ask for one at the same time draw from blocks of their own."""
    return next(port for port in _own_ports() if _is_free(port))


@cache
def _own_ports() -> Iterator[int]:
    """Of the first block that nobody has, again and again. It is this process's to its end."""
    for first in _PORTS[::_BLOCK]:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0turnout-test-ports-{first}")
        except OSError:
            claim.close()
            continue
        claim.detach()
        return cycle(range(first, first + _BLOCK))
    raise AssertionError(f"all ports from {_PORTS[0]} to {_PORTS[-1]} are others'; end some of the programs that test")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until(condition: Callable[[], Any], *, within_s: float = 60.0, what: str = "condition") -> Any:
    """Polls a real process's state; returns the condition's truthy value, fails the test when it never comes."""
    limit = time.monotonic() + within_s
    while True:
        last = time.monotonic() > limit
        value = condition()
        if value:
            return value
        if last:
            raise AssertionError(f"{what} did not come true within {within_s} s")
        time.sleep(0.02)


def command_line(process: psutil.Process) -> list[str]:
    """Nothing of one that has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


class LiveGateway:
    """``settings`` are dotted groups as in config/gateway.yaml; ``prefix`` stands before the command, as ``taskset``
    does; ``options`` are further ones of ``turnout serve``. Use as a context manager."""

    def __init__(
        self,
        home: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        prefix: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.home = home
        self.prefix, self.options = tuple(prefix), tuple(options)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = home.parent / f"{home.name}.log"
        body: dict[str, Any] = {"home": str(home), "telemetry": {"request_log": "off"}}
        body["registry"] = {"source_directories": [str(home.parent)]}
        body["runtimes"] = {"preload": ["echo"]}
        for group, values in (settings or {}).items():
            body[group] = {**body.get(group, {}), **values} if isinstance(values, dict) else values
        self.config = home.parent / f"{home.name}.yaml"
        self.config.write_text(yaml.safe_dump(body), encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=self.url, timeout=_ANSWER_S)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.client.close()

    def start(self) -> None:
        """Once the port is free: web workers of one that was killed end a moment after it."""
        wait_until(lambda: _is_free(self.port), what=f"port {self.port}, free")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
        with self.log_path.open("ab") as log:
            command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(self.config)]
            self.process = subprocess.Popen(
                [*self.prefix, *command, "--port", str(self.port), *self.options],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        wait_until(self._alive, within_s=START_S, what="healthz")

    def _alive(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"the gateway ended at start:\n{self.log()}")
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")[-8000:]

    @property
    def pid(self) -> int:
        if self.process is None:
            raise AssertionError("the gateway is not running")
        return self.process.pid

    def terminate(self, *, within_s: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        if self.process is None:
            raise AssertionError("the gateway is not running")
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        try:
            self.terminate()
        except subprocess.TimeoutExpired:
            self.kill()

    def descendants(self, word: str = "") -> list[psutil.Process]:
        """All of them, or those whose command line has this word in it; which end meanwhile are left out."""
        family = psutil.Process(self.pid).children(recursive=True)
        return family if not word else [one for one in family if word in " ".join(command_line(one))]

    def recorder(self, but: int | None = None) -> psutil.Process | None:
        """The process that records what happens; None while there is none, or none but the one of that id."""
        return next((one for one in self.descendants("gateway.recording.process") if one.pid != but), None)

    # The admin plane

    @property
    def token(self) -> str:
        return (self.home / "admin-token").read_text(encoding="utf-8").strip()

    def admin(self, method: str, path: str, body: Any = None, *, expect: int | None = None, **kwargs: Any) -> Any:
        """A call with the admin token; the decoded body. ``expect`` checks the status."""
        headers = {"authorization": f"Bearer {self.token}", **kwargs.pop("headers", {})}
        response = self.client.request(method, f"/admin{path}", json=body, headers=headers, **kwargs)
        allowed = (expect,) if expect is not None else (200, 201, 202, 204)
        assert response.status_code in allowed, f"{method} {path}: {response.status_code} {response.text}\n{self.log()}"
        return response.json() if response.content else None

    def register(self, model: str, source: Path, **options: Any) -> int:
        body = {"source": f"file:{source}", **options}
        return int(self.admin("POST", f"/models/{model}/versions", body)["version"])

    def register_echo(self, model: str, name: str, script: Mapping[str, Any], **options: Any) -> int:
        path = self.home.parent / f"{name}.echo.json"
        path.write_text(json.dumps(script), encoding="utf-8")
        return self.register(model, path, **options)

    def put_route(self, route: str, spec: Mapping[str, Any], *, wait: bool = True) -> Any:
        return self.admin("PUT", f"/routes/{route}{_APPLIED if wait else ''}", spec)

    def route(self, route: str) -> Any:
        return self.admin("GET", f"/routes/{route}")

    def weights(self, route: str, weights: Mapping[int, int], *, wait: bool = True) -> Any:
        body = {"weights": {str(version): weight for version, weight in weights.items()}}
        return self.admin("POST", f"/routes/{route}/weights{_APPLIED if wait else ''}", body)

    def rollback(self, route: str, **body: Any) -> Any:
        return self.admin("POST", f"/routes/{route}/rollback", {"reason": "test", **body})

    def lift(self, route: str, version: int) -> Any:
        return self.admin("POST", f"/routes/{route}/lift", {"version": version})

    def resident(self) -> dict[str, Any]:
        """``model/version`` to what GET /admin/versions says of it."""
        rows = self.admin("GET", "/versions")["versions"]
        return {f"{row['model']}/{row['version']}": row for row in rows}

    def metrics(self) -> str:
        return self.client.get("/metrics", headers={"authorization": f"Bearer {self.token}"}).text

    def predict(self, route: str, rows: list[Any], **extra: Any) -> httpx.Response:
        headers = extra.pop("headers", {})
        return self.client.post(f"/predict/{route}", json={"inputs": rows, **extra}, headers=headers)
