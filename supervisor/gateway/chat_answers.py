"""Reading chat answers of engines, for surfaces that tell them in another shape. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.gateway.losses import IncompleteAnswerError
from supervisor.gateway.stream_ends import DONE
from supervisor.storage.records import TokenSource, TokenUsage

_DATA = b"data:"


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A whole answer. `content` is "" when the model said nothing in words (it called a tool)."""

    id: str
    model: str
    content: str
    usage: TokenUsage


def read_answer(body: bytes) -> ChatAnswer:
    """The first choice of a chat completion. IncompleteAnswerError when it is none."""
    document = _object(body)
    choice = _first(document.get("choices"))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise IncompleteAnswerError("The engine's answer is no chat completion.")
    return ChatAnswer(
        id=str(document.get("id") or ""),
        model=str(document.get("model") or ""),
        content=_text(message.get("content")),
        usage=usage_of(document.get("usage")),
    )


class ChatStream:
    """Reads the events of a streamed chat completion as they come. `model`, `usage` and `error` (the engine's own words) are those told so far."""

    def __init__(self) -> None:
        self.model = ""
        self.usage = TokenUsage()
        self.error: str | None = None

    def feed(self, events: bytes) -> list[str]:
        """The pieces of text in whole events, in order."""
        payloads = [line.removeprefix(_DATA).strip() for line in events.splitlines() if line.startswith(_DATA)]
        return [text for payload in payloads if payload != DONE and (text := self._read(_object(payload)))]

    def _read(self, event: Mapping[str, Any]) -> str:
        error = event.get("error")
        if error:
            message = error.get("message") if isinstance(error, dict) else error
            self.error = str(message or "The engine failed without a word.")
        if event.get("usage"):
            self.usage = usage_of(event["usage"])
        self.model = str(event.get("model") or self.model)
        delta = _first(event.get("choices")).get("delta")
        return _text(delta.get("content")) if isinstance(delta, dict) else ""


def usage_of(usage: object) -> TokenUsage:
    """OpenAI's `usage` object; nothing told is nothing counted."""
    if not isinstance(usage, dict):
        return TokenUsage()
    details = usage.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    return TokenUsage(_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), cached, TokenSource.ENGINE)


def flat_usage(usage: TokenUsage) -> dict[str, int]:
    """The token counts as the flat dialect writes them."""
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _first(items: object) -> dict[str, Any]:
    first = items[0] if isinstance(items, list) and items else None
    return first if isinstance(first, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(figures: Mapping[str, Any], name: str) -> int:
    value = figures.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
