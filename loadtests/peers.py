"""Other servers beside the gateway on the ``tiny`` work, so that anyone can repeat the comparison.

``--with litserve,mlserver``. Each has a virtual environment of its own under ``~/.cache/turnout-bench``, made at
first use (pip downloads it); remove the folder to start anew. Each serves the same ONNX model on ONNX Runtime with
one thread, in batches of at most 32, set up as its documentation describes for throughput on one core.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson

from loadtests.cores import Cores
from loadtests.live_gateway import free_port, wait_until
from loadtests.measurement import Ask
from loadtests.models import TINY, make_model
from loadtests.scenarios.rounds import Entrant
from loadtests.servers import Server

__all__ = ["PEERS", "Peer", "peer"]

CACHE = Path.home() / ".cache" / "turnout-bench"
_BOOT_S = 120.0

_LITSERVE = """\
import sys

import litserve
import numpy as np
import onnxruntime


class Tiny(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession("tiny.onnx", options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        return np.asarray(request["inputs"][0], np.float32)

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, rows):
        return self.session.run(None, {"x": rows})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"outputs": {"y": [output.tolist()]}}


if __name__ == "__main__":
    api = Tiny(max_batch_size=32, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    port = int(sys.argv[1])
    server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)
"""

_MLSERVER = """\
import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Tiny(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession("tiny.onnx", options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        output = self.session.run(None, {"x": rows})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", output)])
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """``command`` is a program of the virtual environment with its arguments; it runs in a folder that holds
    ``files``. Both are made for a port."""

    packages: tuple[str, ...]
    command: Callable[[int], list[str]]
    files: Callable[[int], Mapping[str, str]]
    ask: Callable[[], Ask]


def _mlserver_files(port: int) -> Mapping[str, str]:
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": "tiny",
        "implementation": "tiny_model.Tiny",
        "max_batch_size": 32,
        "max_batch_time": 0.002,
    }
    return {
        "settings.json": json.dumps(settings),
        "model-settings.json": json.dumps(model),
        "tiny_model.py": _MLSERVER,
    }


def _mlserver_ask() -> Ask:
    row = TINY.rows().astype(float).round(8).tolist()[0]
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}
    return Ask("/v2/models/tiny/infer", orjson.dumps({"inputs": [tensor]}))


PEERS: Mapping[str, Peer] = {
    "litserve": Peer(
        ("litserve==0.2.17", "onnxruntime", "numpy"),
        lambda port: ["python", "serve.py", str(port)],
        lambda _port: {"serve.py": _LITSERVE},
        lambda: Ask("/predict", TINY.json().body),
    ),
    "mlserver": Peer(
        ("mlserver==1.7.1", "onnxruntime", "numpy"),
        lambda _port: ["mlserver", "start", "."],
        _mlserver_files,
        _mlserver_ask,
    ),
}


@contextlib.contextmanager
def peer(name: str, cores: Cores) -> Iterator[Entrant]:
    """Raises KeyError for a name that is not in ``PEERS``, RuntimeError when it cannot be installed or started."""
    chosen, port = PEERS[name], free_port()
    folder = CACHE / name
    programs = _installed(name, chosen, folder)
    for path, text in chosen.files(port).items():
        (folder / path).write_text(text, encoding="utf-8")
    make_model(TINY, folder)
    log = folder / "server.log"
    program, *arguments = chosen.command(port)
    with log.open("wb") as output:
        command = [*cores.server_prefix, str(programs / program), *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        ask = chosen.ask()
        wait_until(lambda: _answers(process, port, ask, log), within_s=_BOOT_S, what=f"{name} on port {port}")
        called = chosen.packages[0].replace("==", " ")
        yield Entrant(Server(called, process.pid, port, cores), ask)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _installed(name: str, chosen: Peer, folder: Path) -> Path:
    """The folder of the environment's programs."""
    programs = folder / "venv" / "bin"
    if (folder / "ready").exists():
        return programs
    print(f"{name}: installing {', '.join(chosen.packages)} into {folder} (once)", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], check=True)
    done = subprocess.run(
        [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *chosen.packages],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} could not be installed: {done.stderr.strip()[-800:]}")
    (folder / "ready").touch()
    return programs


def _answers(process: subprocess.Popen[bytes], port: int, ask: Ask, log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the peer ended at its start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
    try:
        answer = httpx.post(
            f"http://127.0.0.1:{port}{ask.path}", content=ask.body, headers=dict(ask.headers), timeout=10
        )
    except httpx.TransportError:
        time.sleep(0.2)
        return False
    return answer.status_code == 200
