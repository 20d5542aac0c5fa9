"""Events that are kept for streams to be joined again: numbered, bounded, never with a silent gap."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import MalformedRequestError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.resumable import (
    EventRing,
    EventsGoneError,
    KeptStream,
    Owner,
    StreamNotFoundError,
    displaced,
    event_seen,
    owned,
    seconds_asked,
)

ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n")
ROOMY = 1_000_000
_NUMBER = re.compile(rb"\nid: (\d+)$")

lines = st.sampled_from(
    [b'data: {"a": 1}', b"data: [DONE]", b": a comment", b"event: x\ndata: {}", b"data: \xc3\xa9", b"id: 7"]
)
events = st.lists(st.tuples(lines, st.sampled_from(ENDS)).map(b"".join), min_size=1, max_size=30)


def ring_of(parts: list[bytes], limit_bytes: int = ROOMY) -> EventRing:
    """A ring that these have gone through, piece by piece."""
    ring = EventRing(limit_bytes)
    for part in parts:
        ring.add(part)
    return ring


def drained(ring: EventRing, seen: int) -> bytes:
    """Everything after `seen`, taken as a reader takes it."""
    taken = b""
    while True:
        data, seen = ring.after(seen)
        if not data:
            return taken
        taken += data


def without_numbers(data: bytes) -> bytes:
    """What the engine sent."""
    return re.sub(rb"\nid: \d+(?=\r\n\r\n|\n\n|\r\r|\n\r\n)", b"", data)


@given(events)
def test_numbering_changes_nothing_else(parts: list[bytes]) -> None:
    ring = ring_of([b"".join(parts)])
    assert without_numbers(drained(ring, 0)) == b"".join(parts)
    assert ring.last == len(parts)


@given(events, st.data())
def test_a_stream_that_is_cut_anywhere_and_joined_again_is_the_uncut_one(
    parts: list[bytes], data: st.DataObject
) -> None:
    ring = ring_of(parts)
    whole = drained(ring, 0)
    cut = data.draw(st.integers(0, len(whole)))
    # A client dispatches whole events only; the last number that it has read tells where it goes on.
    dispatched, seen = b"", 0
    for number in range(1, ring.last + 1):
        event, _ = ring_of(parts[:number]).after(number - 1)
        if len(dispatched) + len(event) > cut:
            break
        dispatched, seen = dispatched + event, number
    assert whole.startswith(dispatched)
    assert dispatched + drained(ring, seen) == whole


@given(events, st.integers(1, 200), st.data())
def test_what_is_not_kept_is_said_and_never_left_out(parts: list[bytes], limit: int, data: st.DataObject) -> None:
    ring, whole = ring_of(parts, limit), ring_of(parts)
    kept = drained(ring, ring.first - 1)
    assert ring.last - ring.first >= 0
    assert len(kept) <= limit or ring.first == ring.last
    seen = data.draw(st.integers(0, ring.last))
    if seen >= ring.first - 1:
        assert drained(ring, seen) == drained(whole, seen)
        return
    with pytest.raises(EventsGoneError) as caught:
        ring.after(seen)
    assert caught.value.details == {"first": ring.first, "last": ring.last}


@given(events, events, st.integers(1, 300), st.data())
def test_with_room_for_a_reader_nothing_is_lost_for_it(
    parts: list[bytes], more: list[bytes], limit: int, data: st.DataObject
) -> None:
    ring = ring_of(parts, limit)
    seen = data.draw(st.integers(ring.first - 1, ring.last))
    coming = b"".join(more)
    if seen < ring.last and ring.has_room(seen, coming):
        ring.add(coming)
        assert ring.first <= seen + 1


@given(events, st.integers(1, 300))
def test_a_reader_who_is_waited_for_loses_nothing_however_small_the_ring(parts: list[bytes], limit: int) -> None:
    ring, received, seen = EventRing(limit), b"", 0
    for portion in ring.portions(b"".join(parts)):
        while not ring.has_room(seen, portion):
            data, seen = ring.after(seen)
            received += data
        ring.add(portion)
    assert received + drained(ring, seen) == drained(ring_of(parts), 0)


def test_a_long_replay_comes_in_pieces() -> None:
    event = b"data: " + bytes(1_000) + b"\n\n"
    ring = ring_of([event] * 200)
    data, seen = ring.after(0)
    assert 64 * 1024 <= len(data) < 66 * 1024
    assert ring.after(seen)[1] > seen
    assert drained(ring, 0).count(b"id: ") == 200


def test_an_event_beyond_the_bound_is_kept_alone() -> None:
    ring = ring_of([b"data: 1\n\n", b"data: " + bytes(500) + b"\n\n"], limit_bytes=100)
    assert (ring.first, ring.last) == (2, 2)
    assert ring.has_room(2, bytes(10_000))
    assert not ring.has_room(1, b"data: 3\n\n")
    assert not ring.has_room(0, b"data: 3\n\n")


def test_the_future_cannot_be_asked_for() -> None:
    with pytest.raises(MalformedRequestError) as caught:
        ring_of([b"data: 1\n\n"]).after(2)
    assert caught.value.param == "Last-Event-ID"


@pytest.mark.parametrize(("header", "seconds"), [("1", 1), ("30", 30), ("0.5", 0.5)])
def test_seconds(header: str, seconds: float) -> None:
    assert seconds_asked(header) == seconds


@pytest.mark.parametrize("header", ["", "0", "-1", "nan", "inf", "yes", "1 s"])
def test_what_is_no_number_of_seconds(header: str) -> None:
    with pytest.raises(MalformedRequestError) as caught:
        seconds_asked(header)
    assert caught.value.param == "X-Llamavisor-Resume"


@pytest.mark.parametrize("header", ["a", "-1", "1.5", "٣", "9" * 16, " "])
def test_what_is_no_event(header: str) -> None:
    with pytest.raises(MalformedRequestError):
        event_seen(header)
    assert (event_seen(None), event_seen(""), event_seen("12")) == (0, 0, 12)


def kept(name: str, *, idle_since: float = 0.0, project: str = "default", key: str | None = None) -> KeptStream:
    """A stream with an hour's time."""
    return KeptStream(name, Owner(project, key), 3_600, EventRing(ROOMY), idle_since)


def test_only_the_owner_finds_a_stream() -> None:
    streams = {"a": kept("a", project="one", key="k1")}
    assert owned(streams, "a", Owner.of(Caller("one", "k1"))) is streams["a"]
    for stranger in (Caller("one", "k2"), Caller("two", "k1"), Caller("one", None), Caller()):
        with pytest.raises(StreamNotFoundError):
            owned(streams, "a", Owner.of(stranger))
    with pytest.raises(StreamNotFoundError):
        owned(streams, "b", Owner("one", "k1"))


def test_the_one_that_is_needed_least_makes_room() -> None:
    running, read, older, newer = (kept(name, idle_since=at) for name, at in (("r", 0), ("d", 1), ("o", 2), ("n", 3)))
    for ended in (read, older, newer):
        ended.is_over = True
    read.readers = 1
    assert displaced([running, read, newer, older]) is older
    assert displaced([running, read]) is None
    assert (running.due_at, read.due_at, newer.due_at) == (3_600, None, 3_603)
