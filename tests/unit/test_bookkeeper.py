"""The bookkeeper: one record a request, exact whatever the way, nothing counted of what is refused."""

from __future__ import annotations

import logging
import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config.accounting_settings import AccountingSettings
from supervisor.errors import (
    BudgetExceededError,
    LlamavisorError,
    PriceUnknownError,
    RateLimitedError,
    UnauthorizedError,
)
from supervisor.gateway.accounting.bookkeeper import Booking, Bookkeeper
from supervisor.gateway.accounting.callers import ANYONE, Caller
from supervisor.gateway.accounting.estimate import REFRESH
from supervisor.gateway.accounting.keys import issue
from supervisor.gateway.traffic import Outcome
from supervisor.storage.accounts import Budget, BudgetUnit, Period, UsedInDay
from supervisor.storage.records import (
    AcceptedRequest,
    Price,
    Scope,
    Settlement,
    TokenSource,
    TokenUsage,
    UsageRecord,
)
from supervisor.testing import FakeClock

CALLER = Caller("p", "k", frozenset({Scope.INFERENCE}))
DAILY = Budget("p", Period.DAY, BudgetUnit.MICROS, 10_000)
PRICES = {"m": {"input": "1", "output": "2"}, "dear": {"input": 100, "output": 100}}
USED = TokenUsage(10, 20, 5, TokenSource.ENGINE)


class RecordingJournal:
    """Keeps what it is told. `is_broken`: it takes nothing in."""

    def __init__(self) -> None:
        self.accepted: list[AcceptedRequest] = []
        self.settled: list[Settlement] = []
        self.noted: list[tuple[str, TokenUsage]] = []
        self.is_broken = False

    def accept(self, request: AcceptedRequest) -> None:
        if self.is_broken:
            raise OSError(28, "No space left on device")
        self.accepted.append(request)

    def note(self, request_id: str, usage: TokenUsage) -> None:
        self.noted.append((request_id, usage))

    def settle(self, settlement: Settlement) -> None:
        self.settled.append(settlement)


class Desk:
    """A bookkeeper, its journal and its clock."""

    def __init__(self, *budgets: Budget, server_key: str | None = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.journal = RecordingJournal()
        self.settings = AccountingSettings.model_validate({"prices": PRICES, **settings})
        self.books = Bookkeeper(self.settings, self.journal, self.clock, server_key)
        self.books.set_accounts([], [], budgets)

    def used(self, project: str = "p", key_id: str | None = None) -> tuple[int, int]:
        """Micro-units and tokens of today."""
        used = self.books.ledger.used(project, self.books.now_ms(), key_id)[Period.DAY]
        return used.micros, used.tokens

    def reserved(self) -> int:
        """What is held back of the first budget of `p`."""
        return self.books.ledger.budget_status("p", self.books.now_ms())[0].reserved


def test_a_request_from_the_key_to_the_record() -> None:
    desk = Desk(DAILY)
    key = issue("p", [Scope.INFERENCE], desk.books.now_ms())
    desk.books.set_accounts([key.record], [], [DAILY])
    caller = desk.books.identify(key.text)
    booking = desk.books.open(
        caller, "m", "chat", stream=True, body_length=400, max_tokens=50, client_request_id="theirs", batch_id="b"
    )
    request = booking.request
    assert request == AcceptedRequest(
        request.id, "p", key.record.id, "m", "chat", True, 1_700_000_000_000, "theirs", "b",
        Price(1_000_000, 2_000_000), 100 + 2 * 50, 150,
    )  # fmt: skip
    assert re.fullmatch(r"req_[0-9a-f]{32}", request.id)
    assert desk.journal.accepted == [request]
    assert desk.reserved() == 200
    desk.clock.advance(1.5)
    settlement = booking.settle(Outcome.OK, USED, instance="i", model="m.gguf", first_byte_ms=12.5, queued_ms=0.0)
    assert settlement == Settlement(
        request.id, "ok", USED, 50, 1_700_000_001_500, model="m.gguf", instance="i", queued_ms=0.0, first_byte_ms=12.5,
        total_ms=1_500.0,
    )  # fmt: skip
    assert desk.journal.settled == [settlement]
    assert desk.used() == desk.used(key_id=key.record.id) == (50, 30)
    assert desk.reserved() == 0


def test_the_first_settlement_counts() -> None:
    desk = Desk(DAILY)
    booking = desk.books.open(CALLER, "m", "chat")
    first = booking.settle(Outcome.CLIENT_GONE, USED)
    assert booking.settle(Outcome.OK, TokenUsage(999, 999)) is first is booking.settlement
    booking.note(USED)
    assert (len(desk.journal.settled), desk.used(), desk.journal.noted) == (1, (50, 30), [])


def test_what_is_seen_on_the_way_is_noted() -> None:
    desk = Desk()
    booking = desk.books.open(CALLER, "m", "chat")
    booking.note(TokenUsage(0, 3, source=TokenSource.COUNTED))
    assert desk.journal.noted == [(booking.request.id, TokenUsage(0, 3, source=TokenSource.COUNTED))]


TOKENS = st.integers(0, 10**6)
WAYS = st.fixed_dictionaries(
    {
        "stream": st.booleans(),
        "surface": st.sampled_from(["chat", "completions", "responses"]),
        "batch_id": st.none() | st.just("batch_1"),
        "max_tokens": st.none() | st.integers(1, 10**5),
        "body_length": st.integers(0, 10**6),
    }
)


@given(TOKENS, TOKENS, st.lists(st.tuples(WAYS, st.sampled_from(Outcome), st.sampled_from(TokenSource)), min_size=2))
def test_the_same_tokens_cost_the_same_whatever_the_way(prompt: int, completion: int, ways: list[Any]) -> None:
    desk = Desk()
    costs = set()
    for way, outcome, source in ways:
        booking = desk.books.open(CALLER, "m", **way)
        costs.add(booking.settle(outcome, TokenUsage(prompt, completion, source=source)).cost_micros)
    assert costs == {prompt + 2 * completion}
    assert desk.used() == (len(ways) * (prompt + 2 * completion), len(ways) * (prompt + completion))


def test_a_request_costs_what_it_would_have_cost_when_it_was_let_in() -> None:
    desk = Desk()
    booking = desk.books.open(CALLER, "m", "chat")
    desk.books.retune(
        AccountingSettings.model_validate({"prices": {"m": {"input": 9, "output": 9}}, "currency": "EUR"})
    )
    assert booking.settle(Outcome.OK, USED).cost_micros == 50
    assert desk.books.open(CALLER, "m", "chat").settle(Outcome.OK, USED).cost_micros == 270
    assert desk.books.ledger.currency == "EUR"


def test_the_price_is_that_of_the_first_name_that_has_one() -> None:
    desk = Desk()
    names = [("m", "dear"), ("other", "dear"), ("other", "another"), ()]
    prices = [desk.books.open(CALLER, "m", "chat", names=each).request.price for each in names]
    assert prices == [Price(1_000_000, 2_000_000), Price(100_000_000, 100_000_000), None, None]
    unpriced = desk.books.open(CALLER, "other", "chat").settle(Outcome.OK, USED)
    assert (unpriced.cost_micros, desk.used()) == (None, (0, 30))
    desk.books.open(CALLER, "other", "chat").settle(Outcome.CLIENT_GONE)
    assert desk.books.ledger.used("p", desk.books.now_ms())[Period.MONTH] == (0, 30, 1)


def test_a_budget_in_money_refuses_a_model_without_a_price() -> None:
    desk = Desk(DAILY)
    with pytest.raises(PriceUnknownError):
        desk.books.open(CALLER, "other", "chat")
    assert desk.journal.accepted == []


def test_what_uses_no_tokens_passes_a_spent_budget_an_unknown_price_and_a_debt_of_tokens() -> None:
    zero = [Budget("p", Period.DAY, unit, 0) for unit in BudgetUnit]
    desk = Desk(*zero, limits={"key": {"tokens_per_minute": 10, "requests_per_minute": 2}})
    desk.books.set_accounts([], [], [])
    desk.books.open(CALLER, "m", "chat", max_tokens=1).settle(Outcome.OK, TokenUsage(1_000, 1_000))
    desk.books.set_accounts([], [], zero)
    with pytest.raises(RateLimitedError):
        desk.books.open(CALLER, "m", "chat", max_tokens=1)
    booking = desk.books.open(CALLER, "other", "tokenize", body_length=4_000, is_free=True)
    assert (booking.request.reserved_tokens, booking.request.reserved_micros, desk.reserved()) == (0, 0, 0)
    booking.settle(Outcome.OK)
    assert desk.used() == (3_000, 2_000)
    with pytest.raises(RateLimitedError, match="2 requests a minute"):
        desk.books.open(CALLER, "other", "tokenize", is_free=True)


def test_what_the_limits_refuse_the_budget_does_not_see() -> None:
    desk = Desk(DAILY, limits={"key": {"concurrency": 1}})
    held = desk.books.open(CALLER, "m", "chat", max_tokens=10)
    before = desk.reserved()
    with pytest.raises(RateLimitedError):
        desk.books.open(CALLER, "m", "chat", max_tokens=10)
    assert desk.reserved() == before
    held.settle(Outcome.OK, USED)
    desk.books.open(CALLER, "m", "chat", max_tokens=10)


def test_what_the_budget_refuses_the_limits_do_not_see() -> None:
    desk = Desk(DAILY, limits={"key": {"concurrency": 1, "requests_per_minute": 10, "tokens_per_minute": 10_000}})
    for _ in range(20):
        with pytest.raises(BudgetExceededError):
            desk.books.open(CALLER, "dear", "chat", body_length=4_000)
    assert desk.books.headers(CALLER)["x-ratelimit-remaining-requests"] == "10"
    assert desk.books.headers(CALLER)["x-ratelimit-remaining-tokens"] == "10000"
    assert desk.books.limits.in_flight("p", "k") == 0
    desk.books.open(CALLER, "m", "chat", body_length=4_000)
    assert len(desk.journal.accepted) == 1


def test_what_cannot_be_written_down_is_not_let_in() -> None:
    desk = Desk(DAILY, limits={"key": {"concurrency": 1}})
    desk.journal.is_broken = True
    with pytest.raises(OSError, match="No space left"):
        desk.books.open(CALLER, "m", "chat")
    assert (desk.reserved(), desk.used(), desk.books.limits.in_flight("p", "k")) == (0, (0, 0), 0)
    desk.journal.is_broken = False
    desk.books.open(CALLER, "m", "chat")


def test_complete_answers_teach_and_others_do_not() -> None:
    desk = Desk()
    for outcome, source in ((Outcome.CUT, TokenSource.ENGINE), (Outcome.OK, TokenSource.COUNTED)):
        for _ in range(REFRESH):
            desk.books.open(CALLER, "m", "chat", body_length=100).settle(outcome, TokenUsage(1, 1, source=source))
    assert desk.books.open(CALLER, "m", "chat", body_length=100).request.reserved_tokens == 25 + 512
    for _ in range(REFRESH):
        desk.books.open(CALLER, "m", "chat", body_length=1_024).settle(Outcome.OK, USED)
    assert desk.books.open(CALLER, "m", "chat", body_length=1_024).request.reserved_tokens == 30


def test_new_reservation_figures_take_effect() -> None:
    desk = Desk()
    desk.books.retune(
        AccountingSettings.model_validate({"reservation": {"completion_tokens": 7, "bytes_per_token": 1}})
    )
    assert desk.books.open(CALLER, "m", "chat", body_length=3).request.reserved_tokens == 10


def test_rate_limit_headers_follow_the_request() -> None:
    desk = Desk(limits={"key": {"requests_per_minute": 60, "tokens_per_minute": 6_000}})
    booking = desk.books.open(CALLER, "m", "chat", body_length=400, max_tokens=500)
    assert booking.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5400",
        "x-ratelimit-reset-tokens": "6s",
    }
    booking.settle(Outcome.OK, USED)
    assert booking.headers()["x-ratelimit-remaining-tokens"] == "5970"
    desk.books.retune(AccountingSettings())
    assert booking.headers() == desk.books.headers(CALLER) == {}


def test_listeners_hear_of_every_complete_record_once(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    heard: list[UsageRecord] = []

    def failing(_record: UsageRecord) -> None:
        raise ValueError("a page that is gone")

    desk.books.on_settled += [failing, heard.append]
    booking = desk.books.open(CALLER, "m", "chat")
    assert heard == []
    with caplog.at_level(logging.ERROR):
        settlement = booking.settle(Outcome.OK, USED)
        booking.settle(Outcome.OK, USED)
    assert heard == [UsageRecord(booking.request, settlement)]
    assert booking.request.id in caplog.text


def test_the_time_of_a_request_is_not_that_of_the_wall_clock() -> None:
    desk = Desk()
    booking = desk.books.open(CALLER, "m", "chat")
    desk.clock.advance(2)
    desk.clock.jump_wall(-86_400)
    assert booking.settle(Outcome.OK, USED).total_ms == 2_000


def test_who_may_come_in() -> None:
    desk = Desk(server_key="s")
    assert desk.books.identify("s") is ANYONE
    with pytest.raises(UnauthorizedError):
        desk.books.identify(None)
    assert Desk().books.identify(None) is ANYONE


def test_books_are_taken_up_where_they_were_left() -> None:
    desk = Desk(DAILY)
    day = desk.books.now_ms() // 86_400_000 * 86_400_000
    desk.books.restore([UsedInDay("p", "k", day, 9_000, 100, 0)])
    with pytest.raises(BudgetExceededError):
        desk.books.open(CALLER, "m", "chat", max_tokens=501)
    desk.books.open(CALLER, "m", "chat", max_tokens=500)


@given(st.integers(0, 2**32))
def test_64_clients_of_one_key_in_any_order_leave_one_record_each_and_sums_that_agree(seed: int) -> None:
    random = Random(seed)
    requests = [(random.randint(1, 600), TokenUsage(random.randint(0, 500), random.randint(0, 900))) for _ in range(64)]
    desk = Desk(DAILY, limits={"key": {"concurrency": 32}})
    turns = [client for client in range(64) for _ in range(2)]
    random.shuffle(turns)
    held: dict[int, Booking] = {}
    beyond = 0
    for client in turns:
        max_tokens, usage = requests[client]
        if client in held:
            settlement = held[client].settle(Outcome.OK, usage)
            beyond += max(0, (settlement.cost_micros or 0) - held[client].request.reserved_micros)
        else:
            try:
                held[client] = desk.books.open(CALLER, "m", "chat", max_tokens=max_tokens)
            except LlamavisorError:
                continue
        assert desk.books.limits.in_flight("p", "k") <= 32
        assert desk.used()[0] + desk.reserved() <= DAILY.amount + beyond
    for booking in held.values():
        booking.settle(Outcome.CLIENT_GONE)
    assert sorted(one.id for one in desk.journal.accepted) == sorted(one.id for one in desk.journal.settled)
    assert desk.used()[0] == sum(one.cost_micros or 0 for one in desk.journal.settled)
    assert (desk.reserved(), desk.books.limits.in_flight("p")) == (0, 0)
