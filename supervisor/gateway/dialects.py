"""Errors in the words of each surface. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from supervisor.gateway.losses import code_in, message_in, openai_error, said
from supervisor.gateway.openai_errors import SERVER_ERROR_STATUS
from supervisor.gateway.surfaces import Dialect, surface_of

ANTHROPIC_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(message: str, status: int, code: str | None) -> dict[str, Any]:
    """An error as Anthropic writes it: `{"type": "error", "error": {type, message}}`, and beyond that our `code`, for programs."""
    other = "api_error" if status >= SERVER_ERROR_STATUS else "invalid_request_error"
    error = {"type": ANTHROPIC_TYPES.get(status, other), "message": message}
    return {"type": "error", "error": error if code is None else {**error, "code": code}}


def engine_error(path: str, body: bytes, status: int) -> bytes:
    """An engine's error in the words of the surface: unchanged when it is in them already."""
    if surface_of(path).dialect is not Dialect.ANTHROPIC:
        return openai_error(body, status)
    words = said(body)
    if _is_anthropic(body, words):
        return body
    return json.dumps(anthropic_error(message_in(words, status), status, code_in(words))).encode()


def _is_anthropic(body: bytes, words: Mapping[str, Any]) -> bool:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    is_error = isinstance(document, dict) and document.get("type") == "error" and document.get("error") == words
    return is_error and isinstance(words.get("type"), str) and isinstance(words.get("message"), str)
