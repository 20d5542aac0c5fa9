"""The OpenAPI 3.1 document, generated from the route registry."""

from __future__ import annotations

import re
from typing import Any

from web.account_schemas import ACCOUNT_COMPONENTS
from web.registry import EVENT_STREAM, JSON, Policy, Registry, Reply, Route, Schema
from web.schemas import components
from web.surface_schemas import error_schema

_PATH_PARAMETER = re.compile(r"\{(?P<name>\w+)(?::[^}]+)?\}")
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]
_TITLE = "Llamavisor"
_DESCRIPTION = (
    "Supervises LLM inference servers, shows their live state, and puts one OpenAI-compatible door in front of them. "
    "Every error has one shape: `{error: {message, type, param, code}}`. Live status is on Socket.IO and on `GET /events`."
)


def document(registry: Registry, version: str) -> dict[str, Any]:
    """The whole document as JSON-ready values."""
    paths: dict[str, dict[str, Any]] = {}
    for route in registry:
        paths.setdefault(template_path(route.path), {})[route.method.lower()] = operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": _TITLE,
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in registry)],
        "components": {
            "schemas": {**components(), **ACCOUNT_COMPONENTS},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Where `server.api_key` is set: that key, or one of a project with the scope that the route takes.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "llamavisor_session",
                    "description": "From `POST /login`; it may do what the key may that was shown there.",
                },
            },
        },
    }


def template_path(path: str) -> str:
    """A path of the router in OpenAPI's notation: without patterns."""
    return _PATH_PARAMETER.sub(lambda match: f"{{{match['name']}}}", path)


def operation(route: Route) -> dict[str, Any]:
    """The Operation Object of one route."""
    result: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "description": " ".join(route.description.split()),
        "tags": [route.tag],
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": [] if route.policy is Policy.OPEN else _SECURITY,
        "x-policy": route.policy.value,
    }
    if route.body is not None:
        media = {route.body.content_type: {"schema": dict(route.body.schema)}}
        result["requestBody"] = {
            "required": route.body.required,
            "content": media,
            "description": route.body.description,
        }
    return result


def operation_id(route: Route) -> str:
    """A name that no other operation has: method and path as one word."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", template_path(route.path)).strip("_") or "root"
    slash = "_slash" if route.path.endswith("/") and route.path != "/" else ""
    return f"{route.method.lower()}_{words}{slash}"


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [
        {"name": match["name"], "in": "path", "required": True, "schema": {"type": "string"}}
        for match in _PATH_PARAMETER.finditer(route.path)
    ]
    others = [
        {
            "name": parameter.name,
            "in": parameter.location,
            "required": parameter.required,
            "description": parameter.description,
            "schema": dict(parameter.schema),
        }
        for parameter in route.parameters
    ]
    return in_path + others


def _responses(route: Route) -> dict[str, Any]:
    """What the route says of itself, and what everything around it may answer. No `default`: whatever is not here is a defect."""
    replies = {str(status): _response(reply) for status, reply in route.responses.items()}
    for status, description in _common_errors(route).items():
        replies.setdefault(
            status, {"description": description, "content": {"application/json": {"schema": error_schema(route.path)}}}
        )
    if route.method == "GET" and route.policy is not Policy.OPEN:
        replies.setdefault("303", {"description": "A browser without a key is sent to `/login`."})
    return dict(sorted(replies.items()))


def _common_errors(route: Route) -> dict[str, str]:
    errors = {
        "400": "The request cannot be read, its `Host` for example.",
        "403": "A foreign Host or Origin.",
        "500": "A defect of the server's own; its log has more.",
        "503": "The server shuts down, or has no file descriptors left.",
    }
    if route.policy is not Policy.OPEN:
        errors["401"] = (
            "A key is needed, or it is not valid; a browser that asks for a page is sent to `/login` instead."
        )
    if route.body is not None:
        errors["413"] = "The body is too large."
    if route.method != "GET":
        errors["415"] = "The Content-Type is not that of the body, or the body is compressed."
    return errors


def _response(reply: Reply) -> dict[str, Any]:
    result: dict[str, Any] = {"description": reply.description}
    content = {} if reply.content_type is None else {reply.content_type: reply.schema}
    content = {**content, **reply.others}
    if content:
        result["content"] = {
            kind: {} if schema is None else {"schema": _event(schema) if kind == EVENT_STREAM else dict(schema)}
            for kind, schema in content.items()
        }
    return result


def _event(data: Schema) -> dict[str, Any]:
    """The schema of one server-sent event whose data is text, or JSON of the schema `data`."""
    text: Schema = {"type": "string"}
    if data != text:
        text = {**text, "contentMediaType": JSON, "contentSchema": data}
    return {"type": "object", "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": text}}
