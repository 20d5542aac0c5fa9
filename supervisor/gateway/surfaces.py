"""The surfaces of the door: what each is called, in whose words it speaks, how its streams end, and which engines have it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from supervisor.errors import SurfaceNotSupportedError
from supervisor.gateway import calls
from supervisor.gateway.losses import said
from supervisor.gateway.stream_ends import MESSAGES_END, OPENAI_END, RESPONSES_END, StreamEnd

TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"
APPLY_TEMPLATE = "/apply-template"
_LLAMA = "llama.cpp (`embedded`, `llama-server`)"
_BOTH = f"{_LLAMA} and vLLM"


class Dialect(StrEnum):
    """In whose words errors are told."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Surface:
    """One kind of request to an engine. `name` is what the books call it; `engines` goes on from "It is in".

    `is_free`: it uses no tokens; `generates`: the tokens that it uses are not those of the request alone.
    """

    name: str
    engines: str
    dialect: Dialect = Dialect.OPENAI
    end: StreamEnd = OPENAI_END
    has_stream_options: bool = False
    is_free: bool = False
    generates: bool = True


SURFACES: Mapping[str, Surface] = {
    calls.CHAT: Surface("chat", _BOTH, has_stream_options=True),
    calls.COMPLETIONS: Surface("completions", _BOTH, has_stream_options=True),
    calls.EMBEDDINGS: Surface(
        "embeddings", f"{_LLAMA} with `embedding: true`, and vLLM with an embedding model", generates=False
    ),
    calls.RERANK: Surface(
        "rerank",
        f"{_LLAMA} with `embedding: true` and `pooling: rank`, and vLLM, both with a reranking model",
        generates=False,
    ),
    calls.RESPONSES: Surface("responses", _BOTH, Dialect.RESPONSES, RESPONSES_END),
    calls.MESSAGES: Surface("messages", _BOTH, Dialect.ANTHROPIC, MESSAGES_END),
    calls.COUNT_TOKENS: Surface("count_tokens", _BOTH, Dialect.ANTHROPIC, is_free=True),
    TOKENIZE: Surface("tokenize", _BOTH, is_free=True),
    DETOKENIZE: Surface("detokenize", _BOTH, is_free=True),
    APPLY_TEMPLATE: Surface("chat_template", _LLAMA, is_free=True),
}
_ELSEWHERE = Surface("other", _BOTH)


def surface_of(path: str) -> Surface:
    """The surface of an engine's route; of one that is not in the table, something with OpenAI's habits."""
    return SURFACES.get(path, _ELSEWHERE)


def check_supported(instance: str, engine: str, path: str, status: int, body: bytes) -> None:
    """Raise SurfaceNotSupportedError when an engine's answer says that it has no such route, or has it switched off.

    An unknown model is also told by 404, but then the answer speaks of a model.
    """
    is_missing = status in (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
    if not is_missing and (status != HTTPStatus.NOT_FOUND or b"model" in body.lower()):
        return
    words = str(said(body).get("message") or "") if status == HTTPStatus.NOT_IMPLEMENTED else ""
    raise SurfaceNotSupportedError(
        f"The engine of {instance} ({engine}) does not serve {path}{f': {words}' if words else ''}.".replace("..", "."),
        remedy=f"It is in {surface_of(path).engines}.",
        details={"instance": instance, "engine": engine},
    )
