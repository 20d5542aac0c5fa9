"""What the routes to engines take and answer, for OpenAPI: only what Llamavisor itself checks or says; the rest is the engine's."""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.gateway.calls import CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RERANK, RESPONSES
from supervisor.gateway.surfaces import Dialect, surface_of
from supervisor.request_fields import ROLES
from web.registry import Reply, Schema
from web.schemas import BOOLEAN, INTEGER, NUMBER, STRING, WHO_PAYS, array, described, ref

MODEL: Schema = described(STRING, "An instance's name, a model's id, a tier or `auto`; left out, the default instance.")
MESSAGE: Schema = {
    "type": "object",
    "properties": {"role": {"type": "string", "enum": list(ROLES)}},
    "required": ["role"],
}
MESSAGE_LIST: Schema = {**array(MESSAGE), "minItems": 1}
_STREAM: Schema = described(BOOLEAN, "Answer in server-sent events, as the engine sends them.")
_SAMPLING: dict[str, Schema] = {
    "model": MODEL,
    "stream": _STREAM,
    "temperature": {**NUMBER, "minimum": 0, "maximum": 2},
    "top_p": {**NUMBER, "minimum": 0, "maximum": 1},
    "top_k": {**INTEGER, "minimum": 1},
    "max_tokens": {**INTEGER, "minimum": 1},
    "repeat_penalty": {**NUMBER, "minimum": 0},
}
_RESPONSES: dict[str, Schema] = {
    "input": described({}, "Text, or a list of items."),
    "max_output_tokens": {**INTEGER, "minimum": 1},
    **{name: schema for name, schema in _SAMPLING.items() if name != "max_tokens"},
}
_FLAT: dict[str, Schema] = {
    "project_id": described(STRING, f"{WHO_PAYS} Its presence asks for the answer in the flat dialect."),
    "timeout": {
        **NUMBER,
        "minimum": 1,
        "maximum": 300,
        "description": "Seconds; its presence asks for the answer in the flat dialect.",
    },
}


def _object(properties: dict[str, Schema], *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


_HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
BODIES: Mapping[str, Schema] = {
    CHAT: {
        **_object({"messages": MESSAGE_LIST, **_SAMPLING, **_FLAT}, "messages"),
        "examples": [_HELLO, {**_HELLO, "stream": True}],
    },
    COMPLETIONS: {
        **_object({"prompt": {}, **_SAMPLING}),
        "examples": [{"prompt": "The capital of", "max_tokens": 16}],
    },
    EMBEDDINGS: {**_object({"input": {}, "model": MODEL}), "examples": [{"input": ["One text.", "Another."]}]},
    RERANK: _object({"query": STRING, "documents": array(STRING), "top_n": INTEGER, "model": MODEL}, "query"),
    RESPONSES: _object(_RESPONSES, "input"),
    MESSAGES: _object({"messages": MESSAGE_LIST, "system": {}, **_SAMPLING}, "messages"),
    COUNT_TOKENS: _object({"messages": MESSAGE_LIST, "system": {}, "model": MODEL}, "messages"),
}


def answer_schema(path: str) -> Schema:
    """The shape of the answers of a route, as far as it is not the engine's."""
    engines: Schema = {"type": "object"}
    return {"anyOf": [engines, ref("FlatAnswer")]} if path == CHAT else engines


def error_schema(path: str) -> Schema:
    """The shape of the errors of a route."""
    return ref("AnthropicError" if surface_of(path).dialect is Dialect.ANTHROPIC else "Error")


def refusals(path: str) -> dict[int, Reply]:
    """What may be answered instead of an engine's answer."""
    meanings = {
        400: "The request breaks the contract, or the engine refuses it; `error.param` names the field.",
        404: "No such model; the message has the nearest.",
        408: "The body was not complete within `server.body_deadline_seconds`.",
        413: "The body exceeds `server.max_body_bytes`.",
        429: "A limit or a budget is reached, too many wait, or the engine has too much to do.",
        500: "The engine failed over it, or a defect of the server's own; its log has more.",
        501: "The engine does not have this route, or has it switched off; the message says which have it.",
        502: "The engine died, or its answer is not complete.",
        503: "Not ready now; `Retry-After` says when to come back, if it comes back by itself.",
        504: "The engine said nothing for `server.upstream_idle_seconds`.",
    }
    return {status: Reply(meaning, error_schema(path)) for status, meaning in meanings.items()}
