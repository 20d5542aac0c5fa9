"""The routes of a `linejson` server: what clients ask in OpenAI's words, said to the pair in theirs."""

from __future__ import annotations

import json
import select
import socket
import socketserver
import time
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

from supervisor import chatml
from supervisor.engines.linejson_pair import ClientGoneError, Pair, PairError
from supervisor.errors import LlamavisorError, MalformedRequestError
from supervisor.request_fields import refuse, shown

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
BODY_LIMIT_BYTES = 64 * 1024**2
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
# OpenAI's name of each parameter that the protocol has.
PARAMS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "repeat_penalty": "repeat_penalty",
}

# What the protocol has no words for, and an answer without it would be another one than was asked for.
UNKNOWN = (
    "stop",
    "tools",
    "functions",
    "response_format",
    "logprobs",
    "logit_bias",
    "grammar",
    "json_schema",
    "echo",
    "suffix",
)
_NOTHING: tuple[object, ...] = ([], {}, "", {"type": "text"})


class Service:
    """What the routes need: the pair, and what the model is called."""

    def __init__(self, pair: Pair, model_id: str, parallel: int) -> None:
        self.pair = pair
        self.model_id = model_id
        self.parallel = parallel
        self.created = int(time.time())


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens on a port of loopback. A thread a connection."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, address: Any, service: Service) -> None:
        self.service = service
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no news."""


class UnixServer(Server):
    """Listens on a Unix socket that only we may connect to."""

    address_family = socket.AF_UNIX


def listen(host: str, port: int, service: Service) -> Server:
    """The server, listening. OSError."""
    if not host.endswith(".sock"):
        return Server((host, port), service)
    Path(host).unlink(missing_ok=True)
    return UnixServer(host, service)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def address_string(self) -> str:
        """Unix sockets have none."""
        return "client"

    def log_message(self, *_: object) -> None:
        """The supervisor counts requests."""

    def do_GET(self) -> None:
        """See `GETS`."""
        self._dispatch(GETS)

    def do_POST(self) -> None:
        """See `POSTS`."""
        self._dispatch(POSTS)

    @property
    def service(self) -> Service:
        """See `Service`."""
        return self.server.service

    def _dispatch(self, routes: Mapping[str, Callable[[Handler, Mapping[str, Any]], None]]) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), BODY_LIMIT_BYTES))
        route = routes.get(self.path.partition("?")[0])
        try:
            if route is None:
                self.answer(
                    {"error": {"message": f"There is no {self.path}.", "type": "not_found_error"}}, HTTPStatus.NOT_FOUND
                )
            else:
                route(self, _object(body))
        except LlamavisorError as error:
            words = {"message": str(error), "type": "invalid_request_error", "param": error.param, "code": error.code}
            self.answer({"error": words}, HTTPStatus(error.status))
        except PairError as error:
            words = {"message": str(error), "type": "server_error", "param": None, "code": "engine_error"}
            self.answer({"error": words}, HTTPStatus.INTERNAL_SERVER_ERROR)
        except (ClientGoneError, ConnectionError):
            # Of a model that broke off, the end of our connection is the news: why it ended, the supervisor knows.
            self.close_connection = True

    def answer(self, document: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        """A whole answer."""
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, events: list[Mapping[str, Any]]) -> None:
        """A stream, whose events are all there."""
        payloads = [*(json.dumps(event).encode() for event in events), b"[DONE]"]
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"".join(b"data: %b\n\n" % payload for payload in payloads))
        self.close_connection = True

    def is_gone(self) -> bool:
        """Whether the client has closed its side."""
        connection = cast(socket.socket, self.connection)
        if not select.select([connection], [], [], 0)[0]:
            return False
        return not connection.recv(1, socket.MSG_PEEK)


def _object(body: bytes) -> Mapping[str, Any]:
    if not body:
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise MalformedRequestError("The body must be a JSON object.")
    return document


def health(handler: Handler, _: Mapping[str, Any]) -> None:
    """200 once both can serve."""
    if handler.service.pair.is_ready:
        handler.answer({"status": "ok"})
    else:
        handler.answer(LOADING, HTTPStatus.SERVICE_UNAVAILABLE)


def parts(handler: Handler, _: Mapping[str, Any]) -> None:
    """The process id of each of the pair."""
    handler.answer({name: member.process.pid for name, member in handler.service.pair.members.items()})


def slots(handler: Handler, _: Mapping[str, Any]) -> None:
    """As many as requests are worked on at once."""
    handler.answer([{"id": number} for number in range(handler.service.parallel)])


def models(handler: Handler, _: Mapping[str, Any]) -> None:
    """The one model."""
    service = handler.service
    model = {"id": service.model_id, "object": "model", "created": service.created, "owned_by": "linejson"}
    handler.answer({"object": "list", "data": [model]})


def chat(handler: Handler, document: Mapping[str, Any]) -> None:
    """A chat completion; the prompt is rendered by ChatML."""
    check_known(document)
    prompt = chatml.render(cast("list[Any]", document.get("messages")))
    text, usage, finish = _generated(handler, document, prompt)
    text = text.removesuffix(chatml.END)
    if document.get("stream") is True:
        first = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
        last = {"index": 0, "delta": {}, "finish_reason": finish}
        handler.stream(_events(handler, document, "chat.completion.chunk", [first, last], usage))
        return
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    handler.answer({**_envelope(handler, "chat.completion"), "choices": [choice], "usage": usage})


def complete(handler: Handler, document: Mapping[str, Any]) -> None:
    """A completion of one prompt."""
    check_known(document)
    prompt = document.get("prompt")
    if not isinstance(prompt, str):
        raise refuse("prompt", f"must be a string, not {shown(prompt)}.")
    text, usage, finish = _generated(handler, document, prompt)
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    if document.get("stream") is True:
        handler.stream(_events(handler, document, "text_completion", [choice], usage))
        return
    handler.answer({**_envelope(handler, "text_completion"), "choices": [choice], "usage": usage})


def check_known(document: Mapping[str, Any]) -> None:
    """Raise MalformedRequestError that names a field, if the protocol cannot ask for what it holds; one that asks for nothing may be there."""
    for name in ("n", "n_cmpl", "best_of"):
        if document.get(name) not in (None, 1):
            raise refuse(name, "must be 1: the engine linejson gives one answer to a request.")
    for name in UNKNOWN:
        value = document.get(name)
        if not (value is None or value is False or value in _NOTHING):
            raise refuse(name, f"is not for the engine linejson, which takes only {', '.join(PARAMS)}.")


def tokenize(handler: Handler, document: Mapping[str, Any]) -> None:
    """The tokens of `content`."""
    content = document.get("content")
    if not isinstance(content, str):
        raise refuse("content", f"must be a string, not {shown(content)}.")
    handler.answer({"tokens": handler.service.pair.encode(content)})


def detokenize(handler: Handler, document: Mapping[str, Any]) -> None:
    """The text of `tokens`."""
    tokens = document.get("tokens")
    if not isinstance(tokens, list):
        raise refuse("tokens", f"must be a list, not {shown(tokens)}.")
    handler.answer({"content": handler.service.pair.decode(tokens)})


def apply_template(handler: Handler, document: Mapping[str, Any]) -> None:
    """The prompt of `messages`, by ChatML."""
    begins = document.get("add_generation_prompt", True) is True
    handler.answer({"prompt": chatml.render(cast("list[Any]", document.get("messages")), add_generation_prompt=begins)})


def _generated(handler: Handler, document: Mapping[str, Any], prompt: str) -> tuple[str, Mapping[str, int], str]:
    """The text, its usage by the tokenizer's own count, and why it ended: `length` when it has as many tokens as were allowed."""
    pair = handler.service.pair
    if not pair.is_ready:
        raise PairError("The pair of processes is not ready.")
    params = {name: document[given] for given, name in PARAMS.items() if document.get(given) is not None}
    prompt_tokens = len(pair.encode(prompt))
    text = pair.generate(prompt, params, handler.is_gone)
    completion_tokens = len(pair.encode(text))
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    limit = params.get("max_tokens")
    return text, usage, "length" if isinstance(limit, int) and completion_tokens >= limit else "stop"


def _envelope(handler: Handler, kind: str) -> dict[str, Any]:
    service = handler.service
    return {"id": f"lj-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": service.model_id}


def _events(
    handler: Handler, document: Mapping[str, Any], kind: str, choices: list[Any], usage: Mapping[str, int]
) -> list[Mapping[str, Any]]:
    envelope = _envelope(handler, kind)
    events: list[Mapping[str, Any]] = [{**envelope, "choices": [choice]} for choice in choices]
    options = document.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        events.append({**envelope, "choices": [], "usage": usage})
    return events


GETS: Mapping[str, Callable[[Handler, Mapping[str, Any]], None]] = {
    "/health": health,
    "/parts": parts,
    "/slots": slots,
    "/v1/models": models,
}
POSTS: Mapping[str, Callable[[Handler, Mapping[str, Any]], None]] = {
    CHAT: chat,
    COMPLETIONS: complete,
    "/tokenize": tokenize,
    "/detokenize": detokenize,
    "/apply-template": apply_template,
}
