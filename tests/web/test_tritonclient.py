"""The unmodified ``tritonclient.http``, synchronous, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.web import triton_cases as cases
from tests.web.stage import ServedStage


@pytest.fixture
def client(served: ServedStage) -> Iterator[triton.InferenceServerClient]:
    opened = triton.InferenceServerClient(served.address, concurrency=2)
    yield opened
    opened.close()


def test_health_of_server_and_models(client: triton.InferenceServerClient) -> None:
    """Live, ready, and ready by model and version; what is not there is not ready."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "2")
    assert not client.is_model_ready("digits", "9")
    assert not client.is_model_ready("digits", "x")
    assert not client.is_model_ready("nowhere")


def test_metadata_and_configuration(client: triton.InferenceServerClient) -> None:
    """Open axes are -1; the configuration leaves the batch axis out."""
    server = client.get_server_metadata()
    assert server["name"] == "turnout"
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("digits")
    assert model["versions"] == ["1", "2"]
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert client.get_model_metadata("words", "1")["outputs"][0]["datatype"] == "BYTES"
    config = client.get_model_config("digits", "1")
    assert config["max_batch_size"] == 8
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert client.get_model_config("alone")["max_batch_size"] == 0


@pytest.mark.parametrize("response", cases.COMPRESSIONS)
@pytest.mark.parametrize("request_", cases.COMPRESSIONS)
@pytest.mark.parametrize("binary", [True, False])
def test_inference_binary_and_json_with_and_without_compression(
    client: triton.InferenceServerClient, binary: bool, request_: str | None, response: str | None
) -> None:
    """Large enough for the answer to be compressed, too."""
    array = np.arange(4000, dtype=np.float32).reshape(-1, 4)

    result = client.infer(
        "digits",
        cases.fp32(array, binary=binary),
        outputs=cases.outputs("y", binary=binary),
        request_id="r7",
        request_compression_algorithm=request_,
        response_compression_algorithm=response,
    )

    assert np.array_equal(result.as_numpy("y"), array)
    head = result.get_response()
    assert (head["model_name"], head["model_version"], head["id"]) == ("digits", "1", "r7")


def test_outputs_are_binary_when_none_are_named(client: triton.InferenceServerClient) -> None:
    """As the client itself asks for."""
    result = client.infer("digits", cases.fp32())

    assert np.array_equal(result.as_numpy("y"), cases.ROW)
    assert "data" not in result.get_output("y")


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_there_and_back(client: triton.InferenceServerClient, binary: bool) -> None:
    """In one request, BF16 by its bits."""
    tensors, expected = cases.every(binary=binary)

    result = client.infer("every", tensors, outputs=cases.outputs(*expected, binary=binary))

    for name, array in expected.items():
        if name == "out_BF16" and binary:
            continue
        found = result.as_numpy(name)
        if name == "out_BYTES" and not binary:
            found = np.array([[str(item).encode() for item in row] for row in found], object)
        assert found.tolist() == array.tolist(), name


@pytest.mark.parametrize("binary", [True, False])
def test_string_tensors(client: triton.InferenceServerClient, binary: bool) -> None:
    """Empty, long, and beyond ASCII."""
    tensors, expected = cases.words(binary=binary)

    result = client.infer("words", tensors, outputs=cases.outputs("echo", binary=True))

    assert result.as_numpy("echo").tolist() == expected.tolist()


def test_pinned_versions(client: triton.InferenceServerClient) -> None:
    """The URL pins; the answer says which version it came from."""
    result = client.infer("digits", cases.fp32(), model_version="2")

    assert result.get_response()["model_version"] == "2"
    assert result.as_numpy("y").tolist() == [[2.0] * 4]


def test_parameters_and_classification(client: triton.InferenceServerClient) -> None:
    """Key, priority and timeout travel as parameters; the best classes come as strings."""
    result = client.infer(
        "digits",
        cases.fp32(),
        priority=1,
        timeout=5_000_000,
        parameters={"key": "user-1"},
        outputs=[triton.InferRequestedOutput("y", class_count=2)],
    )

    assert result.as_numpy("y").tolist() == [[b"4.000000:3", b"3.000000:2"]]


def test_asynchronous_inference_by_greenlets(client: triton.InferenceServerClient) -> None:
    """Several at once."""
    pending = [client.async_infer("digits", cases.fp32(cases.ROW * factor)) for factor in range(8)]

    assert [reply.get_result().as_numpy("y")[0, 0] for reply in pending] == list(range(8))


def test_statistics(client: triton.InferenceServerClient) -> None:
    """By version, by model, and of everything; they count rows and requests."""

    def counted() -> tuple[int, int, int]:
        """Rows and requests that were answered, and rows of batches: of how many each is, the machine decides."""
        (stat,) = client.get_inference_statistics("digits", "1")["model_stats"]
        ran = sum(batch["batch_size"] * batch["compute_infer"]["count"] for batch in stat["batch_stats"])
        return stat["inference_count"], stat["inference_stats"]["success"]["count"], ran

    rows, requests, ran = counted()
    client.infer("digits", cases.fp32(np.ones((3, 4), np.float32)))

    assert counted() == (rows + 3, requests + 1, ran + 3)
    (stat,) = client.get_inference_statistics("digits", "1")["model_stats"]
    assert stat["execution_count"] >= 1
    assert stat["inference_stats"]["compute_infer"]["ns"] > 0
    assert stat["last_inference"] > 1_600_000_000_000
    assert [stat["version"] for stat in client.get_inference_statistics("digits")["model_stats"]] == ["1", "2"]
    assert {stat["name"] for stat in client.get_inference_statistics()["model_stats"]} >= {"digits", "words", "every"}


def test_repository_index_load_and_unload(client: triton.InferenceServerClient, served: ServedStage) -> None:
    """With an operator's token; a version that a route uses stays."""
    states = {(entry["name"], entry["version"]): entry["state"] for entry in client.get_model_repository_index()}
    assert (states["digits", "1"], states["digits", "9"], states["spare", "1"]) == (
        "READY",
        "UNAVAILABLE",
        "UNAVAILABLE",
    )

    client.load_model("spare", headers=cases.OPERATOR)
    assert served.stage is not None
    assert served.stage.repository.states["spare", 1] == "active"
    client.load_model("spare/1", headers=cases.OPERATOR)
    client.unload_model("spare", headers=cases.OPERATOR)
    assert served.stage.repository.states["spare", 1] == "registered"
    assert served.stage.repository.actors == ["olga"] * 3

    for call, status in (
        (lambda: client.load_model("spare"), "401"),
        (lambda: client.load_model("spare", headers={"authorization": "Bearer locked-token"}), "403"),
        (lambda: client.load_model("nowhere", headers=cases.OPERATOR), "404"),
        (lambda: client.load_model("spare", headers=cases.OPERATOR, config="{}"), "400"),
        (lambda: client.unload_model("digits", headers=cases.OPERATOR), "409"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == status
        assert caught.value.message()


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("nowhere", {}, "404"),
        ("digits", {"model_version": "5"}, "404"),
        ("digits", {"model_version": "x"}, "400"),
        ("pinned", {"model_version": "2"}, "409"),
        ("digits", {"outputs": cases.outputs("z", binary=True)}, "422"),
        ("words", {}, "422"),
        ("digits", {"sequence_id": 5, "sequence_start": True}, "400"),
        ("bytes", {"outputs": cases.outputs("raw", binary=False)}, "422"),
        ("locked", {}, "401"),
        ("fussy", {"inputs": cases.fp32(cases.ROW * 13)}, "422"),
        ("fussy", {"inputs": cases.fp32(cases.ROW * 666)}, "500"),
    ],
)
def test_wrong_names_and_tensors(
    client: triton.InferenceServerClient, name: str, arguments: dict[str, Any], status: str
) -> None:
    """Each an exception of the client's, with our status and our words."""
    with pytest.raises(InferenceServerException) as caught:
        client.infer(name, **{"inputs": cases.fp32(), **arguments})

    assert caught.value.status() == status
    assert len(caught.value.message()) > 10


def test_extensions_that_are_not_served_say_so(client: triton.InferenceServerClient) -> None:
    """Tracing, logging and shared memory: an error the client can show."""
    for call in (
        client.get_trace_settings,
        lambda: client.update_trace_settings("digits", {"trace_rate": "1"}),
        client.get_log_settings,
        lambda: client.update_log_settings({"log_info": True}),
        client.get_system_shared_memory_status,
        lambda: client.register_system_shared_memory("a", "/a", 8),
        lambda: client.unregister_system_shared_memory("a"),
        client.get_cuda_shared_memory_status,
    ):
        with pytest.raises(InferenceServerException, match="not served here"):
            call()
    shared = triton.InferInput("x", [1, 4], "FP32")
    shared.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException, match="shared memory is not supported"):
        client.infer("digits", [shared])
