"""Several answers to one request of llama.cpp: choices (`n`), and texts for a list of prompts. Pure.

Its figures are of one answer each: in a stream every answer ends with its own, and of a whole answer only those of the first are told. So a stream is
asked for where the client wants a whole answer, too, and joined when it is complete; what the engine has used is their sum. A prompt counts once,
however many choices it has, as at OpenAI.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from supervisor.gateway.losses import IncompleteAnswerError
from supervisor.gateway.openai_errors import SERVER_ERROR_STATUS
from supervisor.gateway.sse import ANY_BLANK_LINE
from supervisor.gateway.usage_events import Prelude, progress_in, usage_told, with_figures_asked
from supervisor.storage.records import TokenSource, TokenUsage

_ERROR_STATUSES = range(400, 600)
_USAGE = b'"usage"'
_PROGRESS = b'"prompt_progress"'
_NO_TOKENS = re.compile(rb'"delta"\s*:\s*\{\s*\}|"choices"\s*:\s*\[\s*\]')
# The choice's own comes first; what it counts runs on through the prompts.
_INDEX = re.compile(rb'"index"\s*:\s*(\d+)')
# Text that comes in pieces; everything else comes at once, and may be repeated.
_IN_PIECES = frozenset({"content", "reasoning_content", "text", "arguments"})
_ENVELOPE = ("id", "created", "model", "system_fingerprint")


class Several(Prelude):
    """A `Prelude` that is over with the stream: whenever an answer begins, its prompt is read. `choices`: answers to each prompt.

    `told`: what the engine said at the end of each answer, in sum.
    """

    __slots__ = ("_choices", "_completion_tokens", "_prompts")

    def __init__(self, *, hides: bool, choices: int) -> None:
        super().__init__(hides=hides)
        self._choices = choices
        self._prompts: dict[int, tuple[int, int]] = {}
        self._completion_tokens: int | None = None

    @property
    def told(self) -> TokenUsage | None:
        """See `Prelude.told`."""
        if self._completion_tokens is None:
            return None
        return TokenUsage(self.read_tokens, self._completion_tokens, self.cached_tokens, TokenSource.ENGINE)

    def take(self, data: bytes) -> bytes:
        """Whole events, without what is hidden."""
        kept, start = [], 0
        for end in ANY_BLANK_LINE.finditer(data):
            event, start = data[start : end.end()], end.end()
            self._note(event)
            if not (self._hides and _PROGRESS in event):
                kept.append(event)
        return b"".join((*kept, data[start:]))

    def _note(self, event: bytes) -> None:
        self.events += self._is_without_text(event) or _NO_TOKENS.search(event) is not None
        progress = progress_in(event)
        if progress is not None:
            self._read(event, *progress)
        usage = usage_told(event) if _USAGE in event else None
        if usage is not None:
            self._read(event, usage.prompt_tokens, usage.cached_tokens)
            self._completion_tokens = (self._completion_tokens or 0) + usage.completion_tokens

    def _read(self, event: bytes, prompt_tokens: int, cached_tokens: int) -> None:
        """So much of a prompt is read; the first of its choices finds the least of it in the cache."""
        index = _INDEX.search(event)
        prompt = int(index[1]) // self._choices if index else 0
        before = self._prompts.get(prompt, (0, cached_tokens))
        now = self._prompts[prompt] = max(before[0], prompt_tokens), min(before[1], cached_tokens)
        self.read_tokens += now[0] - before[0]
        self.cached_tokens += now[1] - (before[1] if before[0] else 0)


def as_stream(document: Mapping[str, Any]) -> bytes:
    """The body that asks for a stream of what `document` asks for as a whole."""
    document = {**document, "stream": True, "return_progress": True}
    return with_figures_asked(json.dumps(document).encode(), document, progress=True)


def joined(stream: bytes, usage: TokenUsage | None) -> bytes:
    """The whole answer of which these are the events, as the engine would have given it, with what all of it used.

    IncompleteAnswerError where they are not llama.cpp's.
    """
    try:
        return json.dumps(_joined(stream, usage)).encode()
    except (AttributeError, KeyError, TypeError) as error:
        raise IncompleteAnswerError("The engine's events make no answer.") from error


def failure_in(stream: bytes) -> tuple[int, bytes]:
    """The status and the body of the error that a stream tells of."""
    error = next((event["error"] for event in _events(stream) if event.get("error")), None)
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and code in _ERROR_STATUSES else SERVER_ERROR_STATUS
    return status, json.dumps({"error": error}).encode()


def _joined(stream: bytes, usage: TokenUsage | None) -> dict[str, Any]:
    events = [event for event in _events(stream) if "choices" in event]
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        for choice in event["choices"]:
            _grow(choices.setdefault(choice["index"], {}), choice)
    first = events[0] if events else {}
    answer = {name: first[name] for name in _ENVELOPE if name in first}
    answer["object"] = str(first.get("object")).removesuffix(".chunk")
    answer["choices"] = [_finished(choices[index]) for index in sorted(choices)]
    if usage is not None:
        answer["usage"] = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        }
    return answer


def _events(stream: bytes) -> Iterator[dict[str, Any]]:
    """The objects in the events of a stream; an error that has a line of its own as if it were in one."""
    for line in stream.splitlines():
        name, _, payload = line.partition(b":")
        document = _parsed(payload) if name in (b"data", b"error") else None
        if isinstance(document, dict):
            yield {"error": document} if name == b"error" else document


def _parsed(payload: bytes) -> object:
    try:
        document: object = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return document


def _grow(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    for name, value in piece.items():
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, dict):
            if not isinstance(whole.get(name), dict):
                whole[name] = {}
            _grow(whole[name], value)
        elif isinstance(value, list):
            whole[name] = whole.get(name) or []
            _lengthen(whole[name], value)
        elif name in _IN_PIECES and isinstance(whole.get(name), str):
            # Out of the dictionary while it grows: so it need not be copied for each piece.
            text = whole.pop(name)
            text += value
            whole[name] = text
        else:
            whole[name] = value


def _lengthen(whole: list[Any], pieces: list[Any]) -> None:
    """Items with an `index` (calls of tools) come in pieces, others (log probabilities) one by one."""
    for piece in pieces:
        index = piece.get("index") if isinstance(piece, dict) else None
        known = None if index is None else next((item for item in whole if item.get("index") == index), None)
        if known is None:
            known = {} if isinstance(piece, dict) else piece
            whole.append(known)
        if isinstance(piece, dict):
            _grow(known, piece)


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice as it is in a whole answer."""
    if "delta" not in choice:
        return choice
    message = choice.pop("delta")
    for call in message.get("tool_calls") or ():
        call.pop("index", None)
    if message.get("content") is None and not message.get("tool_calls"):
        message["content"] = ""
    return {**choice, "message": message}
