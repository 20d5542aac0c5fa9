"""Several answers to one request: what all of them used, and one answer out of their events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway.losses import IncompleteAnswerError
from supervisor.gateway.several import Several, as_stream, failure_in, joined
from supervisor.storage.records import TokenSource, TokenUsage

DONE = b"data: [DONE]\n\n"
ENVELOPE = {"id": "c1", "created": 7, "model": "demo", "object": "chat.completion.chunk"}


def event(*choices: dict[str, Any], **fields: Any) -> bytes:
    """An event as llama.cpp writes it."""
    text = json.dumps({"choices": list(choices), **ENVELOPE, **fields}, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def said(index: int, text: str | None, finish: str | None = None) -> dict[str, Any]:
    """A choice of a chat."""
    delta = {"role": "assistant", "content": None} if text is None else {"content": text} if finish is None else {}
    return {"finish_reason": finish, "index": index, "delta": delta}


def written(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
    """A choice of a completion."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """OpenAI's object."""
    details = {"cached_tokens": cached}
    return {"completion_tokens": completion, "prompt_tokens": prompt, "prompt_tokens_details": details}


def progress(processed: int, cache: int) -> dict[str, Any]:
    """llama.cpp's object."""
    return {"total": 18, "cache": cache, "processed": processed, "time_ms": 0}


CHAT = [
    event(said(0, None), prompt_progress=progress(3, 0)),
    event(said(0, None), prompt_progress=progress(18, 0)),
    event(said(0, None)),
    event(said(0, "a")),
    event(said(1, None), prompt_progress=progress(18, 17)),
    event(said(1, None)),
    event(said(1, "x")),
    event(said(0, "b")),
    event(said(0, "", "stop")),
    event(usage=usage(18, 3, 0)),
    event(said(1, "", "length")),
    event(usage=usage(18, 2, 17)),
    DONE,
]
TEXTS = [
    event(written(0, ""), prompt_progress=progress(5, 1)),
    event(written(0, "a")),
    event(written(2, ""), prompt_progress=progress(9, 0)),
    event(written(0, "", "stop"), usage=usage(5, 1, 1)),
    event(written(1, "b")),
    event(written(1, "", "stop"), usage=usage(5, 2, 4)),
    event(written(2, "c")),
    event(written(3, "", "stop"), usage=usage(9, 4, 8)),
    event(written(2, "", "stop"), usage=usage(9, 8, 0)),
    DONE,
]


@given(st.sets(st.integers(1, len(CHAT) - 1)))
def test_a_prompt_counts_once_and_every_choice_its_own(cuts: set[int]) -> None:
    several = Several(hides=True, choices=2)
    starts = [0, *sorted(cuts)]
    kept = b"".join(
        several.take(b"".join(CHAT[start:end])) for start, end in zip(starts, [*starts[1:], None], strict=True)
    )
    assert kept == b"".join(one for one in CHAT if b"prompt_progress" not in one)
    assert several.told == TokenUsage(18, 5, 0, TokenSource.ENGINE)
    assert not several.is_over
    # Three of the events that are no comments and no end have text.
    assert len(CHAT) - 1 - several.events == 3


def test_each_prompt_of_a_list_counts() -> None:
    several = Several(hides=False, choices=2)
    assert several.take(b"".join(TEXTS)) == b"".join(TEXTS)
    assert several.told == TokenUsage(14, 15, 1, TokenSource.ENGINE)


def test_of_a_stream_that_is_cut_the_prompts_that_were_read_are_known() -> None:
    several = Several(hides=True, choices=2)
    several.take(b"".join(TEXTS[:3]))
    assert several.told is None
    assert (several.read_tokens, several.cached_tokens, several.events) == (14, 1, 2)


def test_a_stream_is_asked_for_with_its_figures() -> None:
    asked = json.loads(as_stream({"n": 2, "stream": False, "return_progress": False, "seed": 1}))
    figures = {"stream_options": {"include_usage": True}, "return_progress": True}
    assert asked == {"n": 2, "seed": 1, "stream": True, **figures}


def test_choices_are_joined_as_they_would_have_been_in_one_piece() -> None:
    answer = json.loads(joined(b": ping\n\n" + b"".join(CHAT), TokenUsage(18, 5, 0, TokenSource.ENGINE)))
    assert answer == {
        "id": "c1",
        "created": 7,
        "model": "demo",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ab"}},
            {"index": 1, "finish_reason": "length", "message": {"role": "assistant", "content": "x"}},
        ],
        "usage": {**usage(18, 5, 0), "total_tokens": 23},
    }
    texts = json.loads(joined(b"".join(TEXTS), None))["choices"]
    assert texts == [written(index, text, "stop") for index, text in enumerate(["a", "b", "c", ""])]


def test_calls_of_tools_reasoning_and_log_probabilities_are_joined() -> None:
    def call(index: int, **fields: Any) -> dict[str, Any]:
        return {"index": 0, "finish_reason": None, "delta": {"tool_calls": [{"index": index, **fields}]}}

    stream = [
        event(said(0, None)),
        event({"index": 0, "delta": {"reasoning_content": "h"}}),
        event({"index": 0, "delta": {"reasoning_content": "m"}, "logprobs": {"content": [{"token": "h"}]}}),
        event(call(0, id="1", type="function", function={"name": "f", "arguments": ""})),
        event(call(0, function={"arguments": '{"a":'}), call(1, id="2", function={"name": "g", "arguments": "{}"})),
        event({**call(0, function={"arguments": "1}"}), "logprobs": {"content": [{"token": "m"}]}}),
        event(said(0, "", "tool_calls")),
    ]
    (choice,) = json.loads(joined(b"".join(stream), None))["choices"]
    assert choice == {
        "index": 0,
        "finish_reason": "tool_calls",
        "logprobs": {"content": [{"token": "h"}, {"token": "m"}]},
        "message": {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"id": "2", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
    }


@given(st.lists(st.tuples(st.integers(0, 3), st.text()), max_size=20))
def test_every_choice_has_its_own_text(pieces: list[tuple[int, str]]) -> None:
    stream = b"".join(event(said(index, text)) for index, text in pieces)
    choices = json.loads(joined(stream, None))["choices"]
    assert [choice["index"] for choice in choices] == sorted({index for index, _ in pieces})
    for choice in choices:
        text = "".join(text for index, text in pieces if index == choice["index"])
        assert choice["message"]["content"] == text


@pytest.mark.parametrize(
    ("stream", "status", "error"),
    [
        (CHAT[0] + b'data: {"error":{"code":400,"message":"too long"}}\n\n', 400, {"code": 400, "message": "too long"}),
        (b'error: {"code":503,"message":"away"}\n\n', 503, {"code": 503, "message": "away"}),
        (b'data: {"error":{"code":"oops"}}\n\n', 500, {"code": "oops"}),
        (b'data: {"error":"oops"}\n\n', 500, "oops"),
    ],
)
def test_what_went_wrong_is_an_error_with_a_status(stream: bytes, status: int, error: object) -> None:
    told, body = failure_in(stream)
    assert (told, json.loads(body)) == (status, {"error": error})


@pytest.mark.parametrize(
    "choice", [{"text": "a"}, {"index": 0, "delta": "a"}, "a", {"index": 0, "delta": {"tool_calls": 1}}]
)
def test_events_that_are_not_the_engines_make_no_answer(choice: Any) -> None:
    with pytest.raises(IncompleteAnswerError):
        joined(event(choice), None)
