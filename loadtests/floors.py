"""What cannot be undercut: servers and loops that do only what any server must.

``bare``      raw ASGI: reads the body, answers a constant, on the gateway's own uvicorn, uvloop and httptools
``bare-ort``  Starlette, orjson and one ``session.run`` in a thread for each request; no batching
``offline``   ``session.run`` in a loop, no server: prints processor time a row at each batch size

``python -m loadtests.floors bare --port 9000``; each is a process of its own, as the gateway is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np
import onnxruntime
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

__all__ = ["BATCHES", "bare", "bare_ort", "offline"]

BATCHES = (1, 2, 4, 8, 16, 32, 64)
_TIMED_S = 0.25

Message = MutableMapping[str, Any]

CONSTANT = orjson.dumps(
    {
        "id": "0198f3e2-5d0c-7a3e-b6f1-3c1d9a7b4e55",
        "decision": "0198f3e2-5d0c-7a3e-b6f1-3c1d9a7b4e55",
        "model": "tiny",
        "version": 1,
        "route": "tiny",
        "reason": "split",
        "outputs": {"y": [[0.25, 0.5, 0.75]]},
    }
)
"""As long as the gateway's answer."""


def bare() -> ASGIApp:
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(CONSTANT))],
    }
    body = {"type": "http.response.body", "body": CONSTANT}

    async def application(
        _scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        while (await receive()).get("more_body"):
            pass
        await send(start)
        await send(body)

    return application


def session(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def bare_ort(path: str) -> ASGIApp:
    """Takes ``{"inputs": [[…]]}`` at /predict, and one binary tensor as the Open Inference Protocol has it at /v2."""
    model = session(path)
    source = model.get_inputs()[0]
    shape = [-1, *source.shape[1:]]

    def run(rows: Any) -> list[Any]:
        outputs: list[Any] = model.run(None, {source.name: rows})
        return outputs

    async def predict(request: Request) -> Response:
        rows = np.asarray(orjson.loads(await request.body())["inputs"], np.float32).reshape(shape)
        outputs = await asyncio.to_thread(run, rows)
        return JSONResponse({"outputs": outputs[0].tolist()})

    async def infer(request: Request) -> Response:
        body = await request.body()
        at = int(request.headers["inference-header-content-length"])
        orjson.loads(body[:at])
        rows = np.frombuffer(body, np.float32, offset=at).reshape(shape)
        outputs = await asyncio.to_thread(run, rows)
        return Response(outputs[0].tobytes(), media_type="application/octet-stream")

    return Starlette(
        routes=[
            Route("/predict/{route}", predict, methods=["POST"]),
            Route("/v2/models/{route}/infer", infer, methods=["POST"]),
        ]
    )


def offline(path: str) -> dict[int, float]:
    """Batch size to processor milliseconds a row."""
    shape, run = loaded(path)
    random = np.random.default_rng(7)
    costs = {}
    for batch in BATCHES:
        rows = random.random((batch, *shape), dtype=np.float32)
        run(rows)
        turns, began, started = 0, time.process_time(), time.monotonic()
        while time.monotonic() - started < _TIMED_S:
            run(rows)
            turns += 1
        costs[batch] = (time.process_time() - began) * 1000 / (turns * batch)
    return costs


def loaded(path: str) -> tuple[tuple[int, ...], Callable[[Any], Any]]:
    """One row's shape, and what runs a batch: with one thread, as the gateway's versions have by default."""
    if not path.endswith(".pt2"):
        model = session(path)
        source = model.get_inputs()[0]
        return tuple(source.shape[1:]), lambda rows: model.run(None, {source.name: rows})
    import torch  # noqa: PLC0415  (a second and 200 MB that only the torch model needs)

    torch.set_num_threads(1)
    program = torch.export.load(path)
    network = program.module()
    shape = next(iter(program.example_inputs[0])).shape[1:]

    def run(rows: Any) -> Any:
        with torch.inference_mode():
            return {name: output.numpy() for name, output in network(torch.from_numpy(rows)).items()}

    return tuple(shape), run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("floor", choices=["bare", "bare-ort", "offline"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--model")
    chosen = parser.parse_args()
    if chosen.floor == "offline":
        print(json.dumps(offline(chosen.model)))
        return
    uvicorn.run(
        bare() if chosen.floor == "bare" else bare_ort(chosen.model),
        port=chosen.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=2048,
    )


if __name__ == "__main__":
    main()
