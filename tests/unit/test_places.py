"""Which instance gets a request: as tables, with instances that only have a state."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.config.settings import InstanceSettings
from supervisor.errors import EngineDeadlineError, EngineDiedError, NotAvailableError, RequestCancelledError
from supervisor.gateway.admission.places import (
    EJECTION_LIMIT_SECONDS,
    EJECTION_SECONDS,
    FAILURES_BEFORE_EJECTION,
    UNKNOWN_LIMIT,
    Places,
    choose,
    in_flight_limit,
)
from supervisor.gateway.gateway import has_failed
from supervisor.gateway.traffic import Outcome
from supervisor.process.states import State

NOW = 100.0


def places(taken: int = 0, state: State = State.READY, *, limit: int = 4, ejected_until: float = 0.0) -> Places:
    """The places of an instance in that state."""
    instance: Any = SimpleNamespace(accepts_requests=state is State.READY, requests_active=taken)
    began: dict[object, float] = {object(): NOW for _ in range(taken)}
    return Places(instance, limit, began=began, ejected_until=ejected_until)


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([places(2), places(1), places(3)], 1),
        ([places(4), places(3)], 1),
        ([places(0, State.STARTING), places(3)], 1),
        ([places(0, ejected_until=NOW + 1), places(3)], 1),
        ([places(0, ejected_until=NOW - 1), places(3)], 0),
        ([places(0, ejected_until=NOW + 1)], 0),
        ([places(0, ejected_until=NOW + 1), places(4)], 0),
        ([places(2, ejected_until=NOW + 1), places(1, ejected_until=NOW + 1)], 1),
        ([places(4), places(0, State.CRASHED)], None),
        ([], None),
    ],
)
def test_the_free_one_with_the_fewest_requests_is_chosen(candidates: list[Places], chosen: int | None) -> None:
    assert choose(candidates, NOW) is (None if chosen is None else candidates[chosen])


def test_failures_in_a_row_eject_for_longer_each_time_and_a_success_forgives() -> None:
    one = places()
    for _ in range(FAILURES_BEFORE_EJECTION - 1):
        one.note(NOW, failed=True)
    assert one.ejected_until <= NOW
    for doubling in range(3):
        one.note(NOW, failed=True)
        assert one.ejected_until == NOW + EJECTION_SECONDS * 2**doubling
    for _ in range(50):
        one.note(NOW, failed=True)
    assert one.ejected_until == NOW + EJECTION_LIMIT_SECONDS
    one.note(NOW, failed=False)
    assert one.failures == 0


@pytest.mark.parametrize(
    ("outcome", "error", "failed"),
    [
        (Outcome.OK, None, False),
        (Outcome.OK, ConnectionError(), False),
        (Outcome.REFUSED, None, False),
        (Outcome.REFUSED, NotAvailableError("The server is shutting down."), None),
        (Outcome.CLIENT_GONE, asyncio.CancelledError(), None),
        (Outcome.CANCELLED, RequestCancelledError("Cancelled."), None),
        (Outcome.ENGINE_ERROR, None, True),
        (Outcome.ENGINE_DIED, EngineDiedError("It died."), True),
        (Outcome.CUT, EngineDiedError("It is cut."), True),
        (Outcome.TIMEOUT, EngineDeadlineError("It is silent."), True),
    ],
)
def test_only_what_the_engine_did_counts(outcome: Outcome, error: BaseException | None, *, failed: bool | None) -> None:
    assert has_failed(outcome, error) is failed


@pytest.mark.parametrize(
    ("instance", "limit"),
    [
        ({"model": "demo"}, 8),
        ({"model": "demo", "engine": {"kind": "embedded", "parallel": 2}}, 4),
        ({"model": "demo", "engine": {"kind": "embedded", "parallel": 2}, "max_in_flight": 1}, 1),
        ({"engine": {"kind": "vllm"}, "model": "a/b"}, UNKNOWN_LIMIT),
        ({"engine": {"kind": "command", "argv": ["x", "${PORT}"]}}, UNKNOWN_LIMIT),
    ],
)
def test_twice_the_slots_are_in_flight(instance: dict[str, Any], limit: int) -> None:
    assert in_flight_limit(InstanceSettings.model_validate(instance), 2) == limit


@pytest.mark.parametrize(
    ("instance", "told", "slots"),
    [
        ({"model": "demo", "engine": {"kind": "embedded", "parallel": 2}}, None, 2),
        ({"model": "demo", "engine": {"kind": "embedded", "parallel": 2}, "max_in_flight": 1}, None, 1),
        ({"engine": {"kind": "vllm"}, "model": "a/b"}, 3, 3),
        ({"engine": {"kind": "vllm"}, "model": "a/b"}, None, UNKNOWN_LIMIT),
    ],
)
def test_it_works_on_as_many_side_by_side_as_it_has_slots(
    instance: dict[str, Any], told: int | None, slots: int
) -> None:
    settings = InstanceSettings.model_validate(instance)
    one = places(limit=in_flight_limit(settings, 2, told))
    one.settings, one.told_slots = settings, told
    assert one.slots == slots
