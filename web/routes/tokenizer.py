"""The tokenizer of a model: text to tokens, tokens to text, conversation to prompt (`contracts.md` §2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from supervisor.gateway.calls import check_model
from supervisor.gateway.passage import ask
from supervisor.gateway.tokenizer import Tokenizer
from web.bodies import parse_json_object
from web.calling import caller_of, engine_headers
from web.idempotency import KEY_PARAMETER, REPEATED, json_once
from web.keys import SUPERVISOR
from web.registry import Body, Policy, Reply, RouteTable, Schema
from web.schemas import BOOLEAN, INTEGER, STRING, array, described, record
from web.surface_schemas import MESSAGE_LIST, MODEL, refusals

routes = RouteTable("Tokenizer")

_TOKEN: Schema = {**INTEGER, "minimum": 0}


Answer = Callable[[Tokenizer, Mapping[str, Any]], Awaitable[dict[str, Any]]]


def _route(
    paths: tuple[str, ...], summary: str, takes: dict[str, Schema], answers: dict[str, Schema]
) -> Callable[[Answer], Handler]:
    """Register on each of the paths what makes an answer of the request's document."""
    optional = ("model", "add_generation_prompt")

    def register(answer: Answer) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await json_once(request, lambda body: answer(*_read(request, body)))

        handle.__doc__ = answer.__doc__
        for path in paths:
            routes.route(
                "POST",
                path,
                summary=summary,
                policy=Policy.INFERENCE,
                parameters=(KEY_PARAMETER,),
                body=Body(record({"model": MODEL, **takes}, optional_keys=optional)),
                responses={200: Reply("Done.", record(answers)), **refusals(path), **REPEATED},
            )(handle)
        return handle

    return register


@_route(("/v1/tokenize", "/encode"), "Text to tokens", {"text": STRING}, {"tokens": array(_TOKEN), "length": _TOKEN})
async def tokenize(tokenizer: Tokenizer, document: Mapping[str, Any]) -> dict[str, Any]:
    """By the engine's own tokenizer. Marks of the model's template count as the tokens that they are; nothing is put before or after the text."""
    tokens = await tokenizer.tokenize(document.get("text"))
    return {"tokens": tokens, "length": len(tokens)}


@_route(("/v1/detokenize", "/decode"), "Tokens to text", {"tokens": array(_TOKEN)}, {"text": STRING})
async def detokenize(tokenizer: Tokenizer, document: Mapping[str, Any]) -> dict[str, Any]:
    """By the engine's own tokenizer. Tokens that end in the middle of a character do not give it."""
    return {"text": await tokenizer.detokenize(document.get("tokens"))}


@_route(
    ("/v1/chat_template", "/chat_template"),
    "Conversation to prompt",
    {"messages": MESSAGE_LIST, "add_generation_prompt": described(BOOLEAN, "Begin the answer; true unless said.")},
    {"prompt": STRING},
)
async def chat_template(tokenizer: Tokenizer, document: Mapping[str, Any]) -> dict[str, Any]:
    """By the model's own template, which the engine renders; by ChatML where the engine has no template. Nothing else of the request reaches the
    template."""
    begins = document.get("add_generation_prompt", True)
    return {"prompt": await tokenizer.chat_template(document.get("messages"), begins)}


def _read(request: web.Request, body: bytes) -> tuple[Tokenizer, dict[str, Any]]:
    supervisor, document = request.app[SUPERVISOR], parse_json_object(body)
    route = supervisor.router.route(document, caller_of(request))
    model = check_model(document) if route is None else route.model
    ask_engine = partial(ask, supervisor.gateway, caller=caller_of(request))
    return Tokenizer(ask_engine, model, engine_headers(request)), document
