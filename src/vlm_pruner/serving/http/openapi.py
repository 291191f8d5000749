"""The server's API as OpenAPI 3.1: what clients and fuzzers are told about it. Served at /openapi.json."""

from __future__ import annotations

from typing import Any

from vlm_pruner.serving.http.limits import Limits
from vlm_pruner.serving.http.requests import IGNORED, NEUTRAL, ROLES, SAMPLING
from vlm_pruner.serving.http.uploads import REQUEST, UPLOAD

__all__ = ["description"]

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "code": {"type": "string"}},
        }
    },
}
_PLAN = {
    "type": ["object", "null"],
    "description": "A whole plan with its stages, or keep and perhaps method, layer, older and params.",
    "properties": {
        "keep": {"type": "number", "exclusiveMinimum": 0},
        "method": {"type": "string"},
        "layer": {"type": ["integer", "string", "null"]},
        "params": {"type": "object"},
        "stages": {"type": "array", "items": {"type": "object"}, "minItems": 1},
    },
}
_REFUSED = {
    "400": "what was sent cannot be answered", "401": "the API key is missing or wrong", "404": "nothing is there",
    "408": "the body did not come in time", "411": "no Content-Length", "413": "too large",
    "500": "the model or the server failed", "503": "too many requests are waiting",
    "504": "no answer in time",
}  # fmt: skip


def description(limits: Limits, *, key: bool) -> dict[str, Any]:
    """The description of a server.

    Args:
        key: do clients send a key?
    """
    paths = {
        "/health": {"get": _answers("Is it alive?", {"status": {"type": "string"}, "waiting": {"type": "integer"}})},
        "/v1/models": {"get": _answers("Its one model.", {"data": {"type": "array"}})},
        "/metrics": {"get": {"responses": {"200": {"description": "Counts, as Prometheus reads them.",
                                                   "content": {"text/plain": {"schema": {"type": "string"}}}},
                                           **_refusals()}}},
        "/v1/chat/completions": {"post": _chat()},
    }  # fmt: skip
    made: dict[str, Any] = {
        "openapi": "3.1.0", "info": {"title": "vlm-pruner", "version": "1"}, "paths": paths,
        "components": {"schemas": {"Error": _ERROR, "ChatRequest": _request(limits)}},
    }  # fmt: skip
    if key:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}]
    return made


def _refusals() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": text, "content": content} for status, text in _REFUSED.items()}


def _answers(text: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    answer = {"description": text, "content": {"application/json": {"schema": schema}}}
    return {"responses": {"200": answer, **_refusals()}}


def _chat() -> dict[str, Any]:
    """Chat completions, asked for by JSON or a form with files; JSON, or server-sent events where `stream` is true."""
    operation = _answers("An answer.", {"choices": {"type": "array"}, "usage": {"type": "object"}})
    operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    asked = {"$ref": "#/components/schemas/ChatRequest"}
    form = {
        "type": "object",
        "description": f"JSON in '{REQUEST}', and files: a picture's URL is '{UPLOAD}' and the name of its field.",
        "required": [REQUEST],
        "properties": {REQUEST: asked},
        "propertyNames": {"minLength": 1},
        "additionalProperties": {"type": "string", "format": "binary"},
    }
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {"schema": asked},
            "multipart/form-data": {"schema": form, "encoding": {REQUEST: {"contentType": "application/json"}}},
        },
    }
    return operation


def _request(limits: Limits) -> dict[str, Any]:
    url = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}
    kinds: dict[str, dict[str, Any]] = {"text": {"text": {"type": "string"}}, "image_url": {"image_url": url}}
    parts = [
        {"type": "object", "required": ["type", kind], "properties": {"type": {"const": kind}, **held}}
        for kind, held in kinds.items()
    ]
    content = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"anyOf": parts}}]}
    message = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": list(ROLES)}, "content": content},
    }
    count = {"type": ["integer", "null"], "minimum": 1, "maximum": limits.tokens}
    kind = {name: "integer" if name == "seed" else "number" for name in SAMPLING}
    return {
        "type": "object",
        "required": ["messages"],
        "additionalProperties": False,
        "properties": {
            "messages": {"type": "array", "minItems": 1, "items": message},
            "max_tokens": count,
            "max_completion_tokens": count,
            **{
                name: {"type": [kind[name], "null"], "minimum": least, "maximum": most}
                for name, (least, most) in SAMPLING.items()
            },
            "stream": {"type": ["boolean", "null"]},
            "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": "boolean"}}},
            "vlm_pruner": _PLAN,
            **{name: {} for name in sorted(IGNORED)},
            **{name: {"enum": [value, None]} for name, value in NEUTRAL.items()},
        },
    }
