"""Loading and unloading for ever must cost nothing that stays."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
import torch

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, SIGNATURE, register

ROUTE = "net"
CYCLES = 100
WARM_UP_CYCLES = 15
GROWTH_BYTES = 3 * 1024 * 1024


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small torch.export program with a dynamic batch."""
    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)).eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model, (torch.zeros(2, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "net.pt2")
    signature = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}],
    }
    (folder / "signature.json").write_text(json.dumps(signature), encoding="utf-8")
    return folder


def footprint(gateway: LiveGateway) -> tuple[int, int, int]:
    """Bytes of memory that is no file's, open descriptors and descendants of the gateway process. Pages of programs and
    libraries, which start gave back, come again as their code is used, and are the system's."""
    process = psutil.Process(gateway.pid)
    status = Path(f"/proc/{gateway.pid}/status").read_text(encoding="ascii")
    anonymous = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(anonymous) * 1024, process.num_fds(), len(process.children(recursive=True))


def nothing_stays(gateway: LiveGateway, before: tuple[int, int, int]) -> None:
    """A connection that is being closed, or a process that is being reaped, counts for a moment longer."""
    wait_until(
        lambda: all(now <= then for now, then in zip(footprint(gateway)[1:], before[1:], strict=True)),
        what=f"descriptors and descendants of the beginning, {before[1:]}",
    )
    grown = footprint(gateway)[0] - before[0]
    assert grown <= GROWTH_BYTES, f"grew by {grown / 1e6:.1f} MB"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_cycles_of_load_infer_unload_leave_the_gateway_as_it_was(tmp_path: Path, network: Path) -> None:
    """A torch version comes, answers and goes, 100 times: memory flat within 3 MB, no child or descriptor left over.

    What waits for the collector counts as well: some 30 kB of each cycle (the version's handle and queue), until it
    comes by.
    """
    home = tmp_path / "home"
    settings = {
        "runtimes": {"preload": ["echo", "torch"]},
        "registry": {"source_directories": [str(network), str(tmp_path)]},
    }
    with LiveGateway(home, settings=settings) as gateway:
        gateway.register_echo(ROUTE, "base", {"outputs": {"y": 1}})
        signature = json.loads((network / "signature.json").read_text())
        version = gateway.register(ROUTE, network / "net.pt2", signature=signature)
        alone = {"model": ROUTE, "pin": "allowed", "split": [{"version": 1, "weight": 100}]}
        both = {**alone, "split": [{"version": 1, "weight": 100}, {"version": version, "weight": 0}]}
        before = (0, 0, 0)
        for cycle in range(CYCLES):
            if cycle == WARM_UP_CYCLES:
                before = footprint(gateway)
            gateway.put_route(ROUTE, both)
            answer = gateway.predict(ROUTE, [ROW], headers={"x-model-version": str(version)})
            assert answer.status_code == 200, answer.text
            assert answer.json()["version"] == version
            gateway.put_route(ROUTE, alone)
            wait_until(lambda: len(gateway.resident()) == 1, what="the end of the torch version")
        nothing_stays(gateway, before)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_version_that_fails_to_load_a_hundred_times_leaves_nothing(gateway: LiveGateway) -> None:
    """The same for loads that fail after having taken memory: everything is given back, every time."""
    register(gateway, ROUTE, 1)
    script = {"allocate_bytes": 50_000_000, "fail": "always"}
    version = gateway.register_echo(ROUTE, "fails", script, signature=SIGNATURE, verify=False)
    alone = {"model": ROUTE, "split": [{"version": 1, "weight": 100}]}
    both = {**alone, "split": [{"version": 1, "weight": 100}, {"version": version, "weight": 0}]}
    gateway.put_route(ROUTE, alone)
    before = (0, 0, 0)
    for cycle in range(CYCLES):
        if cycle == WARM_UP_CYCLES:
            before = footprint(gateway)
        gateway.put_route(ROUTE, both, wait=False)
        wait_until(
            lambda: gateway.resident().get(f"{ROUTE}/{version}", {}).get("state") == "failed", what="the failure"
        )
        assert gateway.predict(ROUTE, [ROW]).status_code == 200
        gateway.put_route(ROUTE, alone, wait=False)
        wait_until(lambda: f"{ROUTE}/{version}" not in gateway.resident(), what="the end of the failed version")
    nothing_stays(gateway, before)
