"""An engine's own errors, in OpenAI's shape; and those that only the configuration can mend."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.gateway.losses import openai_error, refusal_in


def test_an_openai_error_passes_as_it_is() -> None:
    body = b'{"error": {"message": "m", "type": "t", "param": null, "code": "c"}, "more": 1}'
    assert openai_error(body, 400) is body


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (
            b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":512}}',
            400,
            {
                "message": "too long. Send less, or raise `engine.ctx_size` of the instance.",
                "type": "exceed_context_size_error",
                "code": "exceed_context_size_error",
                "n_ctx": 512,
            },
        ),
        (
            b'{"object":"error","message":"m","type":"BadRequestError","code":400}',
            400,
            {"message": "m", "code": "BadRequestError"},
        ),
        (
            b'{"detail":"Not Found"}',
            404,
            {"message": "Not Found", "type": "not_found_error", "code": "engine_error"},
        ),
        (b'{"error":"plain words"}', 400, {"message": "plain words"}),
        (b"Internal Server Error\n", 500, {"message": "Internal Server Error", "type": "server_error"}),
        (b"\xff\xfe", 500, {"type": "server_error"}),
        (b"", 503, {"message": "The engine answered 503 without a word."}),
        (b"[1]", 500, {"message": "The engine answered 500 without a word."}),
        (b"[" * 100_000, 500, {"type": "server_error"}),
    ],
)
def test_any_other_error_is_put_into_its_shape(body: bytes, status: int, expected: dict[str, Any]) -> None:
    error = json.loads(openai_error(body, status))["error"]
    assert error.items() >= expected.items()
    assert isinstance(error["message"], str)
    assert isinstance(error["code"], str)
    assert error["param"] is None


@pytest.mark.parametrize(
    ("status", "message", "is_refusal"),
    [
        (500, "Failed to parse tools: Missing tool type: {}; tools = []", True),
        (500, "Failed to parse messages: [json.exception.type_error.302] type must be string, but is number", True),
        (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", True),
        (500, "audio input is not supported - hint: if this is unexpected, you may need to provide the mmproj", True),
        (500, "Failed to parse input at pos 3: x", False),
        (500, "It broke, and image input is not supported", False),
        (503, "Failed to parse tools: x", False),
        (400, "Failed to parse tools: x", False),
    ],
)
def test_a_bad_request_that_the_engine_calls_its_own_failure_is_a_refusal(
    status: int, message: str, *, is_refusal: bool
) -> None:
    body = json.dumps({"error": {"code": status, "message": message, "type": "server_error"}}).encode()
    refusal = refusal_in(status, body)
    assert (refusal is not None) is is_refusal
    if refusal is not None:
        error = json.loads(openai_error(refusal, 400))["error"]
        assert error["message"] == message
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request_error")


def test_a_failure_without_words_stays_one() -> None:
    assert refusal_in(500, b"") is None
    assert refusal_in(500, b"[1]") is None
