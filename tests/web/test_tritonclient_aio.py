"""The unmodified ``tritonclient.http.aio`` against a real server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import numpy as np
import pytest
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

from tests.web import triton_cases as cases
from tests.web.stage import ServedStage

pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
"""This client does not read the bodies of health and load answers, and leaves their connections to the collector."""


@pytest.fixture
async def client(served: ServedStage) -> AsyncIterator[triton.InferenceServerClient]:
    async with triton.InferenceServerClient(served.address) as opened:
        yield opened
    gc.collect()  # here, where the warnings are expected


async def test_health_metadata_and_configuration(client: triton.InferenceServerClient) -> None:
    """The same answers as for the synchronous client."""
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("digits", "1")
    assert not await client.is_model_ready("nowhere")
    assert (await client.get_server_metadata())["name"] == "turnout"
    assert (await client.get_model_metadata("alone"))["inputs"] == [{"name": "v", "datatype": "FP64", "shape": [3]}]
    assert (await client.get_model_config("words"))["input"][0]["data_type"] == "TYPE_STRING"


@pytest.mark.parametrize("compression", cases.COMPRESSIONS)
@pytest.mark.parametrize("binary", [True, False])
async def test_inference(client: triton.InferenceServerClient, binary: bool, compression: str | None) -> None:
    """JSON and binary, compressed both ways; many at once."""
    array = np.arange(4000, dtype=np.float32).reshape(-1, 4)

    async def one(factor: int) -> None:
        result = await client.infer(
            "digits",
            cases.fp32(array * factor, binary=binary),
            outputs=cases.outputs("y", binary=binary),
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        assert np.array_equal(result.as_numpy("y"), array * factor)

    await asyncio.gather(*(one(factor) for factor in range(4)))


async def test_strings_pins_and_statistics(client: triton.InferenceServerClient) -> None:
    """By URL and by version."""
    tensors, expected = cases.words(binary=True)
    result = await client.infer("words", tensors)
    assert result.as_numpy("echo").tolist() == expected.tolist()
    pinned = await client.infer("digits", cases.fp32(), model_version="2")
    assert pinned.get_response()["model_version"] == "2"
    (stat,) = (await client.get_inference_statistics("words", "1"))["model_stats"]
    assert stat["inference_stats"]["success"]["count"] >= 1


async def test_repository_and_wrong_names(client: triton.InferenceServerClient) -> None:
    """Index, load, unload, and errors with their status."""
    assert any(entry["name"] == "spare" for entry in await client.get_model_repository_index())
    await client.load_model("spare", headers=dict(cases.OPERATOR))
    await client.unload_model("spare", headers=dict(cases.OPERATOR))
    with pytest.raises(InferenceServerException) as caught:
        await client.load_model("spare")
    assert caught.value.status() == "401"
    with pytest.raises(InferenceServerException, match="no route 'nowhere'"):
        await client.infer("nowhere", cases.fp32())
