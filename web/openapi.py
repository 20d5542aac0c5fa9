"""The OpenAPI 3.1 document, generated from the route registry."""

from __future__ import annotations

import re
from typing import Any

from web.account_schemas import ACCOUNT_COMPONENTS
from web.registry import Policy, Registry, Reply, Route
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
                    "description": "`server.api_key`, when one is configured.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "llamavisor_session",
                    "description": "From `POST /login`.",
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
    error_content = {"application/json": {"schema": error_schema(route.path)}}
    replies = {str(status): _response(reply) for status, reply in sorted(route.responses.items())}
    if route.policy is not Policy.OPEN:
        replies.setdefault("401", {"description": "A key is needed, or it is not valid.", "content": error_content})
    replies.setdefault("403", {"description": "A foreign Host or Origin.", "content": error_content})
    if route.body is not None:
        replies.setdefault("413", {"description": "The body is too large.", "content": error_content})
        replies.setdefault(
            "415", {"description": "The Content-Type is not that of the body.", "content": error_content}
        )
    return {**replies, "default": {"description": "Any other error.", "content": error_content}}


def _response(reply: Reply) -> dict[str, Any]:
    result: dict[str, Any] = {"description": reply.description}
    content = {} if reply.content_type is None else {reply.content_type: reply.schema}
    content = {**content, **reply.others}
    if content:
        result["content"] = {
            kind: {} if schema is None else {"schema": dict(schema)} for kind, schema in content.items()
        }
    return result
