"""How a stream tells that it is complete: each surface has its own last word, and its own events that bring tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The end of a surface's streams.

    `ends`: the `type` of an event that is the last of a whole answer; empty where `[DONE]` is. `failures`: the `type` of one that says that the
    engine failed. `token_mark`: what the payload of an event holds when it brings tokens (empty: each does). A mark is in quotes, so that it cannot
    come from what a model says: there, quotes are escaped.
    """

    ends: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    token_mark: bytes = b""

    @property
    def is_typed(self) -> bool:
        """Whether events say by their `type` what they are."""
        return bool(self.ends)

    @property
    def name(self) -> str:
        """What a complete stream ends with, in words."""
        return " or ".join(self.ends) or DONE.decode()

    def verdict(self, payload: bytes) -> bool | None:
        """True: the event is the good end. False: it says that the engine failed. None: neither."""
        if not any(f'"{name}"'.encode() in payload for name in (*self.ends, *self.failures)):
            return None
        kind = _object(payload).get("type")
        return True if kind in self.ends else False if kind in self.failures else None

    def brings_tokens(self, payload: bytes) -> bool:
        """Whether the event is to be counted as generated text."""
        return self.token_mark in payload


OPENAI_END = StreamEnd()
RESPONSES_END = StreamEnd(("response.completed", "response.incomplete"), ("response.failed", "error"), b'.delta"')
MESSAGES_END = StreamEnd(("message_stop",), ("error",), b'"content_block_delta"')


def usage_in(payload: bytes) -> Mapping[str, Any]:
    """The token counts in an event: of itself, or of the response or message that it tells of. Empty when there are none."""
    document = _object(payload)
    for holder in (document, document.get("response"), document.get("message")):
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict):
            return usage
    return {}


def _object(payload: bytes) -> dict[str, Any]:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
