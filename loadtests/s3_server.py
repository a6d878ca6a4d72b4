"""Starts and ends an object store that speaks S3: moto's server, a process of its own, on a free port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree as ET

from loadtests.live_gateway import free_port, wait_until
from loadtests.tied import tied

__all__ = ["S3Server"]

START_S = 100.0
_SIGNED = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"
_HEADERS = {"Authorization": _SIGNED, "Content-Type": "application/octet-stream"}
_SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class S3Server:
    """Use as a context manager. What is asked of it here goes past the code under test, by plain HTTP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> Mapping[str, Any]:
        """For fsspec."""
        return {"endpoint_url": self.url, "key": "testing", "secret": "testing"}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "s3.log").open("ab") as log:
            command = tied([sys.executable, "-m", "moto.server", "-p", str(self.port)])
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0)
        wait_until(self._answers, within_s=START_S, what="moto's server")

    def stop(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            if self.process.stdin is not None:
                self.process.stdin.close()
            self.process = None

    def make_bucket(self, name: str) -> str:
        """Its URL for fsspec."""
        self.ask("PUT", name)
        return f"s3://{name}"

    def ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        asked = urllib.request.Request(  # noqa: S310 - of this class's own address
            f"{self.url}/{path}", data=content, method=method, headers=_HEADERS
        )
        with urllib.request.urlopen(asked, timeout=90) as answer:  # noqa: S310
            data: bytes = answer.read()
            return data

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Of all objects that can be seen."""
        found: list[str] = []
        after = ""
        while True:
            page = ET.fromstring(  # noqa: S314 - moto answers
                self.ask("GET", f"{bucket}?list-type=2&prefix={prefix}&start-after={after}")
            )
            names = [str(item.text) for item in page.iter(f"{_SPACE}Key")]
            if not names:
                return found
            found += names
            after = names[-1]

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"moto's server ended:\n{(self.folder / 's3.log').read_text()[-3000:]}")
        try:
            self.ask("GET", "")
        except (urllib.error.URLError, OSError):
            return False
        return True
