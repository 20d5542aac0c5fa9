"""Our own errors in the words that the clients of a route expect: OpenAI's everywhere but on Anthropic's routes."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from supervisor.errors import LlamavisorError
from supervisor.gateway.dialects import anthropic_error
from supervisor.gateway.openai_errors import error_body
from supervisor.gateway.surfaces import Dialect, surface_of
from web.errors import error_headers


def error_document(path: str, error: LlamavisorError) -> dict[str, Any]:
    """The body of an error on a route."""
    if surface_of(path).dialect is Dialect.ANTHROPIC:
        return anthropic_error(str(error), error.status, error.code)
    return error_body(error)


def error_response(path: str, error: LlamavisorError) -> web.Response:
    """The error as JSON, with its status and headers."""
    return web.json_response(error_document(path, error), status=error.status, headers=error_headers(error))


def error_event(path: str, error: LlamavisorError) -> bytes:
    """The event that tells of an error in the middle of a route's stream."""
    return event_of(path, error_document(path, error))


def event_of(path: str, document: dict[str, Any]) -> bytes:
    """The same for an error that is in the words of the route already: an engine's, when the status of the stream is out."""
    dialect = surface_of(path).dialect
    if dialect is Dialect.OPENAI:
        return _event(document)
    if dialect is Dialect.RESPONSES:
        # Clients look at the event's type, OpenAI's own SDK for an `error` in it.
        error = document.get("error", {})
        document = {"type": "error", **{key: error.get(key) for key in ("message", "param", "code")}, **document}
    return b"event: error\n" + _event(document)


def _event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()
