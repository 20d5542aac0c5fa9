"""Tokenizing, detokenizing and chat templates, by the engine's own tokenizer (`contracts.md` §2).

llama.cpp and vLLM call the same things by different names, and pass over what they do not know: each is asked in both languages at once, so that no
table of engines is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

from supervisor import chatml
from supervisor.errors import MalformedRequestError, SurfaceNotSupportedError
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer
from supervisor.gateway.losses import IncompleteAnswerError, said
from supervisor.gateway.surfaces import APPLY_TEMPLATE, DETOKENIZE, TOKENIZE
from supervisor.request_fields import check_messages, refuse, shown

LARGEST_TOKEN = 2**31 - 1
# vLLM renders a chat's template only on the way to its tokens.
_TOKENIZES_CHATS = "vllm"


class Asks(Protocol):
    """Whoever brings the engine's whole answer to a call: `passage.ask`."""

    async def __call__(self, call: Call, /) -> Answer: ...


class Tokenizer:
    """The tokenizer of the engine that a model's name leads to (None: the default). `headers` go with each question.

    MalformedRequestError for what it does not take, naming the field; else errors as those of `passage.ask`.
    """

    def __init__(self, ask: Asks, model: str | None, headers: Mapping[str, str]) -> None:
        self._ask = ask
        self._model = model
        self._headers = headers

    async def tokenize(self, text: object) -> list[int]:
        """The tokens of a text. Marks of the model's template in it are read as what they are; nothing is put before or after."""
        if not isinstance(text, str):
            raise refuse("text", f"must be a string, not {shown(text)}.")
        document = {"content": text, "prompt": text, "add_special": False, "add_special_tokens": False}
        return await self._tokens(document, "text")

    async def detokenize(self, tokens: object) -> str:
        """The text of tokens."""
        if not isinstance(tokens, list):
            raise refuse("tokens", f"must be a list of whole numbers, not {shown(tokens)}.")
        for index, token in enumerate(tokens):
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= LARGEST_TOKEN:
                raise refuse(f"tokens[{index}]", f"must be the number of a token, not {shown(token)}.")
        answer = await self._answer(DETOKENIZE, {"tokens": tokens}, "tokens")
        return self._text(answer.get("content", answer.get("prompt")), DETOKENIZE)

    async def chat_template(self, messages: object, add_generation_prompt: object = True) -> str:
        """The prompt that the engine makes of a conversation; that of ChatML where the engine has no template of its own."""
        check_messages(messages)
        if not isinstance(add_generation_prompt, bool):
            raise refuse("add_generation_prompt", f"must be true or false, not {shown(add_generation_prompt)}.")
        document = {"messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            answer = await self._answer(APPLY_TEMPLATE, document, "messages")
        except SurfaceNotSupportedError as refusal:
            if refusal.details.get("engine") == _TOKENIZES_CHATS:
                tokens = await self._tokens({**document, "add_special_tokens": False}, "messages")
                return await self.detokenize(tokens)
            assert isinstance(messages, list)
            return chatml.render(messages, add_generation_prompt=add_generation_prompt)
        return self._text(answer.get("prompt"), APPLY_TEMPLATE)

    async def _tokens(self, document: Mapping[str, Any], field: str) -> list[int]:
        tokens = (await self._answer(TOKENIZE, document, field)).get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise _not_understood(TOKENIZE)
        return tokens

    async def _answer(self, path: str, document: Mapping[str, Any], field: str) -> dict[str, Any]:
        """What the engine answers. Whatever it refuses is the fault of `field`: nothing else of the request can be."""
        named = document if self._model is None else {"model": self._model, **document}
        answer = await self._ask(Call(path, json.dumps(named).encode(), named, self._headers))
        if answer.status >= HTTPStatus.BAD_REQUEST:
            words = said(answer.body).get("message") or "no reason is given"
            raise MalformedRequestError(f"The engine does not take `{field}`: {words}", param=field)
        try:
            value = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise _not_understood(path) from None
        if not isinstance(value, dict):
            raise _not_understood(path)
        return value

    def _text(self, value: object, path: str) -> str:
        if not isinstance(value, str):
            raise _not_understood(path)
        return value


def _not_understood(path: str) -> IncompleteAnswerError:
    return IncompleteAnswerError(f"The engine's answer to {path} is not what that route is known to answer.")
