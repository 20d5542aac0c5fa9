"""The two-phase ledger, as tables: what is refused and why, what counts when, and what a new day or a new budget changes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from supervisor.errors import BudgetExceededError, ForbiddenError, PriceUnknownError
from supervisor.gateway.accounting.ledger import KEPT_DAYS, Ledger
from supervisor.gateway.accounting.periods import DAY_MS
from supervisor.storage.accounts import Budget, BudgetUnit, Period, UsedInDay

# A Saturday: the week ends on Sunday, the month nine days later.
NOW = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() * 1_000)
MONEY = Budget("p", Period.DAY, BudgetUnit.MICROS, 1_000)
TOKENS = Budget("p", Period.MONTH, BudgetUnit.TOKENS, 100)


def ledger(*budgets: Budget) -> Ledger:
    """A ledger with these budgets."""
    made = Ledger("USD")
    made.set_budgets(budgets)
    return made


def spend(books: Ledger, micros: int, tokens: int = 0, *, now_ms: int = NOW, key_id: str | None = None) -> None:
    """A request that used exactly what was estimated."""
    books.reserve("p", key_id, micros, tokens, now_ms).settle(micros, tokens)


def figures(books: Ledger, now_ms: int = NOW, key_id: str | None = None) -> list[tuple[int, int, int]]:
    """Spent, reserved and remaining of each budget."""
    return [(one.spent, one.reserved, one.remaining) for one in books.budget_status("p", now_ms, key_id)]


def test_an_estimate_is_held_back_until_it_is_settled() -> None:
    books = ledger(MONEY)
    reservation = books.reserve("p", "k", 600, 10, NOW)
    assert figures(books) == [(0, 600, 400)]
    with pytest.raises(BudgetExceededError):
        books.reserve("p", "k", 401, 10, NOW)
    assert reservation.settle(100, 7)
    assert figures(books) == [(100, 0, 900)]
    books.reserve("p", "k", 900, 10, NOW)


def test_the_first_word_counts() -> None:
    books = ledger(MONEY)
    settled, released = books.reserve("p", None, 300, 1, NOW), books.reserve("p", None, 300, 1, NOW)
    assert settled.settle(200, 1)
    assert released.release()
    assert not any([settled.settle(999, 9), settled.release(), released.settle(999, 9), released.release()])
    assert figures(books) == [(200, 0, 800)]


def test_more_than_was_estimated_is_counted_as_well() -> None:
    books = ledger(MONEY)
    books.reserve("p", None, 1_000, 1, NOW).settle(1_700, 1)
    assert figures(books) == [(1_700, 0, 0)]
    with pytest.raises(BudgetExceededError):
        books.reserve("p", None, 0, 0, NOW)


@pytest.mark.parametrize(
    ("amount", "estimate", "is_let_in"),
    [(0, 0, False), (0, 1, False), (1, 0, True), (1, 1, True), (1, 2, False), (1_000, 1_000, True)],
)
@pytest.mark.parametrize("unit", list(BudgetUnit))
def test_the_edge_of_a_budget(unit: BudgetUnit, amount: int, estimate: int, is_let_in: bool) -> None:
    books = ledger(Budget("p", Period.DAY, unit, amount))
    if is_let_in:
        books.reserve("p", None, estimate, estimate, NOW)
        return
    with pytest.raises(BudgetExceededError):
        books.reserve("p", None, estimate, estimate, NOW)


def test_a_refusal_says_everything() -> None:
    books = ledger(Budget("p", Period.DAY, BudgetUnit.MICROS, 5_000_000))
    spend(books, 4_750_000)
    with pytest.raises(BudgetExceededError) as caught:
        books.reserve("p", None, 500_000, 10, NOW)
    error = caught.value
    assert (error.status, error.code, error.retry_after_seconds) == (429, "insufficient_quota", None)
    told = (
        "Budget exceeded: project `p` has 0.25 USD of 5.00 USD left for 2026-11-21; the request needs about 0.50 USD."
    )
    assert error.message == told
    assert error.details == {
        "detail": "Budget exceeded",
        "project": "p",
        "key_id": None,
        "period": "day",
        "unit": "micros",
        "amount": 5_000_000,
        "spent": 4_750_000,
        "reserved": 0,
        "estimate": 500_000,
        "resets_at_ms": (NOW // DAY_MS + 1) * DAY_MS,
    }


def test_a_refusal_in_tokens() -> None:
    books = ledger(TOKENS)
    with pytest.raises(
        BudgetExceededError, match=r"has 100 tokens of 100 tokens left for 2026-11; .* about 101 tokens"
    ):
        books.reserve("p", None, 0, 101, NOW)


def test_what_one_budget_refuses_counts_in_none() -> None:
    own = Budget("p", Period.DAY, BudgetUnit.TOKENS, 10, key_id="k")
    books = ledger(MONEY, TOKENS, own)
    with pytest.raises(BudgetExceededError, match="key `k`"):
        books.reserve("p", "k", 5, 11, NOW)
    assert figures(books) == [(0, 0, 1_000), (0, 0, 100)]
    assert figures(books, key_id="k") == [(0, 0, 10)]
    books.reserve("p", "other", 5, 11, NOW).settle(5, 11)
    assert figures(books) == [(5, 0, 995), (11, 0, 89)]
    assert figures(books, key_id="other") == []


def test_a_model_without_a_price_is_refused_to_budgets_in_money_only() -> None:
    books = ledger(MONEY)
    with pytest.raises(PriceUnknownError, match=r"no price, and project `p` has a budget in money") as caught:
        books.reserve("p", None, None, 1, NOW)
    assert isinstance(caught.value, ForbiddenError)
    assert (caught.value.status, caught.value.code, caught.value.param) == (403, "price_unknown", "model")
    books.set_budgets([TOKENS])
    books.reserve("p", None, None, 60, NOW)
    assert figures(books) == [(0, 60, 40)]
    books.reserve("unknown", None, None, 60, NOW)


def test_without_a_budget_nothing_is_refused_and_everything_counted() -> None:
    books = ledger()
    spend(books, 10**15, 10**12)
    assert books.used("p", NOW) == dict.fromkeys(Period, (10**15, 10**12, 0))
    assert books.used("nobody", NOW) == books.used("p", NOW, "no key") == dict.fromkeys(Period, (0, 0, 0))
    assert books.budget_status("nobody", NOW) == ()


def test_a_budget_counts_what_was_used_before_it_was_set() -> None:
    books = ledger()
    spend(books, 400, 40)
    held = books.reserve("p", None, 300, 30, NOW)
    books.set_budgets([MONEY, TOKENS])
    assert figures(books) == [(400, 300, 300), (40, 30, 30)]
    held.settle(1, 1)
    books.set_budgets([TOKENS])
    assert figures(books) == [(41, 0, 59)]
    books.set_budgets([])
    spend(books, 10**9, 10**9)


def test_a_new_period_begins_empty() -> None:
    budgets = [Budget("p", period, BudgetUnit.MICROS, 1_000) for period in Period]
    books = ledger(*budgets)
    spend(books, 100)
    assert figures(books, NOW + DAY_MS) == [(0, 0, 1_000), (100, 0, 900), (100, 0, 900)]
    spend(books, 10, now_ms=NOW + DAY_MS)
    assert figures(books, NOW + DAY_MS) == [(10, 0, 990), (110, 0, 890), (110, 0, 890)]
    assert figures(books, NOW + 2 * DAY_MS) == [(0, 0, 1_000), (0, 0, 1_000), (110, 0, 890)]
    assert figures(books, NOW + 10 * DAY_MS) == [(0, 0, 1_000)] * 3


def test_a_request_is_settled_into_the_period_in_which_it_was_accepted() -> None:
    budgets = [Budget("p", period, BudgetUnit.MICROS, 1_000) for period in Period]
    books = ledger(*budgets)
    held = books.reserve("p", None, 500, 1, NOW)
    tomorrow = NOW + DAY_MS
    assert figures(books, tomorrow) == [(0, 0, 1_000), (0, 500, 500), (0, 500, 500)]
    held.settle(700, 1)
    assert figures(books, tomorrow) == [(0, 0, 1_000), (700, 0, 300), (700, 0, 300)]
    assert figures(books, NOW) == [(700, 0, 300)] * 3


@pytest.mark.parametrize("unit", list(BudgetUnit))
def test_what_is_held_back_since_yesterday_is_not_there_today(unit: BudgetUnit) -> None:
    books = ledger(Budget("p", Period.WEEK, unit, 1_000))
    held = books.reserve("p", None, 800, 800, NOW)
    tomorrow = NOW + DAY_MS
    with pytest.raises(BudgetExceededError):
        books.reserve("p", None, 201, 201, tomorrow)
    books.reserve("p", None, 200, 200, tomorrow).release()
    held.settle(900, 900)
    with pytest.raises(BudgetExceededError):
        books.reserve("p", None, 101, 101, tomorrow)


@pytest.mark.parametrize("days", [1, -1, 365, -365])
def test_the_wall_clock_set_and_set_back_loses_nothing(days: int) -> None:
    books = ledger(MONEY, TOKENS)
    spend(books, 400, 40)
    held = books.reserve("p", None, 100, 10, NOW)
    there = NOW + days * DAY_MS
    spend(books, 1, 1, now_ms=there)
    assert books.used("p", there)[Period.DAY] == (1, 1, 0)
    held.settle(50, 5)
    assert figures(books)[0] == (450, 0, 550)
    assert books.used("p", NOW)[Period.DAY] == (450, 45, 0)


def test_old_days_are_forgotten_and_this_month_is_not() -> None:
    books = ledger(TOKENS)
    first = NOW - 400 * DAY_MS
    for day in range(401):
        spend(books, 1, 1, now_ms=first + day * DAY_MS)
    assert books.used("p", NOW) == {Period.DAY: (1, 1, 0), Period.WEEK: (6, 6, 0), Period.MONTH: (21, 21, 0)}
    purse = books._projects["p"]
    assert len(purse._days) <= KEPT_DAYS + 1


def test_what_the_books_hold_is_restored() -> None:
    books = ledger(MONEY, TOKENS, Budget("p", Period.WEEK, BudgetUnit.MICROS, 5_000, key_id="k"))
    day = NOW // DAY_MS * DAY_MS
    books.restore(
        [
            UsedInDay("p", None, day, 100, 1, 1),
            UsedInDay("p", "k", day, 200, 2, 0),
            UsedInDay("p", "k", day - DAY_MS, 400, 4, 0),
            UsedInDay("p", "k", day - 7 * DAY_MS, 800, 8, 4),
            UsedInDay("p", "k", day - 30 * DAY_MS, 1_600, 16, 8),
            UsedInDay("q", "x", day, 9_999, 9_999, 9),
        ]
    )
    assert figures(books) == [(300, 0, 700), (15, 0, 85)]
    assert figures(books, key_id="k") == [(600, 0, 4_400)]
    assert books.used("p", NOW) == {Period.DAY: (300, 3, 1), Period.WEEK: (700, 7, 1), Period.MONTH: (1_500, 15, 5)}
