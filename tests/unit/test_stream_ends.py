"""Streams of other surfaces than OpenAI's completions: their own last word, their own failures, their own way of telling tokens."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway.calls import CHAT, MESSAGES, RESPONSES
from supervisor.gateway.sse import StreamJudge
from supervisor.gateway.stream_ends import StreamEnd
from supervisor.gateway.surfaces import SURFACES, surface_of

DONE = b"data: [DONE]\n\n"


def event(kind: str, **fields: Any) -> bytes:
    """An event as both APIs write it."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(text: str) -> bytes:
    """A piece of an Anthropic answer."""
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


MESSAGE = (
    event("message_start", message={"usage": {"input_tokens": 3, "cache_read_input_tokens": 8, "output_tokens": 0}})
    + event("ping")
    + delta("Hello")
    + delta('"message_stop" {"type":"message_stop"}')
    + event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2})
    + event("message_stop")
)
RESPONSE = (
    event("response.created", response={"id": "a", "error": None, "usage": None})
    + event("response.output_text.delta", delta='data: {"type": "response.completed"}')
    + event("response.output_text.done", text="x")
    + event("response.completed", response={"error": None, "usage": {"input_tokens": 9, "output_tokens": 1}})
)
WHOLE = {MESSAGES: MESSAGE, RESPONSES: RESPONSE}
LAST_WORD = {MESSAGES: "message_stop", RESPONSES: "response.completed or response.incomplete"}


def judge(end: StreamEnd, *chunks: bytes) -> tuple[StreamJudge, bytes]:
    """Feed chunks to the end; the judge, and what it let through."""
    judge = StreamJudge(end)
    passed = b"".join(judge.feed(chunk) for chunk in chunks)
    judge.finish()
    return judge, passed


@pytest.mark.parametrize("path", WHOLE)
def test_a_whole_stream_is_a_success_and_passes_unchanged(path: str) -> None:
    verdict, passed = judge(surface_of(path).end, WHOLE[path])
    assert verdict.is_success
    assert passed == WHOLE[path]


@pytest.mark.parametrize("path", WHOLE)
def test_only_what_brings_text_is_counted(path: str) -> None:
    assert judge(surface_of(path).end, WHOLE[path])[0].events == {MESSAGES: 2, RESPONSES: 1}[path]


@pytest.mark.parametrize("path", WHOLE)
def test_events_need_no_name(path: str) -> None:
    end = surface_of(path).end
    unnamed, _ = judge(end, *(line + b"\n\n" for line in WHOLE[path].splitlines() if line.startswith(b"data: ")))
    assert unnamed.is_success
    assert unnamed.events == judge(end, WHOLE[path])[0].events


@pytest.mark.parametrize("kind", ["message_stop", "error"])
def test_only_the_type_of_an_event_tells_what_it_is(kind: str) -> None:
    verdict, _ = judge(surface_of(MESSAGES).end, event("content_block_start", content_block={"name": kind}))
    assert not verdict.is_done
    assert not verdict.has_error


@pytest.mark.parametrize("path", WHOLE)
@given(data=st.data())
def test_a_stream_that_is_cut_is_never_a_success(path: str, data: st.DataObject) -> None:
    stream = WHOLE[path]
    length = data.draw(st.integers(0, len(stream) - 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=4)))
    pieces = [stream[start:end] for start, end in itertools.pairwise([0, *cuts, length])]
    verdict, passed = judge(surface_of(path).end, *pieces)
    assert not verdict.is_success
    assert not verdict.is_done
    assert verdict.fault is not None
    assert stream.startswith(passed)


@pytest.mark.parametrize("path", WHOLE)
def test_what_is_missing_is_named(path: str) -> None:
    end = surface_of(path).end
    for stream in (event("ping"), event("ping") + DONE):
        verdict, _ = judge(end, stream)
        assert verdict.fault == f"it ended without {LAST_WORD[path]}"
        assert not verdict.is_done


@pytest.mark.parametrize("path", WHOLE)
def test_one_done_may_follow_the_end_and_nothing_else(path: str) -> None:
    end = surface_of(path).end
    assert judge(end, WHOLE[path] + DONE)[0].is_success
    for more in (DONE + DONE, event("ping"), DONE + event("ping"), WHOLE[path]):
        assert not judge(end, WHOLE[path] + more)[0].is_success


@pytest.mark.parametrize(
    ("path", "failure"),
    [
        (MESSAGES, event("error", error={"type": "overloaded_error", "message": "m"})),
        (MESSAGES, b'event: error\ndata: {"code":500,"message":"m","type":"server_error"}\n\n'),
        (RESPONSES, event("error", code="server_error", message="m")),
        (RESPONSES, event("response.failed", response={"status": "failed", "error": {"message": "m"}})),
        (RESPONSES, b'data: {"error":{"code":500,"message":"m"}}\n\n'),
    ],
)
def test_a_failure_in_the_stream_is_no_success(path: str, failure: bytes) -> None:
    begun = WHOLE[path].partition(b"\n\n")[0] + b"\n\n"
    for stream in (begun + failure, begun + failure + DONE):
        verdict, passed = judge(surface_of(path).end, stream)
        assert verdict.has_error
        assert not verdict.is_success
        assert verdict.fault is None
        assert passed == stream


def test_an_answer_cut_short_by_its_limit_is_whole() -> None:
    stream = event("response.incomplete", response={"usage": {"input_tokens": 1, "output_tokens": 2}})
    assert judge(surface_of(RESPONSES).end, stream)[0].is_success


def test_other_surfaces_end_with_done() -> None:
    stream = b'data: {"type":"message_stop"}\n\n'
    assert not judge(surface_of(CHAT).end, stream)[0].is_success
    assert judge(surface_of(CHAT).end, stream + DONE)[0].is_success
    assert judge(surface_of("/anything").end, stream + DONE)[0].is_success


def test_every_surface_has_a_name_of_its_own() -> None:
    names = [surface.name for surface in SURFACES.values()]
    assert len(set(names)) == len(names)


def test_the_whole_usage_of_an_anthropic_stream_is_gathered() -> None:
    verdict, _ = judge(surface_of(MESSAGES).end, MESSAGE)
    assert json.loads(verdict._figures) == {
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 8, "output_tokens": 2}
    }
