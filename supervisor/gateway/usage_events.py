"""The engine's own token counts: asked for in every stream, read from every answer, and hidden from whoever did not ask.

llama.cpp is also asked for its progress through the prompt (`return_progress`): so the length of the prompt is known of a stream that is cut, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from supervisor.gateway.sse import ANY_BLANK_LINE
from supervisor.storage.records import TokenSource, TokenUsage

MOST_TOKENS = 2**31 - 1
"""An engine that tells more of one request has told nothing."""
_USAGE = b'"usage"'
_TIMINGS = b'"timings"'
_PROGRESS = b'"prompt_progress"'
_ASK_USAGE = b'"stream_options":{"include_usage":true}'
_ASK_PROGRESS = b'"return_progress":true'
# The first event of a chat has a role and no text yet; a call of a tool is made of tokens.
_NO_TEXT = re.compile(rb'"(?:content|text)"\s*:\s*(?:null|"")')
_OTHER_TOKENS = (b'"tool_calls"', b'"reasoning')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_DECODER = json.JSONDecoder()


def asks_for_usage(document: Mapping[str, Any]) -> bool:
    """Whether the client wants the usage at the end of its stream."""
    options = document.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def with_figures_asked(body: bytes, document: Mapping[str, Any], *, progress: bool) -> bytes:
    """`body` (of a stream) asking for the usage, and for the progress through the prompt; apart from that, byte for byte the same.

    Only `stream_options` that are there and do not ask are written anew, and the body with them.
    """
    questions = [_ASK_PROGRESS] if progress and "return_progress" not in document else []
    if "stream_options" not in document:
        questions.append(_ASK_USAGE)
    elif not asks_for_usage(document):
        options = document["stream_options"]
        kept = options if isinstance(options, dict) else {}
        body = json.dumps({**document, "stream_options": {**kept, "include_usage": True}}).encode()
    if not questions:
        return body
    return b"%b%b%b}" % (body.rstrip()[:-1], b"," if document else b"", b",".join(questions))


class Prelude:
    """The events of a stream before its first text: not tokens, and perhaps llama.cpp's progress, which is hidden if `hides`.

    `events` that were no text; `read_tokens` of the prompt, `cached_tokens` of them taken from the cache. `is_over`: text came.
    """

    __slots__ = ("_hides", "cached_tokens", "events", "is_over", "read_tokens")

    def __init__(self, *, hides: bool) -> None:
        self._hides = hides
        self.events = 0
        self.read_tokens = 0
        self.cached_tokens = 0
        self.is_over = False

    @property
    def told(self) -> TokenUsage | None:
        """What the engine has told of all answers; None where the last figures in the stream are those of all."""
        return None

    def take(self, data: bytes) -> bytes:
        """Whole events, without what is hidden. Not to be called any more once it `is_over`."""
        kept, start = [], 0
        for end in ANY_BLANK_LINE.finditer(data):
            event = data[start : end.end()]
            if not self._is_prelude(event):
                self.is_over = True
                break
            start = end.end()
            if not (self._hides and _PROGRESS in event):
                kept.append(event)
        return b"".join((*kept, data[start:]))

    def _is_prelude(self, event: bytes) -> bool:
        if event.startswith(b":"):
            return True
        if not self._is_without_text(event):
            return False
        self.events += 1
        progress = progress_in(event)
        if progress is not None:
            self.read_tokens, self.cached_tokens = progress
        return True

    def _is_without_text(self, event: bytes) -> bool:
        return _NO_TEXT.search(event) is not None and not any(mark in event for mark in _OTHER_TOKENS)


def progress_in(event: bytes) -> tuple[int, int] | None:
    """Tokens of the prompt that llama.cpp has read by now, and those of them that came from its cache; None: the event does not say."""
    progress = _last_object(event, _PROGRESS)
    return None if progress is None else (_count(progress, "processed"), _count(progress, "cache"))


def without_usage_event(data: bytes) -> bytes:
    """Whole events without the one that carries nothing but the usage."""
    at = data.find(_USAGE)
    if at < 0:
        return data
    # Long before it may be many events; only where all line ends are the same does it show where they end.
    before = -1 if b"\r" in data else data.rfind(b"\n\n", 0, at)
    start = before + 2 if before >= 0 else 0
    kept = [data[:start]]
    for end in ANY_BLANK_LINE.finditer(data, start):
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
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 < value <= MOST_TOKENS else 0
