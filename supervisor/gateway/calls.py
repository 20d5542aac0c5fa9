"""A request to an engine as the client made it, checked as far as the contract goes; everything else is the engine's to judge."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.request_fields import Bound, check_messages, check_tools, refuse, shown

REQUEST_ID = "X-Request-Id"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
INFERENCE_PATHS = (CHAT, COMPLETIONS, EMBEDDINGS)
RERANK = "/v1/rerank"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
_WITH_MESSAGES = frozenset({CHAT, MESSAGES, COUNT_TOKENS})
_SAMPLED = frozenset({CHAT, COMPLETIONS, RESPONSES, MESSAGES})
_LENGTHS = ("max_completion_tokens", "max_tokens", "n_predict")
# Elsewhere engines pass over it.
_LENGTHS_OF_RESPONSES = (*_LENGTHS, "max_output_tokens")
_OF_ONE_CHOICE = frozenset({RESPONSES, MESSAGES})
# OpenAI's field, and llama.cpp's own name of it, which comes first.
_CHOICES = ("n_cmpl", "n")
MOST_CHOICES = 128
"""OpenAI's own bound of `n`."""
# Unique, not secret: a call of the system for each request would buy nothing.
_random_bits = random.Random().getrandbits


def new_request_id() -> str:
    """An id for a request that has none."""
    return f"req_{_random_bits(128):032x}"


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `path` is the engine's route, `body` the bytes that the client sent, `document` the same as JSON, `headers` for the engine.

    `route_reason` is why the router sent it where it goes, if it was asked. `id` is the one that its record gets (None: a new one), so that who was
    told an id of ours (`X-Request-Id`) finds the record by it; what the client calls the request is the header of that name.
    """

    path: str
    body: bytes
    document: Mapping[str, Any]
    headers: Mapping[str, str]
    batch_id: str | None = None
    route_reason: str | None = None
    id: str | None = None

    @property
    def model(self) -> str | None:
        """What the client calls the model; None when it names none."""
        return self.document.get("model") or None

    @property
    def max_tokens(self) -> int | None:
        """Most tokens that all choices together may have; None where the request does not say, or sets no bound (llama.cpp's `n_predict: -1`)."""
        document = self.document
        most = 0
        # Of several the greatest: which one counts is the engine's to say.
        for name in _LENGTHS_OF_RESPONSES if self.path == RESPONSES else _LENGTHS:
            limit = document.get(name)
            if limit is None:
                continue
            if not isinstance(limit, int) or limit < 1:
                return None
            if limit > most:
                most = limit
        if not most:
            return None
        return most * self.answers

    @property
    def choices(self) -> int:
        """Answers to each prompt that it asks for."""
        document = self.document
        if "n" not in document and "n_cmpl" not in document:
            return 1
        return next((number for name in _CHOICES if (number := _number_in(document, name))), 1)

    @property
    def answers(self) -> int:
        """Texts that it asks for in all: choices of each prompt."""
        prompt = self.document.get("prompt") if self.path == COMPLETIONS else None
        # A list with numbers in it is one prompt, of tokens.
        if not isinstance(prompt, list) or not prompt or any(isinstance(part, int) for part in prompt):
            return self.choices
        return self.choices * len(prompt)

    @property
    def wants_stream(self) -> bool:
        """The client asked for server-sent events."""
        return self.document.get("stream") is True

    def body_for(self, model_id: str | None) -> bytes:
        """The body to send; with `model` replaced where the engine knows the model by another name (None: it takes any)."""
        if model_id is None or self.model in (None, model_id):
            return self.body
        return json.dumps({**self.document, "model": model_id}).encode()


BOUNDS = (
    Bound("temperature", 0, 2),
    Bound("top_p", 0, 1),
    Bound("top_k", 1, whole=True),
    Bound("max_tokens", 1, whole=True),
    Bound("max_completion_tokens", 1, whole=True),
    Bound("max_output_tokens", 1, whole=True),
    Bound("repeat_penalty", 0),
    *(Bound(name, 1, MOST_CHOICES, whole=True) for name in _CHOICES),
)
_BOUNDS = {bound.name: bound for bound in BOUNDS}


def check(path: str, document: Mapping[str, Any]) -> None:
    """Raise MalformedRequestError for a body that breaks the contract (`contracts.md` §2), naming the field."""
    check_model(document)
    if path in _SAMPLED:
        _check_sampling(document)
    if path in _OF_ONE_CHOICE:
        check_one_choice(document, "on this route")
    if path in _WITH_MESSAGES:
        check_messages(document.get("messages"))
    if path == CHAT:
        check_tools(document.get("tools"), "tools")


def check_model(document: Mapping[str, Any]) -> str | None:
    """The model that a request names, None when it names none. MalformedRequestError unless it is text."""
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        raise refuse("model", f"must be a string, not {shown(model)}.")
    return model or None


def check_one_choice(document: Mapping[str, Any], where: str) -> None:
    """Raise MalformedRequestError for a request of several choices; `where` there is room for one only."""
    for name in _CHOICES:
        if (_number_in(document, name) or 1) > 1:
            raise refuse(name, f"must be 1 {where}: send a request for each choice.")


def _number_in(document: Mapping[str, Any], name: str) -> int | None:
    """A number of choices; None where the field does not hold one."""
    number = document.get(name)
    return int(number) if isinstance(number, int | float) and 1 <= number <= MOST_CHOICES else None


def _check_sampling(document: Mapping[str, Any]) -> None:
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise refuse("stream", f"must be true or false, not {shown(stream)}.")
    for name in _BOUNDS.keys() & document.keys():
        _BOUNDS[name].check(document)
