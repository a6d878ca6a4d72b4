"""What a newcomer does: clone, ``make serve``, one call. Nothing but Python and a package registry."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from loadtests.live_gateway import free_port, wait_until

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_fresh_clone_serves_three_versions_by_weight_after_make_serve(tmp_path: Path) -> None:
    """No packages, no models, no state: ``make serve`` sets all up and answers with three versions as weighted."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so there is nothing to clone")
    clone, port = tmp_path / "turnout", free_port()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TURNOUT_", "VIRTUAL_"))}
    environment |= {"TURNOUT_SERVER__PORT": str(port), "PYTHON": sys.executable}
    log = tmp_path / "serve.log"
    with log.open("wb") as output:
        make = ["make", "serve", f"PYTHON={sys.executable}"]
        process = subprocess.Popen(
            make, cwd=clone, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _is_served_by_weight(process, port, clone, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(100)


def _is_served_by_weight(process: subprocess.Popen[bytes], port: int, clone: Path, log: Path) -> None:
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"make serve ended:\n{log.read_text(errors='replace')[-4000:]}")
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(ready, within_s=1200, what="readyz after make serve")
    held_out = json.loads((clone / ".turnout" / "examples" / "held_out.json").read_text(encoding="utf-8"))
    counts: Counter[int] = Counter()
    right = 0
    with httpx.Client(base_url=url, timeout=90) as client:
        for index, (pixels, label) in enumerate(zip(held_out["pixels"], held_out["labels"], strict=True)):
            answer = client.post("/predict", json={"inputs": [pixels], "key": f"user-{index}"}).json()
            counts[answer["version"]] += 1
            right += answer["outputs"]["label"] == [label]
    asked = sum(counts.values())
    assert right / asked > 0.95
    for version, weight in ((1, 0.5), (2, 0.3), (3, 0.2)):
        sigma = (weight * (1 - weight) / asked) ** 0.5
        assert abs(counts[version] / asked - weight) < 4 * sigma, counts
