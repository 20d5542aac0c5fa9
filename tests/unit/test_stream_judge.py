"""`StreamJudge`: what passes, what is held back, and what counts as a complete answer, however the bytes are cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway import sse
from supervisor.gateway.sse import StreamJudge

DONE = b"data: [DONE]\n\n"


def event(content: str, ending: str = "\n") -> bytes:
    """One chunk of a chat, with line ends of choice."""
    return (
        f"data: {json.dumps({'choices': [{'delta': {'content': content}}]}, ensure_ascii=False)}{ending * 2}".encode()
    )


def judge(*chunks: bytes) -> tuple[StreamJudge, bytes]:
    """Feed chunks to the end; the judge, and what it let through."""
    judge = StreamJudge()
    passed = b"".join(judge.feed(chunk) for chunk in chunks)
    judge.finish()
    return judge, passed


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_whole_stream_is_a_success_with_any_line_end(ending: str) -> None:
    stream = event("a", ending) + event("b", ending) + f"data: [DONE]{ending * 2}".encode()
    verdict, passed = judge(stream)
    assert verdict.is_success
    assert verdict.events == 2
    assert passed == stream


def test_comments_other_fields_and_a_byte_order_mark_are_no_matter() -> None:
    stream = b"\xef\xbb\xbf: hello\n\nevent: message\nid: 7\nretry: 10\n" + event("a") + b": ping\r\n\r\n" + DONE
    verdict, passed = judge(stream)
    assert verdict.is_success
    assert verdict.events == 1
    assert passed == stream


def test_an_event_may_spread_its_data_over_lines_and_omit_the_blank() -> None:
    verdict, _ = judge(b'data:{"choices":\ndata: []}\n\n' + b"data:[DONE]\n\n")
    assert verdict.is_success


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (event("a"), "it ended without [DONE]"),
        (b"", "it ended without [DONE]"),
        (event("a") + b"data: [DONE]\n", "it ended in the middle of an event"),
        (event("a")[:-9], "it ended in the middle of an event"),
        (event("a") + DONE + DONE, "it went on after [DONE]"),
        (event("a") + DONE + event("b"), "it went on after [DONE]"),
        (event("a") + b'data: {"choices":[{"delta":\n\n' + DONE, "it sent an event that is no JSON object"),
        (event("a") + b"data: <html>\n\n" + DONE, "it sent an event that is no JSON object"),
        (event("a") + b'data: {"a":"\xe2\x98"}\n\n' + DONE, "it sent an event that is not UTF-8"),
    ],
)
def test_what_is_no_whole_answer_is_no_success(stream: bytes, fault: str) -> None:
    verdict, passed = judge(stream)
    assert not verdict.is_success
    assert verdict.fault == fault
    assert stream.startswith(passed)


def test_a_broken_event_and_what_follows_is_not_let_through() -> None:
    verdict = StreamJudge()
    assert verdict.feed(event("a") + b"data: {\n\n" + event("b")) == event("a")
    assert verdict.feed(event("c")) == b""


@pytest.mark.parametrize(
    "failure",
    [
        b'data: {"error": {"code": 500, "message": "m"}}\n\n',
        b'data: {"object": "error", "message": "m"}\n\n',
        b'error: {"code": 500, "message": "m"}\n\n',
        b"event: error\ndata: it broke\n\n",
    ],
)
def test_an_error_in_the_stream_passes_and_is_no_success(failure: bytes) -> None:
    verdict, passed = judge(event("a") + failure + DONE)
    assert verdict.has_error
    assert not verdict.is_success
    assert passed == event("a") + failure + DONE


@pytest.mark.parametrize(
    "innocent",
    [event('an "error" is told of'), b'data: {"error": null, "choices": []}\n\n', event("data: [DONE]\n\n")],
)
def test_talk_of_errors_is_no_error(innocent: bytes) -> None:
    verdict, _ = judge(innocent + DONE)
    assert verdict.is_success


def test_whole_events_pass_at_once_and_only_the_rest_is_held() -> None:
    verdict = StreamJudge()
    first, second = event("a"), event("b")
    assert verdict.feed(first + second[:5]) == first
    assert verdict.feed(second[5:-1]) == b""
    assert verdict.feed(second[-1:]) == second


def test_an_endless_event_is_not_collected_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_LIMIT_BYTES", 100)
    verdict = StreamJudge()
    assert verdict.feed(event("a") + b"data: " + b"x" * 200) == event("a")
    assert verdict.fault is not None
    assert verdict.feed(b"\n\n") == b""


def test_the_event_with_the_engines_own_figures_is_kept() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens": 42,"total_tokens":45}}\n\n'
    assert b'"completion_tokens": 42' in judge(event("a") + usage + DONE)[0].figures
    assert judge(event("a") + DONE)[0].figures == b""


endings = st.sampled_from(["\n", "\r\n", "\r"])
streams = st.lists(st.tuples(st.text(max_size=20), endings), max_size=6).map(
    lambda events: b"".join(event(text, ending) for text, ending in events)
)


@given(streams, endings, st.lists(st.integers(min_value=0, max_value=2_000), max_size=12))
def test_however_it_is_cut_a_whole_stream_passes_unchanged(stream: bytes, ending: str, cuts: list[int]) -> None:
    whole = stream + f"data: [DONE]{ending * 2}".encode()
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    verdict, passed = judge(*(whole[start:end] for start, end in itertools.pairwise(places)))
    assert passed == whole
    assert verdict.is_success


@given(streams, st.integers(min_value=0, max_value=10_000))
def test_wherever_it_ends_early_it_is_no_success(stream: bytes, place: int) -> None:
    whole = stream + DONE
    cut = whole[: place % len(whole)]
    verdict, passed = judge(cut)
    assert not verdict.is_success
    assert cut.startswith(passed)
    assert passed == b"" or passed.endswith((b"\n\n", b"\r\r", b"\r\n", b"\n\r"))


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_break_the_judge(chunks: list[bytes]) -> None:
    verdict, passed = judge(*chunks)
    assert b"".join(chunks).startswith(passed)
    assert verdict.is_success is (verdict.is_done and verdict.fault is None and not verdict.has_error)


class OneByOne(StreamJudge):
    """Judges each event for itself, plain or not."""

    __slots__ = ()

    def _pass_plain(self, data: bytes) -> int:
        return 0


pieces = st.one_of(
    st.text(max_size=8).map(event),
    st.sampled_from(
        [
            DONE,
            b"data: {}\n\n",
            b'data: {"error":{"message":"lost"}}\n\n',
            b'data: {"usage":{"completion_tokens":7}}\n\n',
            b'data: {"timings":{"predicted_n":8}}\n\n',
            b'data: {"content":"\xff"}\n\n',
            b": comment\n\n",
            b"data: {}\r\n\r\n",
            b"data: {\n\n",
            b"data: {} \n\n",
            b"\n",
            b"\n\n",
            b"\xef\xbb\xbf",
            b"data: ",
        ]
    ),
)


@given(st.lists(pieces, max_size=10).map(b"".join), st.lists(st.integers(min_value=0, max_value=500), max_size=6))
def test_events_judged_together_are_judged_as_each_for_itself(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    together, apart = StreamJudge(), OneByOne()
    for start, end in itertools.pairwise(places):
        assert together.feed(stream[start:end]) == apart.feed(stream[start:end])
    together.finish()
    apart.finish()
    for verdict in ("events", "fault", "has_error", "is_done", "figures"):
        assert getattr(together, verdict) == getattr(apart, verdict)
