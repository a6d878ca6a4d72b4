"""``GET /openapi.json``: what is served, as OpenAPI 3.1. The tests hold it against the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import __version__
from gateway.codec.json_outputs import dump_json

__all__ = ["describe_api", "openapi_route"]

Operation = dict[str, Any]


def openapi_route(admin: Callable[[], Mapping[str, Any]] | None) -> Route:
    """``admin`` gives the admin plane's paths; None where it has an address of its own."""
    document = dump_json(describe_api({} if admin is None else admin()))

    async def openapi(request: Request) -> Response:  # noqa: ARG001 (the framework's shape)
        return Response(document, media_type="application/json")

    return Route("/openapi.json", openapi)


def describe_api(admin_paths: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Turnout",
            "version": __version__,
            "description": "A model-serving gateway. Under /v2 it speaks the Open Inference Protocol.",
        },
        "paths": {**_predict_paths(), **_protocol_paths(), **_service_paths(), **admin_paths},
        "components": {"schemas": _schemas(), "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _predict_paths() -> dict[str, Any]:
    operation = {
        "summary": "Predict with the version that the route decides on",
        "parameters": [
            _header("x-request-id", "Echoed; made when absent or unfit", {"type": "string", "maxLength": 128}),
            _header("traceparent", "W3C trace context", {"type": "string"}),
            _header("x-timeout-ms", "Deadline; the route's own stays the longest", {"type": "integer", "minimum": 1}),
            _header("x-priority", "Importance", {"enum": ["high", "normal", "low"]}),
            _header("x-model-version", "Pin a version, where the route allows it", {"type": "integer", "minimum": 1}),
            _header("x-key", "Sticky key, unless the body has one", {"type": "string"}),
            _header("x-context", "Context for rules, a JSON object, unless the body has one", {"type": "string"}),
            _header("cache-control", "no-cache or no-store: an answer computed for this request", {"type": "string"}),
        ],
        "requestBody": _body("PredictRequest"),
        "responses": _responses("PredictResponse", 400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504),
        "security": [{}, {"token": []}],
    }
    named = {**operation, "parameters": [_path("route"), *operation["parameters"]]}
    return {"/predict": {"post": operation}, "/predict/{route}": {"post": named}}


def _protocol_paths() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2": {"get": _get("Server metadata")},
        "/v2/health/live": {"get": _get("Alive")},
        "/v2/health/ready": {"get": _get("Every route can answer", 503)},
        "/v2/models/stats": {"get": _get("Statistics of every resident version")},
        "/v2/repository/index": {"post": {**_get("Every registered version", 400), "requestBody": _body("Object")}},
    }
    for path, parameters in (
        ("/v2/models/{name}", [_path("name")]),
        ("/v2/models/{name}/versions/{version}", [_path("name"), _path("version")]),
    ):
        for suffix, summary in (
            ("", "Model metadata"),
            ("/ready", "The model can answer"),
            ("/config", "Model configuration"),
            ("/stats", "Statistics by version"),
        ):
            operation = _get(summary, 400, 401, 403, 404, 503)
            paths[path + suffix] = {"get": {**operation, "parameters": parameters}}
        paths[path + "/infer"] = {"post": _infer(parameters)}
    for verb, codes in (("load", (400, 401, 403, 404, 409)), ("unload", (400, 401, 403, 404, 409))):
        operation = {**_get(f"{verb.capitalize()} a version (operator)", *codes), "parameters": [_path("name")]}
        secured = {**operation, "requestBody": {**_body("Object"), "required": False}, "security": [{"token": []}]}
        paths[f"/v2/repository/models/{{name}}/{verb}"] = {"post": secured}
    return paths


def _infer(parameters: list[Operation]) -> Operation:
    length = _header("inference-header-content-length", "Length of the JSON before binary data", {"type": "integer"})
    schema = {"schema": {"$ref": "#/components/schemas/InferRequest"}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "summary": "Infer, with JSON or binary tensors",
        "parameters": [*parameters, length],
        "requestBody": {
            "required": True,
            "content": {"application/json": schema, "application/octet-stream": binary},
        },
        "responses": {
            "200": {
                "description": "The outputs",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/InferResponse"}},
                    "application/octet-stream": binary,
                },
            },
            **{
                str(code): _failure("ProtocolError", "application/json")
                for code in (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504)
            },
        },
        "security": [{}, {"token": []}],
    }


def _service_paths() -> dict[str, Any]:
    problem = {"503": {"description": "Not ready; the body says what is degraded"}}
    return {
        "/feedback": {"post": _feedback()},
        "/healthz": {"get": {"summary": "Alive", "responses": {"200": {"description": "Alive"}}}},
        "/readyz": {
            "get": {
                "summary": "Every route has a warm version that can answer",
                "responses": {"200": {"description": "Ready"}, **problem},
            }
        },
        "/metrics": {"get": {"summary": "Prometheus metrics", "responses": {"200": {"description": "Text format"}}}},
        "/openapi.json": {"get": {"summary": "This document", "responses": {"200": {"description": "OpenAPI 3.1"}}}},
    }


def _feedback() -> Operation:
    label: dict[str, Any] = {"$ref": "#/components/schemas/Feedback"}
    answers = {
        code: {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}
        for code, description in (
            ("200", "Kept: what became of the label, or of each of many, with the first errors by line"),
            ("202", "Kept until its answer is known"),
        )
    }
    codes = (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503, 507)
    return {
        "summary": "The truth about an answer, or many as a line each (feedback)",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": label}, "application/x-ndjson": {"schema": label}},
        },
        "responses": answers | {str(code): _failure("Problem", "application/problem+json") for code in codes},
        "security": [{"token": []}],
    }


def _schemas() -> dict[str, Any]:
    text, number, anything = {"type": "string"}, {"type": "integer"}, {"type": "object"}
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": text,
            "datatype": text,
            "shape": {"type": "array", "items": number},
            "data": {"type": "array"},
            "parameters": anything,
        },
    }
    problem_field = {"type": "object", "properties": {"field": text, "expected": text, "got": text}}
    return {
        "Object": anything,
        "PredictRequest": {
            "type": "object",
            "required": ["inputs"],
            "additionalProperties": False,
            "properties": {
                "inputs": {"oneOf": [{"type": "array"}, anything]},
                "id": text,
                "key": {"oneOf": [text, number]},
                "context": anything,
                "parameters": anything,
            },
        },
        "PredictResponse": {
            "type": "object",
            "required": ["decision", "model", "version", "route", "reason", "outputs"],
            "properties": {
                "id": text,
                "decision": {"type": "string", "format": "uuid"},
                "model": text,
                "version": number,
                "route": text,
                "reason": {"type": "string", "description": "pin, rule:<name>, split or fallback"},
                "outputs": {
                    "type": "object",
                    "description": "By name, nested by row. NaN and infinity are null; bytes that are no UTF-8 are"
                    ' {"b64": "…"}.',
                },
            },
        },
        "Feedback": {
            "type": "object",
            "required": ["decision", "label"],
            "additionalProperties": False,
            "properties": {
                "decision": {"type": "string", "description": "The id that the answer came with"},
                "label": {"description": "A class or a number; of several rows a list, null where there is none"},
            },
        },
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": text,
                "parameters": anything,
                "inputs": {"type": "array", "items": tensor},
                "outputs": {"type": "array", "items": anything},
            },
        },
        "InferResponse": {
            "type": "object",
            "required": ["model_name", "model_version", "outputs"],
            "properties": {
                "model_name": text,
                "model_version": text,
                "id": text,
                "outputs": {"type": "array", "items": tensor},
            },
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "request_id"],
            "properties": {
                "type": text,
                "title": text,
                "status": number,
                "detail": text,
                "request_id": text,
                "errors": {"type": "array", "items": problem_field},
            },
        },
        "ProtocolError": {"type": "object", "required": ["error"], "properties": {"error": text}},
    }


def _get(summary: str, *codes: int) -> Operation:
    answers: dict[str, Any] = {"200": {"description": "OK", "content": {"application/json": {}}}}
    answers.update({str(code): _failure("ProtocolError", "application/json") for code in codes})
    return {"summary": summary, "responses": answers}


def _responses(schema: str, *codes: int) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    failures = {str(code): _failure("Problem", "application/problem+json") for code in codes}
    return {"200": {"description": "The outputs", "content": content}, **failures}


def _failure(schema: str, media: str) -> dict[str, Any]:
    return {"description": "See the body", "content": {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _body(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"required": True, "content": content}


def _header(name: str, description: str, schema: dict[str, Any]) -> Operation:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _path(name: str) -> Operation:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
