"""The engine's own token counts: asked for in every stream, read from every answer, and hidden from whoever did not ask."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from supervisor.gateway.sse import ANY_BLANK_LINE
from supervisor.storage.records import TokenSource, TokenUsage

_USAGE = b'"usage"'
_TIMINGS = b'"timings"'
_ASK = b'"stream_options":{"include_usage":true}}'
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_DECODER = json.JSONDecoder()


def asks_for_usage(document: Mapping[str, Any]) -> bool:
    """Whether the client wants the usage at the end of its stream."""
    options = document.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def with_usage_asked(body: bytes, document: Mapping[str, Any]) -> bytes:
    """`body` (of a stream that does not ask) asking for the usage; apart from that, byte for byte the same where `stream_options` is absent."""
    if "stream_options" not in document:
        return body.rstrip()[:-1] + (b"," if document else b"") + _ASK
    options = document["stream_options"]
    kept = options if isinstance(options, dict) else {}
    return json.dumps({**document, "stream_options": {**kept, "include_usage": True}}).encode()


def without_usage_event(data: bytes) -> bytes:
    """Whole events without the one that carries nothing but the usage."""
    if _USAGE not in data:
        return data
    kept, start = [], 0
    for end in ANY_BLANK_LINE.finditer(data):
        event, start = data[start : end.end()], end.end()
        if not _is_usage_event(event):
            kept.append(event)
    return b"".join((*kept, data[start:]))


def usage_told(document: bytes) -> TokenUsage | None:
    """The token counts that an answer or an event reports: OpenAI's `usage` (Anthropic's names too), else llama.cpp's `timings`; None: none."""
    usage = _last_object(document, _USAGE)
    if usage:
        return _of_usage(usage)
    timings = _last_object(document, _TIMINGS)
    if timings:
        prompt, cached = _count(timings, "prompt_n"), _count(timings, "cache_n")
        return TokenUsage(prompt + cached, _count(timings, "predicted_n"), cached, TokenSource.ENGINE)
    return None


def _of_usage(usage: Mapping[str, Any]) -> TokenUsage:
    openai = "input_tokens" not in usage
    prompt = _count(usage, "prompt_tokens" if openai else "input_tokens")
    completion = _count(usage, "completion_tokens" if openai else "output_tokens")
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    # Anthropic leaves out what came from the cache, or went into it.
    read = _count(usage, "cache_read_input_tokens")
    prompt, cached = prompt + read + _count(usage, "cache_creation_input_tokens"), cached + read
    return TokenUsage(prompt, completion, min(cached, prompt), TokenSource.ENGINE)


def _is_usage_event(event: bytes) -> bool:
    return _USAGE in event and _NO_CHOICES.search(event) is not None and _last_object(event, _USAGE) is not None


def _last_object(document: bytes, name: bytes) -> Mapping[str, Any] | None:
    """The last object of that name. Quotes inside a JSON string are escaped, so it cannot come from what a model says."""
    start = document.rfind(name)
    if start < 0:
        return None
    text = document[start + len(name) :].lstrip(b" \t\r\n:").decode("utf-8", "replace")
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _count(figures: Mapping[str, Any], name: str) -> int:
    value = figures.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
