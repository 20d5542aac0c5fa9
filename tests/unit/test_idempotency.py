"""Answers kept by key: one request, one answer, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import LlamavisorError, MalformedRequestError
from supervisor.gateway.idempotency import (
    ANSWER_BYTES_MAX,
    KEPT_SECONDS,
    IdempotencyStore,
    Keeping,
    KeptAnswer,
    KeyReusedError,
    RequestInFlightError,
    Scope,
)
from supervisor.testing import FakeClock

HERE = Scope("default", None, "/v1/chat/completions")
HEADERS = {"Content-Type": "application/json"}


def answer(store: IdempotencyStore, key: str, body: bytes = b"{}", *, scope: Scope = HERE) -> None:
    """A request whose answer is its own body."""
    keeping = store.begin(scope, key, body)
    assert isinstance(keeping, Keeping)
    with keeping:
        keeping.add(body)
        keeping.complete(200, HEADERS)


def test_the_same_request_gets_the_answer_again() -> None:
    store = IdempotencyStore(FakeClock())
    answer(store, "k", b"body")
    assert store.begin(HERE, "k", b"body") == KeptAnswer(200, HEADERS, b"body")


def test_in_flight_is_a_conflict_and_another_body_a_mistake() -> None:
    store = IdempotencyStore(FakeClock())
    with store.begin(HERE, "k", b"a") as keeping:  # type: ignore[union-attr]
        with pytest.raises(RequestInFlightError) as early:
            store.begin(HERE, "k", b"a")
        assert (early.value.status, early.value.retry_after_seconds) == (409, 1)
        with pytest.raises(KeyReusedError) as other:
            store.begin(HERE, "k", b"b")
        assert other.value.status == 422
        keeping.complete(200, HEADERS)
    with pytest.raises(KeyReusedError):
        store.begin(HERE, "k", b"b")


@pytest.mark.parametrize(
    "other",
    [Scope("other", None, HERE.path), Scope("default", "key", HERE.path), Scope("default", None, "/v1/completions")],
)
def test_a_key_means_nothing_to_others(other: Scope) -> None:
    store = IdempotencyStore(FakeClock())
    answer(store, "k", b"secret")
    assert isinstance(store.begin(other, "k", b"secret"), Keeping)


def test_what_failed_is_done_again() -> None:
    store = IdempotencyStore(FakeClock())
    with pytest.raises(LlamavisorError), store.begin(HERE, "k", b"a"):  # type: ignore[union-attr]
        raise LlamavisorError("the engine died")
    with store.begin(HERE, "k", b"a") as keeping:  # type: ignore[union-attr]
        keeping.complete(400, HEADERS)
    with store.begin(HERE, "k", b"a") as keeping:  # type: ignore[union-attr]
        keeping.add(b"x" * ANSWER_BYTES_MAX)
        keeping.add(b"x")
        keeping.complete(200, HEADERS)
    answer(store, "k", b"another body, for nothing was kept")


def test_a_day_later_it_is_forgotten_and_not_because_of_the_wall_clock() -> None:
    clock = FakeClock()
    store = IdempotencyStore(clock)
    answer(store, "k")
    answer(store, "used")
    clock.jump_wall(10 * KEPT_SECONDS)
    assert isinstance(store.begin(HERE, "k", b"{}"), KeptAnswer)
    clock.advance(KEPT_SECONDS - 1)
    assert isinstance(store.begin(HERE, "k", b"{}"), KeptAnswer)
    clock.advance(1)
    assert isinstance(store.begin(HERE, "k", b"{}"), Keeping)
    assert isinstance(store.begin(HERE, "used", b"another"), Keeping)


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\nb"])
def test_a_key_is_a_short_word(key: str) -> None:
    with pytest.raises(MalformedRequestError):
        IdempotencyStore(FakeClock()).begin(HERE, key, b"")


def test_those_asked_for_least_recently_go_first() -> None:
    store = IdempotencyStore(FakeClock(), most=3)
    open_ = store.begin(HERE, "open", b"")
    answer(store, "a")
    answer(store, "b")
    store.begin(HERE, "a", b"{}")
    answer(store, "c")
    assert isinstance(store.begin(HERE, "a", b"{}"), KeptAnswer)
    with pytest.raises(RequestInFlightError):
        store.begin(HERE, "open", b"")
    assert isinstance(store.begin(HERE, "b", b"{}"), Keeping)
    assert isinstance(open_, Keeping)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3_000), st.booleans()), max_size=60))
def test_memory_stays_within_its_bounds(steps: list[tuple[int, int, bool]]) -> None:
    store = IdempotencyStore(FakeClock(), most_bytes=8_000, most=5)
    for number, size, fails in steps:
        found = store.begin(HERE, str(number), b"")
        if isinstance(found, Keeping):
            with found:
                found.add(b"x" * size)
                found.complete(500 if fails else 200, HEADERS)
        else:
            assert set(found.body) <= {ord("x")}
        sizes = [entry.size for entry in store._entries.values()]
        assert store._bytes == sum(sizes) <= 8_000
        assert len(sizes) <= 5
