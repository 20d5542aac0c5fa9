"""The engine's token counts: asked for, read, hidden."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway.usage_events import (
    Prelude,
    asks_for_usage,
    usage_told,
    with_figures_asked,
    without_usage_event,
)
from supervisor.storage.records import TokenSource, TokenUsage

TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens": 42,"total_tokens":45}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("body", [b'{"stream":true}', b' {"stream": true, "n": {"a": []}} \n', b"{}"])
def test_a_body_is_left_as_it_is_but_for_the_question(body: bytes) -> None:
    asked = with_figures_asked(body, json.loads(body), progress=False)
    assert json.loads(asked) == {**json.loads(body), "stream_options": {"include_usage": True}}
    assert asked.startswith(body.rstrip()[:-1])
    asked = with_figures_asked(body, json.loads(body), progress=True)
    assert json.loads(asked) == {
        **json.loads(body),
        "stream_options": {"include_usage": True},
        "return_progress": True,
    }
    assert asked.startswith(body.rstrip()[:-1])


def test_nothing_is_asked_twice() -> None:
    body = b'{"stream_options": {"include_usage": true}, "return_progress": false}'
    assert with_figures_asked(body, json.loads(body), progress=True) == body
    body = b'{"stream_options": {"include_usage": true}}'
    assert with_figures_asked(body, json.loads(body), progress=True) == body[:-1] + b',"return_progress":true}'


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_obfuscation": False}])
def test_other_stream_options_are_kept(options: Any) -> None:
    document = {"stream": True, "stream_options": options}
    asked = json.loads(with_figures_asked(json.dumps(document).encode(), document, progress=False))
    assert asked["stream_options"] == {**(options or {}), "include_usage": True}
    assert not asks_for_usage(document)
    assert asks_for_usage(asked)


def test_only_the_usage_event_is_hidden() -> None:
    assert without_usage_event(TOKEN + USAGE + DONE) == TOKEN + DONE
    assert without_usage_event(USAGE + TOKEN) == TOKEN
    for ending in (b"\n", b"\r\n", b"\r"):
        stream = (3 * TOKEN + USAGE + DONE + TOKEN + USAGE).replace(b"\n", ending)
        assert without_usage_event(stream) == (3 * TOKEN + DONE + TOKEN).replace(b"\n", ending)
    said = b'data: {"choices":[{"delta":{"content":"\\"usage\\":{}"}}],"usage":null}\n\n'
    assert without_usage_event(said + DONE) == said + DONE


@given(st.lists(st.sampled_from([TOKEN, USAGE, DONE, b": ping\n\n"])), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_hiding_takes_out_nothing_else(events: list[bytes], line_end: bytes) -> None:
    kept = b"".join(event for event in events if event != USAGE)
    assert without_usage_event(b"".join(events).replace(b"\n", line_end)) == kept.replace(b"\n", line_end)


ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
PROGRESS = ROLE[:-3] + b',"prompt_progress":{"total":16,"cache":4,"processed":%d,"time_ms":0}}\n\n'


@pytest.mark.parametrize("hides", [True, False])
def test_the_progress_through_the_prompt_is_read_and_hidden(*, hides: bool) -> None:
    prelude = Prelude(hides=hides)
    reports = PROGRESS % 4 + PROGRESS % 16
    assert prelude.take(b": ping\n\n" + reports) == b": ping\n\n" + (b"" if hides else reports)
    assert not prelude.is_over
    assert (prelude.events, prelude.read_tokens, prelude.cached_tokens) == (2, 16, 4)
    assert prelude.take(ROLE + TOKEN + PROGRESS % 99 + DONE) == ROLE + TOKEN + PROGRESS % 99 + DONE
    assert prelude.is_over
    assert (prelude.events, prelude.read_tokens) == (3, 16)


@pytest.mark.parametrize(
    "event",
    [
        TOKEN,
        b'data: {"choices":[{"delta":{"content":null,"tool_calls":[{"index":0}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]}\n\n',
        b'data: {"choices":[{"text":"a"}]}\n\n',
        DONE,
    ],
)
def test_what_is_made_of_tokens_ends_the_prelude(event: bytes) -> None:
    prelude = Prelude(hides=True)
    assert prelude.take(event) == event
    assert prelude.is_over
    assert not prelude.events


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 42}}, (3, 42, 0)),
        (
            {"usage": {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}},
            (9, 1, 4),
        ),
        ({"usage": {"input_tokens": 5, "output_tokens": 6}}, (5, 6, 0)),
        ({"timings": {"cache_n": 2, "prompt_n": 1, "predicted_n": 15}}, (3, 15, 2)),
    ],
)
def test_the_engines_figures_are_read(document: dict[str, Any], usage: tuple[int, int, int]) -> None:
    told = usage_told(b"data: " + json.dumps({"choices": [], **document}).encode())
    assert told == TokenUsage(*usage, TokenSource.ENGINE)


@pytest.mark.parametrize("text", [b"", b'{"usage":null}', b'{"usage":{"prompt', b'{"usage":[1]}'])
def test_figures_that_are_none_are_none(text: bytes) -> None:
    assert usage_told(text) is None


def test_a_model_cannot_talk_the_count_of_tokens_up() -> None:
    said = json.dumps({"usage": {"completion_tokens": 2}, "content": '"usage": {"completion_tokens": 999}'})
    told = usage_told(said.encode())
    assert told is not None
    assert told.completion_tokens == 2


def test_an_impossible_count_is_none() -> None:
    told = usage_told(json.dumps({"usage": {"prompt_tokens": 10**30, "completion_tokens": 5}}).encode())
    assert told is not None
    assert (told.prompt_tokens, told.completion_tokens) == (0, 5)
