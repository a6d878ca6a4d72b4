"""A closed loop at full speed: ``wrk`` asks with a fixed body, each of its connections waiting for its answer."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtests.measurement import COUNT, Ask, ClosedLoop

__all__ = ["MissingTool", "closed_loop", "require_wrk", "script"]

_SCRIPT = """\
wrk.method = "POST"
local file = assert(io.open({body}, "rb"))
wrk.body = file:read("*a")
file:close()
{headers}
{request}
done = function(summary, latency)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{{"answers": %d, "seconds": %.6f, "refused": %d, "broken": %d, "p50_us": %.1f, "p99_us": %.1f}}\\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""

_COUNTED = """\
local head, tail = wrk.body:match("^(.*){count}(.*)$")
local count = {start}
request = function()
  count = count + 1
  return wrk.format(nil, nil, nil, head .. count .. tail)
end
"""
_starts = itertools.count()


class MissingTool(Exception):
    """A program that the benchmarks need is not installed."""


def require_wrk(*, search: str | None = None) -> None:
    """``search`` stands for PATH. Raises MissingTool, saying how to get it."""
    for tool, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(tool, path=search) is None:
            raise MissingTool(
                f"the benchmarks need {tool}: apt-get install {package} (Debian, Ubuntu), or build it from its source"
            )


def script(ask: Ask, body: Path) -> str:
    """The Lua text; ``body`` is the file that holds the bytes to send."""
    headers = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in ask.headers.items())
    request = ""
    if COUNT in ask.body:
        # Whole numbers up to 2**24 are exact in a float32, and no run sends more than 200,000.
        request = _COUNTED.format(count=COUNT.decode(), start=next(_starts) % 80 * 200_000)
    return _SCRIPT.format(body=json.dumps(str(body)), headers=headers, request=request)


def closed_loop(
    port: int, ask: Ask, *, clients: int, seconds: float, prefix: Sequence[str] = (), threads: int = 1
) -> ClosedLoop:
    """Blocks for ``seconds`` and a little more. Answers other than 2xx and 3xx are ``refused``."""
    with tempfile.TemporaryDirectory(prefix="turnout-wrk-") as folder:
        body, lua = Path(folder) / "body", Path(folder) / "ask.lua"
        body.write_bytes(ask.body)
        lua.write_text(script(ask, body), encoding="utf-8")
        command = [
            "wrk",
            f"-t{min(threads, clients)}",
            f"-c{clients}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "30s",
        ]
        url = f"http://127.0.0.1:{port}{ask.path}"
        done = subprocess.run(
            [*prefix, *command, "-s", str(lua), url], capture_output=True, text=True, timeout=seconds + 90, check=False
        )
    lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"wrk on {url} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return ClosedLoop(**json.loads(lines[-1]))
