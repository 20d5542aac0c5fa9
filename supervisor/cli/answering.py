"""One streamed answer of a chat completion: its text as it comes, and an honest account of how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from supervisor.cli.client import Client
from supervisor.cli.formatting import waiting_words
from supervisor.cli.outcome import ConnectionLostError, RefusedError
from supervisor.cli.sse import EventTooLargeError, ServerSentEvent

CHAT_PATH = "/v1/chat/completions"
DONE = "[DONE]"
WAITING_EVENT = "llamavisor.waiting"
ASK_FOR_PROGRESS = {"X-Llamavisor-Progress": "1"}
NOT_AVAILABLE = 503
CUT_SHORT = "the connection ended before the answer did"


@dataclass(slots=True)
class Answer:
    """What is known of an answer so far.

    `cut` says why it ended early (None: it did not, as far as is known); `done` that the server said it was complete; `usage` and
    `finish_reason` are the server's. `waiting` is what the request waits for, while it does.
    """

    model: str | None = None
    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    cut: str | None = None
    done: bool = False
    asked_at: float = field(default_factory=time.monotonic)
    first_at: float | None = None
    last_at: float | None = None
    pieces: int = 0
    waiting: Mapping[str, Any] | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the answer: the server's count, else the pieces that came."""
        told = (self.usage or {}).get("completion_tokens")
        return told if isinstance(told, int) else self.pieces

    @property
    def first_token_seconds(self) -> float | None:
        """From the question to the first token."""
        return None if self.first_at is None else self.first_at - self.asked_at

    @property
    def tokens_per_second(self) -> float | None:
        """Pace between the first token and the last; None when there is nothing in between to measure."""
        if self.first_at is None or self.last_at is None or self.tokens < 2 or self.last_at <= self.first_at:
            return None
        return (self.tokens - 1) / (self.last_at - self.first_at)

    def take(self, event: ServerSentEvent) -> str:
        """Take an event in; the text that it adds. RefusedError when the server refuses what still waited: no answer had begun."""
        if event.data == DONE:
            self.done = True
            return ""
        try:
            chunk = json.loads(event.data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            self.cut = "the server sent something that is no part of an answer"
            return ""
        if event.type == WAITING_EVENT:
            self.waiting = chunk
            return ""
        if chunk.get("error") and self.waiting is not None:
            raise _refusal(chunk["error"])
        self.waiting = None
        if chunk.get("error"):
            self.cut = _message(chunk["error"])
            return ""
        return self._take_chunk(chunk)

    def _take_chunk(self, chunk: Mapping[str, Any]) -> str:
        self.model = chunk.get("model") or self.model
        self.usage = chunk.get("usage") or self.usage
        added = ""
        for choice in chunk.get("choices") or ():
            added += (choice.get("delta") or {}).get("content") or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if added:
            self.last_at = time.monotonic()
            self.first_at = self.first_at or self.last_at
            self.pieces += 1
            self.text += added
        return added

    def account(self) -> str:
        """The figures in a line: `42 tokens, 180.3 tokens/s, first after 0.03 s`."""
        parts = [f"{self.tokens} token{'' if self.tokens == 1 else 's'}"]
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:.1f} tokens/s")
        if self.first_token_seconds is not None:
            parts.append(f"first after {self.first_token_seconds:.2f} s")
        if self.finish_reason == "length":
            parts.append("ended at its length limit")
        return ", ".join(parts)

    def to_wire(self) -> dict[str, Any]:
        """As JSON values."""
        pace, first = self.tokens_per_second, self.first_token_seconds
        return {
            "model": self.model,
            "content": self.text,
            "finish_reason": self.finish_reason,
            "usage": self.usage,
            "tokens_per_second": None if pace is None else round(pace, 2),
            "first_token_seconds": None if first is None else round(first, 4),
            "cut": self.cut,
        }


async def stream_answer(
    client: Client, body: Mapping[str, Any], answer: Answer, on_wait: Callable[[str], None]
) -> AsyncGenerator[str]:
    """Ask, and yield the text as it comes; `answer` holds the truth at every moment, also when the caller stops listening.

    `on_wait` is told in words what the request waits for, as often as that changes. A refusal before the answer begins raises; an end in the
    middle is told by `answer.cut`.
    """
    try:
        async with aclosing(client.stream(CHAT_PATH, body, ASK_FOR_PROGRESS)) as events:
            async for event in events:
                added = answer.take(event)
                if answer.waiting is not None:
                    on_wait(waiting_words(answer.waiting))
                if added:
                    yield added
                if answer.done or answer.cut is not None:
                    return
    except (ConnectionLostError, EventTooLargeError) as error:
        answer.cut = error.message.rstrip(".")
        return
    answer.cut = CUT_SHORT


def _refusal(error: object) -> RefusedError:
    code = error.get("code") if isinstance(error, dict) else None
    return RefusedError(f"{_message(error)}.", status=NOT_AVAILABLE, code=code)


def _message(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or "the server reported an error").rstrip(".")
