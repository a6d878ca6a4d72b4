"""``POST /predict`` and ``POST /predict/{route}``."""

from __future__ import annotations

from functools import lru_cache

from gateway.codec.json_inputs import PredictEnvelope, read_predict
from gateway.codec.json_outputs import write_predict
from gateway.codec.limits import CodecLimits
from gateway.errors import NotFound
from gateway.messages import InferResponse
from gateway.web.exchange import Exchange
from gateway.web.inference import Answer, Asked

__all__ = ["PredictDialect", "locate_predict"]

PREFIX = "/predict/"

MAX_PATH_CHARS = 1024
"""No route has a longer one, and paths are remembered."""


class PredictDialect:
    """Turnout's own JSON. See ``gateway.web.inference.Dialect``."""

    protocol = "predict"
    content_types = frozenset({"application/json"})
    pins_by_protocol = False
    compresses = False  # common clients say that they accept gzip, and would pay for it on every answer

    def __init__(self, limits: CodecLimits) -> None:
        self._limits = limits

    def read(self, body: bytes, exchange: Exchange) -> PredictEnvelope:
        return read_predict(body, self._limits)

    def write(self, envelope: PredictEnvelope, response: InferResponse, decision_id: str) -> Answer:
        decision = response.decision
        head = {
            "decision": decision_id,
            "model": decision.version.model,
            "version": decision.version.number,
            "route": decision.route,
            "reason": decision.reason,
        }
        if envelope.id is not None:
            head = {"id": envelope.id, **head}
        return Answer(write_predict(head, response.outputs), b"application/json")


@lru_cache(maxsize=4096)
def locate_predict(path: str) -> Asked:
    """The route of a path that begins with ``/predict``."""
    if path == "/predict":
        return Asked(None)
    name = path.removeprefix(PREFIX)
    if not name or "/" in name or len(path) > MAX_PATH_CHARS:  # what is refused is not remembered
        raise NotFound(f"nothing at {path!r:.200}; predictions are at /predict and /predict/{{route}}")
    return Asked(name)
