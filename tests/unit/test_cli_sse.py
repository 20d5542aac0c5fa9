"""Server-sent events, however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.sse import EVENT_BYTES_MAX, EventParser, EventTooLargeError, ServerSentEvent

STREAM = (
    b': hello\n\nretry: 1000\n\nevent: llama_status\nid: e:1\ndata: {"a": 1}\n\n'
    b"data: first\r\ndata:second\r\n\r\ndata\rdata: caf\xc3\xa9\r\revent: lost\n\nid: e:2\ndata: [DONE]\n\n"
)
EVENTS = [
    ServerSentEvent("llama_status", '{"a": 1}', "e:1"),
    ServerSentEvent("message", "first\nsecond", "e:1"),
    ServerSentEvent("message", "\ncafé", "e:1"),
    ServerSentEvent("message", "[DONE]", "e:2"),
]


def test_a_stream_in_one_piece() -> None:
    assert EventParser().feed(STREAM) == EVENTS


@given(st.lists(st.integers(1, 20), max_size=100))
def test_a_stream_cut_anywhere(sizes: list[int]) -> None:
    parser, events, rest = EventParser(), [], STREAM
    for size in [*sizes, len(STREAM)]:
        events += parser.feed(rest[:size])
        rest = rest[size:]
    assert events == EVENTS


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    for event in EventParser().feed(data):
        assert event.type


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    parser, line = EventParser(), b"data: " + b"x" * (EVENT_BYTES_MAX // 2) + b"\n"
    assert parser.feed(line) == []
    with pytest.raises(EventTooLargeError):
        parser.feed(line + line)
