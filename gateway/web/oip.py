"""Open Inference Protocol v2 over HTTP: inference. What a client asks about models is in ``oip_models``."""

from __future__ import annotations

from functools import lru_cache

from gateway.codec.limits import CodecLimits
from gateway.codec.oip_binary import read_header_length
from gateway.codec.oip_json import InferEnvelope
from gateway.codec.oip_outputs import write_infer
from gateway.codec.oip_request import read_infer
from gateway.errors import NotFound
from gateway.messages import InferResponse
from gateway.web.exchange import Exchange
from gateway.web.inference import Answer, Asked
from gateway.web.request_facts import read_version

__all__ = ["OpenInferenceDialect", "locate_infer"]

_PREFIX, _SUFFIX = "/v2/models/", "/infer"

_MAX_PATH_CHARS = 1024
"""No model has a longer one, and paths are remembered."""


class OpenInferenceDialect:
    """See ``gateway.web.inference.Dialect``. The content type tells nothing here: the header length
    alone says whether binary tensors follow, and common clients send octet-stream for plain JSON."""

    protocol = "v2"
    content_types = frozenset({"application/json", "application/octet-stream"})
    pins_by_protocol = True
    compresses = True

    def __init__(self, limits: CodecLimits) -> None:
        self._limits = limits

    def read(self, body: bytes | memoryview, exchange: Exchange) -> InferEnvelope:
        length = read_header_length(exchange.headers.get("inference-header-content-length"))
        return read_infer(body, length, self._limits)

    def write(self, envelope: InferEnvelope, response: InferResponse, decision_id: str) -> Answer:
        decision = response.decision
        body, json_length = write_infer(
            envelope, decision.route, str(decision.version.number), response.outputs, response.signature
        )
        if json_length is None:
            return Answer(body, b"application/json")
        header = (b"inference-header-content-length", str(json_length).encode())
        return Answer(body, b"application/octet-stream", (header,))


@lru_cache(maxsize=4096)
def locate_infer(path: str) -> Asked:
    """Route and version of ``/v2/models/{name}[/versions/{version}]/infer``."""
    parts = path.removeprefix(_PREFIX).removesuffix(_SUFFIX).split("/")
    if len(path) > _MAX_PATH_CHARS:  # what is refused is not remembered
        parts = []
    if len(parts) == 1 and parts[0]:
        return Asked(parts[0])
    if len(parts) == 3 and parts[0] and parts[1] == "versions":
        return Asked(parts[0], read_version(parts[2], "version"))
    raise NotFound(f"nothing at {path!r:.200}; inference is at /v2/models/{{name}}[/versions/{{version}}]/infer")
