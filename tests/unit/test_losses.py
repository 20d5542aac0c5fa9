"""An engine's own errors, in OpenAI's shape; and those that only the configuration can mend."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.gateway.losses import openai_error


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
