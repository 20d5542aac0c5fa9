"""What an engine or Llamavisor says of a failure, in the words of the route; and what an engine does not have."""

from __future__ import annotations

import json

import pytest

from supervisor.errors import EngineDiedError, LlamavisorError, MalformedRequestError, SurfaceNotSupportedError
from supervisor.gateway.calls import CHAT, COUNT_TOKENS, MESSAGES, RERANK, RESPONSES
from supervisor.gateway.dialects import engine_error
from supervisor.gateway.surfaces import check_supported
from web.dialects import error_document, error_event

LLAMA = b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":2048}}'


def test_an_engines_error_is_told_as_anthropic_would_on_its_routes() -> None:
    error = {
        "type": "invalid_request_error",
        "message": "too long. Send less, or raise `engine.ctx_size` of the instance.",
        "code": "exceed_context_size_error",
    }
    for path in (MESSAGES, COUNT_TOKENS):
        assert json.loads(engine_error(path, LLAMA, 400)) == {"type": "error", "error": error}
    assert json.loads(engine_error(CHAT, LLAMA, 400))["error"]["code"] == "exceed_context_size_error"


@pytest.mark.parametrize(("body", "message"), [(b"", "The engine answered 500 without a word."), (b"oops", "oops")])
def test_an_engine_without_words(body: bytes, message: str) -> None:
    assert json.loads(engine_error(MESSAGES, body, 500)) == {
        "type": "error",
        "error": {"type": "api_error", "message": message},
    }


def test_an_engine_that_speaks_anthropics_words_is_quoted() -> None:
    body = b'{"type": "error", "error": {"type": "overloaded_error", "message": "m"}, "request_id": "r"}'
    assert engine_error(MESSAGES, body, 529) == body


def test_our_own_errors() -> None:
    error = MalformedRequestError("No.", param="messages")
    assert error_document(MESSAGES, error) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "No.", "code": "invalid_request"},
    }
    assert error_document(CHAT, error)["error"]["param"] == "messages"
    assert error_document(MESSAGES, LlamavisorError("No.", code="x"))["error"]["type"] == "api_error"


def test_an_error_in_a_stream_is_an_event_of_the_route() -> None:
    error = EngineDiedError("It died.")
    assert error_event(CHAT, error).startswith(b'data: {"error": {"message": "It died."')
    name, data = error_event(MESSAGES, error).split(b"\n", 1)
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["error"]["message"] == "It died."
    name, data = error_event(RESPONSES, error).split(b"\n", 1)
    assert name == b"event: error"
    told = json.loads(data.removeprefix(b"data: "))
    assert (told["type"], told["code"], told["message"]) == ("error", "engine_died", "It died.")
    assert told["error"]["code"] == "engine_died"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}'),
        (404, b'{"detail":"Not Found"}'),
        (404, b""),
        (405, b'{"detail":"Method Not Allowed"}'),
        (501, b'{"error":{"code":501,"message":"Start it with `--reranking`","type":"not_supported_error"}}'),
    ],
)
def test_a_route_that_an_engine_lacks(status: int, body: bytes) -> None:
    with pytest.raises(SurfaceNotSupportedError) as refusal:
        check_supported("one", "embedded", RERANK, status, body)
    assert refusal.value.details == {"instance": "one", "engine": "embedded"}
    assert "`pooling: rank`" in str(refusal.value)
    assert ("Start it with" in str(refusal.value)) == (status == 501)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}'),
        (400, b'{"detail":"Not Found"}'),
        (500, b""),
    ],
)
def test_other_refusals_are_none_of_that(status: int, body: bytes) -> None:
    check_supported("one", "vllm", RERANK, status, body)
