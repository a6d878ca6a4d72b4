"""``POST /predict`` and ``POST /predict/{route}``."""

from __future__ import annotations

from functools import lru_cache

import orjson

from gateway.codec.json_inputs import PredictEnvelope, read_predict
from gateway.codec.json_outputs import write_predict
from gateway.codec.limits import CodecLimits
from gateway.errors import NotFound
from gateway.messages import InferResponse, VersionRef
from gateway.web.exchange import Exchange
from gateway.web.inference import Answer, Asked, Envelope

__all__ = ["PredictDialect", "locate_predict"]

PREFIX = "/predict/"

_new = tuple.__new__
_JSON = b"application/json"
_START = b'{"decision":"'

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

    def read(self, body: bytes | memoryview, exchange: Exchange) -> PredictEnvelope:
        return read_predict(bytes(body), self._limits)  # bytes are not copied

    def write(self, envelope: Envelope, response: InferResponse, decision_id: str) -> Answer:
        decision = response.decision
        start = _START if envelope.id is None else b'{"id":%b,"decision":"' % orjson.dumps(envelope.id)
        rest = _after_decision(decision.version, decision.route, decision.reason)
        return _new(Answer, (write_predict(start + decision_id.encode() + rest, response.outputs), _JSON, ()))


@lru_cache(maxsize=4096)
def _after_decision(version: VersionRef, route: str, reason: str) -> bytes:
    """What most answers say alike, as text: written anew, it takes as long as their outputs."""
    told = {"model": version.model, "version": version.number, "route": route, "reason": reason}
    return b'",' + orjson.dumps(told)[1:-1] + b',"outputs":'


@lru_cache(maxsize=4096)
def locate_predict(path: str) -> Asked:
    """The route of a path that begins with ``/predict``."""
    if path == "/predict":
        return Asked(None)
    name = path.removeprefix(PREFIX)
    if not name or "/" in name or len(path) > MAX_PATH_CHARS:  # what is refused is not remembered
        raise NotFound(f"nothing at {path!r:.200}; predictions are at /predict and /predict/{{route}}")
    return Asked(name)
