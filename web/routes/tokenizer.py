"""The tokenizer of a model: text to tokens, tokens to text, conversation to prompt (`contracts.md` §2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from supervisor.gateway.calls import check_model
from supervisor.gateway.passage import ask
from supervisor.gateway.tokenizer import Tokenizer
from web.bodies import read_json_object
from web.calling import caller_of, engine_headers
from web.keys import SUPERVISOR
from web.registry import Body, Policy, Reply, RouteTable, Schema
from web.schemas import BOOLEAN, INTEGER, STRING, array, described, record
from web.surface_schemas import MESSAGE_LIST, MODEL, refusals

routes = RouteTable("Tokenizer")

_TOKEN: Schema = {**INTEGER, "minimum": 0}


def _route(
    paths: tuple[str, ...], summary: str, takes: dict[str, Schema], answers: dict[str, Schema]
) -> Callable[[Handler], Handler]:
    """Register a handler on each of the paths."""
    optional = ("model", "add_generation_prompt")

    def register(handler: Handler) -> Handler:
        for path in paths:
            routes.route(
                "POST",
                path,
                summary=summary,
                policy=Policy.INFERENCE,
                body=Body(record({"model": MODEL, **takes}, optional_keys=optional)),
                responses={200: Reply("Done.", record(answers)), **refusals(path)},
            )(handler)
        return handler

    return register


@_route(("/v1/tokenize", "/encode"), "Text to tokens", {"text": STRING}, {"tokens": array(_TOKEN), "length": _TOKEN})
async def tokenize(request: web.Request) -> web.Response:
    """By the engine's own tokenizer. Marks of the model's template count as the tokens that they are; nothing is put before or after the text."""
    tokenizer, document = await _read(request)
    tokens = await tokenizer.tokenize(document.get("text"))
    return web.json_response({"tokens": tokens, "length": len(tokens)})


@_route(("/v1/detokenize", "/decode"), "Tokens to text", {"tokens": array(_TOKEN)}, {"text": STRING})
async def detokenize(request: web.Request) -> web.Response:
    """By the engine's own tokenizer. Tokens that end in the middle of a character do not give it."""
    tokenizer, document = await _read(request)
    return web.json_response({"text": await tokenizer.detokenize(document.get("tokens"))})


@_route(
    ("/v1/chat_template", "/chat_template"),
    "Conversation to prompt",
    {"messages": MESSAGE_LIST, "add_generation_prompt": described(BOOLEAN, "Begin the answer; true unless said.")},
    {"prompt": STRING},
)
async def chat_template(request: web.Request) -> web.Response:
    """By the model's own template, which the engine renders; by ChatML where the engine has no template. Nothing else of the request reaches the
    template."""
    tokenizer, document = await _read(request)
    prompt = await tokenizer.chat_template(document.get("messages"), document.get("add_generation_prompt", True))
    return web.json_response({"prompt": prompt})


async def _read(request: web.Request) -> tuple[Tokenizer, dict[str, Any]]:
    supervisor = request.app[SUPERVISOR]
    document = await read_json_object(request, supervisor.settings.server.max_body_bytes)
    route = supervisor.router.route(document, caller_of(request))
    model = check_model(document) if route is None else route.model
    ask_engine = partial(ask, supervisor.gateway, caller=caller_of(request))
    return Tokenizer(ask_engine, model, engine_headers(request)), document
