"""Batches of a live gateway: answers as online to the last bit, in the decision log, and over any death."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import alive, recorded

WIDTH, ROWS, BATCH = 64, 100, 16
QUICK = {"decisions": {"sync_s": 0.1, "checkpoint_s": 0.2}}
SLEEPER = """
import pathlib, time
SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
             "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}]}

class Model:
    def predict(self, inputs):
        while pathlib.Path("%s").exists() and inputs["x"][0, 0] >= 65536:
            time.sleep(0.05)
        return {"y": inputs["x"] + 1}
"""


def network(path: Path) -> Path:
    """Two layers as ONNX, whose sums are long enough for their order to show in the last bits."""
    draw = np.random.default_rng(7)
    weights = [draw.normal(size=size).astype("f4") for size in ((WIDTH, 128), (128, 10))]
    held = [onnx.numpy_helper.from_array(array, name) for array, name in zip(weights, "ab", strict=True)]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "a"], ["h"]),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("MatMul", ["r", "b"], ["z"]),
        onnx.helper.make_node("Softmax", ["z"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(n, 1, ["batch", size]) for n, size in (("x", WIDTH), ("y", 10))]
    graph = onnx.helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def linear(path: Path) -> Path:
    draw = np.random.default_rng(8)
    fitted = LogisticRegression(max_iter=50).fit(draw.normal(size=(200, WIDTH)), draw.integers(0, 3, 200))
    skops.io.dump(fitted, path)
    return path


def rows(count: int = ROWS) -> np.ndarray[Any, Any]:
    return np.random.default_rng(9).normal(size=(count, WIDTH)).astype("f4")


def record(gateway: LiveGateway, name: str) -> dict[str, Any]:
    held: dict[str, Any] = wait_until(lambda: recorded(gateway, name), what=f"the record of {name}")
    return held


def ended(gateway: LiveGateway, job: str) -> dict[str, Any]:
    def done() -> Any:
        found = gateway.admin("GET", f"/jobs/{job}?wait_s=1")
        return found if found["state"] not in ("queued", "running") else None

    found: dict[str, Any] = wait_until(done, within_s=200.0, what=f"the end of job {job}")
    return found


def online(gateway: LiveGateway, route: str, x: np.ndarray[Any, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{gateway.url}/predict/{route}", json={"inputs": x.tolist()}, timeout=90)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize(("model", "made"), [("net", network), ("linear", linear)])
def test_offline_and_online_answers_agree_to_the_last_bit_and_are_recorded_alike(
    tmp_path: Path, model: str, made: Any
) -> None:
    """At equal batch sizes: the numbers, and the digests of what was asked and answered. No traffic is counted."""
    x = rows()
    pq.write_table(pa.table({"id": range(ROWS), "x": x.tolist()}), tmp_path / "in.parquet")
    artifact = made(tmp_path / ("net.onnx" if model == "net" else "linear.skops"))
    signature = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", WIDTH]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": ["batch"]},
            {"name": "probabilities", "datatype": "FP32", "shape": ["batch", 3]},
        ],
    }
    settings = {"telemetry": QUICK, "batch": {"directories": [str(tmp_path)], "priority": "normal"}}
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        body: dict[str, Any] = {"source": f"file:{artifact}"} | ({"signature": signature} if model == "linear" else {})
        gateway.admin("POST", f"/models/{model}/versions", body)
        gateway.admin("PUT", f"/models/{model}/aliases/champion", {"version": 1})
        gateway.put_route(model, {"model": model, "split": [{"version": 1, "weight": 100}], "decisions": {}})
        told = [online(gateway, model, x[at : at + BATCH]) for at in range(0, ROWS, BATCH)]
        asked = {
            "version": f"{model}@champion",
            "input": f"file:{tmp_path}/in.parquet",
            "output": f"file:{tmp_path}/out.npz",
            "ids": ["id"],
            "batch_rows": BATCH,
        }
        job = ended(gateway, gateway.admin("POST", "/batch", asked, expect=202)["id"])

        assert job["state"] == "done", job["problem"]
        assert job["progress"] == {"done": ROWS, "total": ROWS, "unit": "rows"}
        with np.load(tmp_path / "out.npz") as held:
            assert held["id"].tolist() == list(range(ROWS))
            for name in told[0]["outputs"]:
                wanted = np.concatenate([np.array(one["outputs"][name]) for one in told])
                assert held[name].tobytes() == wanted.astype(held[name].dtype).tobytes()
        for number, one in enumerate(told):
            batch = record(gateway, f"{job['id']}:{number * BATCH + 1}")
            asked_online = record(gateway, one["decision"])
            assert (batch["inputs"], batch["outputs"]) == (asked_online["inputs"], asked_online["outputs"])
            assert batch["rows"] == batch["batch_rows"] == asked_online["rows"]
            assert batch["route"] == f"batch:{model}"
            assert (batch["reason"], batch["protocol"], batch["answered"]) == ("batch", "batch", 1)
        assert 'route="batch:' not in gateway.client.get("/metrics").text


def test_a_key_gives_each_row_a_record_that_is_found_by_it(tmp_path: Path) -> None:
    """The hash is the same as of a request with that key."""
    x = rows(20)
    pq.write_table(pa.table({"user": [f"u{n}" for n in range(20)], "x": x.tolist()}), tmp_path / "in.parquet")
    settings = {"telemetry": QUICK, "batch": {"directories": [str(tmp_path)], "priority": "normal"}}
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        gateway.admin("POST", "/models/net/versions", {"source": f"file:{network(tmp_path / 'net.onnx')}"})
        gateway.put_route("net", {"model": "net", "split": [{"version": 1, "weight": 100}], "decisions": {}})
        body = {"inputs": x[5:6].tolist(), "key": "u5"}
        one = httpx.post(f"{gateway.url}/predict/net", json=body, timeout=90).json()
        asked = {"version": "net/1", "input": f"{tmp_path}/in.parquet", "output": f"{tmp_path}/out.csv", "key": "user"}
        job = ended(gateway, gateway.admin("POST", "/batch", asked, expect=202)["id"])

        batch, asked_online = record(gateway, f"{job['id']}:6"), record(gateway, one["decision"])

        assert batch["key"] == asked_online["key"]
        assert batch["inputs"] == asked_online["inputs"]
        assert (batch["rows"], batch["batch_rows"]) == (1, 20)


def test_a_batch_goes_on_after_the_gateway_was_killed(tmp_path: Path) -> None:
    """Nothing of it stays running; its job is ``interrupted``; the same again ends it, with all rows."""
    x = np.arange(70_000, dtype="f4").repeat(4).reshape(-1, 4)
    np.save(tmp_path / "in.npy", x)
    stop = tmp_path / "stop"
    stop.touch()
    (tmp_path / "sleeper.py").write_text(SLEEPER % stop)
    asked = {"version": "sleeper/1", "input": f"{tmp_path}/in.npy", "output": f"{tmp_path}/out.npy", "batch_rows": 1024}
    with LiveGateway(
        tmp_path / "home", settings={"batch": {"directories": [str(tmp_path)], "priority": "normal"}}
    ) as gateway:
        gateway.admin(
            "POST", "/models/sleeper/versions", {"source": f"file:{tmp_path / 'sleeper.py'}", "verify": False}
        )
        job = gateway.admin("POST", "/batch", asked, expect=202)["id"]
        wait_until((tmp_path / ".out.npy.parts" / "part-000000.json").exists, what="a part")
        family = [one.pid for one in gateway.descendants()]
        gateway.kill()
        wait_until(lambda: not alive(family), what="the end of every process")
        assert not (tmp_path / "out.npy").exists()
        stop.unlink()
        gateway.start()

        assert gateway.admin("GET", f"/jobs/{job}")["state"] == "interrupted"
        again = ended(gateway, gateway.admin("POST", "/batch", asked, expect=202)["id"])

        assert again["result"]["resumed_rows"] == 65_536
        assert again["result"]["rows"] == 70_000
        assert np.load(tmp_path / "out.npy").tobytes() == (x + 1).tobytes()


def test_a_batch_is_cancelled_and_bad_questions_are_refused_at_once(tmp_path: Path) -> None:
    """Its processes are gone when it is; folders that nobody allowed, and links out of those allowed, stay closed."""
    np.save(tmp_path / "in.npy", np.full((8, 4), 70_000, "f4"))
    stop = tmp_path / "stop"
    stop.touch()
    (tmp_path / "sleeper.py").write_text(SLEEPER % stop)
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "in.npy").symlink_to(tmp_path / "in.npy")
    (allowed / "rows.npy").write_bytes((tmp_path / "in.npy").read_bytes())
    with LiveGateway(
        tmp_path / "home", settings={"batch": {"directories": [str(allowed)], "priority": "normal"}}
    ) as gateway:
        gateway.admin(
            "POST", "/models/sleeper/versions", {"source": f"file:{tmp_path / 'sleeper.py'}", "verify": False}
        )
        before = {one.pid for one in gateway.descendants()}

        def ask(expect: int, **other: Any) -> Any:
            asked = {"version": "sleeper/1", "input": f"{allowed}/rows.npy", "output": f"{allowed}/out.npy"}
            return gateway.admin("POST", "/batch", {**asked, **other}, expect=expect)

        ask(403, input=f"{tmp_path}/in.npy")
        ask(403, input=f"{allowed}/in.npy")
        ask(403, output=f"{allowed}/../out.npy")
        ask(404, version="nobody/1")
        ask(422, version="sleeper")
        ask(422, input=f"{allowed}/rows.xlsx")
        ask(422, batch_rows=0)
        ask(422, colour="blue")
        job = ask(202)["id"]
        its = wait_until(lambda: {one.pid for one in gateway.descendants()} - before, what="its processes")
        gateway.admin("DELETE", f"/jobs/{job}", expect=202)

        assert ended(gateway, job)["state"] == "cancelled"
        assert alive(its) == []
        wait_until(lambda: not {one.pid for one in gateway.descendants()} - before, what="the end of its last process")
        assert not (allowed / "out.npy").exists()
