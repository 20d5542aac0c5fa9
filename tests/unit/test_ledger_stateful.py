"""The ledger against a reference that keeps every request and adds them all up each time: whatever the order, and whenever it is restarted.

steps: 5,000 in a test run, 110,000 in `make soak`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from supervisor.errors import BudgetExceededError, LlamavisorError, PriceUnknownError
from supervisor.gateway.accounting.ledger import Ledger, Reservation
from supervisor.gateway.accounting.periods import DAY_MS, span
from supervisor.storage.accounts import Budget, BudgetUnit, Period, UsedInDay

NOW = int(datetime(2026, 11, 28, 20, tzinfo=UTC).timestamp() * 1_000)
HOUR_MS = 3_600_000
CLIENTS = 64
OWNERS = [("p", None), ("p", "a"), ("p", "b"), ("q", None), ("q", "c")]
AMOUNTS = st.integers(0, 40)
BUDGETS = st.lists(
    st.builds(
        lambda owner, period, unit, amount: Budget(owner[0], period, unit, amount, owner[1]),
        st.sampled_from(OWNERS),
        st.sampled_from(Period),
        st.sampled_from(BudgetUnit),
        st.integers(0, 120),
    ),
    max_size=6,
)


@dataclass
class Kept:
    """A request as the reference keeps it: `spent` is None as long as it is on its way."""

    project: str
    key_id: str | None
    accepted_at_ms: int
    estimate: tuple[int, int]
    reservation: Reservation
    spent: tuple[int, int] | None = None
    is_unpriced: bool = False

    def is_of(self, project: str, key_id: str | None, period: Period, now_ms: int) -> bool:
        """Whether it counts to this owner in the period of now."""
        start_ms, end_ms = span(period, now_ms)
        return project == self.project and key_id in (None, self.key_id) and start_ms <= self.accepted_at_ms < end_ms


def at(unit: BudgetUnit) -> int:
    """The place of the unit in a pair of micro-units and tokens."""
    return 0 if unit is BudgetUnit.MICROS else 1


class LedgerAgainstReference(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW
        self.kept: list[Kept] = []
        self.ledger = Ledger("USD")
        self.budgets: list[Budget] = []

    @initialize(budgets=BUDGETS)
    def begin(self, budgets: list[Budget]) -> None:
        self.budgets = budgets
        self.ledger.set_budgets(budgets)

    def figures(self, budget: Budget) -> tuple[int, int, int]:
        """Spent, reserved, and by how much the settled went beyond their estimates, in the budget's unit."""
        unit = at(budget.unit)
        owner = budget.project, budget.key_id
        counted = [one for one in self.kept if one.is_of(*owner, budget.period, self.now_ms)]
        spent = sum(one.spent[unit] for one in counted if one.spent)
        reserved = sum(one.estimate[unit] for one in counted if not one.spent)
        beyond = sum(max(0, one.spent[unit] - one.estimate[unit]) for one in counted if one.spent)
        return spent, reserved, beyond

    def refuses(self, budget: Budget, owner: tuple[str, str | None], micros: int | None, tokens: int) -> bool:
        """Whether the budget refuses the estimate of this owner."""
        project, key_id = owner
        if budget.project != project or budget.key_id not in (None, key_id):
            return False
        estimate = micros if budget.unit is BudgetUnit.MICROS else tokens
        spent, reserved, _ = self.figures(budget)
        return estimate is None or spent + reserved >= budget.amount or spent + reserved + estimate > budget.amount

    @property
    def under_way(self) -> list[Kept]:
        """Requests that are not settled."""
        return [one for one in self.kept if one.spent is None]

    @rule(owner=st.sampled_from(OWNERS), micros=AMOUNTS | st.none(), tokens=AMOUNTS)
    def reserve(self, owner: tuple[str, str | None], micros: int | None, tokens: int) -> None:
        if len(self.under_way) >= CLIENTS:
            return
        refused = any(self.refuses(budget, owner, micros, tokens) for budget in self.budgets)
        try:
            reservation = self.ledger.reserve(*owner, micros, tokens, self.now_ms)
        except (BudgetExceededError, PriceUnknownError):
            assert refused
            return
        assert not refused
        self.kept.append(Kept(*owner, self.now_ms, (micros or 0, tokens), reservation))

    @precondition(lambda self: self.under_way)
    @rule(draw=st.data(), micros=AMOUNTS | st.none(), tokens=AMOUNTS, is_released=st.booleans())
    def settle(self, draw: st.DataObject, micros: int | None, tokens: int, is_released: bool) -> None:
        one = draw.draw(st.sampled_from(self.under_way))
        one.spent = (0, 0) if is_released else (micros or 0, tokens)
        one.is_unpriced = micros is None and one.spent[1] > 0
        assert one.reservation.release() if is_released else one.reservation.settle(micros, tokens)

    @precondition(lambda self: any(one.spent for one in self.kept))
    @rule(draw=st.data())
    def settle_again(self, draw: st.DataObject) -> None:
        one = draw.draw(st.sampled_from([one for one in self.kept if one.spent]))
        assert not one.reservation.settle(1_000, 1_000)
        assert not one.reservation.settle(None, 1_000)
        assert not one.reservation.release()

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        self.now_ms += hours * HOUR_MS

    @rule(days=st.sampled_from([-1, 1, 40]))
    def wall_clock_is_set(self, days: int) -> None:
        self.now_ms += days * DAY_MS

    @rule()
    def restart(self) -> None:
        # What was on its way is settled at boot as having used nothing; an old reservation must not reach the new ledger.
        interrupted = self.under_way
        for one in interrupted:
            one.spent = (0, 0)
        micros, tokens, unpriced = (Counter[tuple[str, str | None, int]]() for _ in range(3))
        for one in self.kept:
            day = (one.project, one.key_id, one.accepted_at_ms // DAY_MS * DAY_MS)
            spent = one.spent or (0, 0)
            micros[day] += spent[0]
            tokens[day] += spent[1]
            unpriced[day] += one.is_unpriced
        self.ledger = Ledger("USD")
        self.ledger.restore(UsedInDay(*day, micros[day], tokens[day], unpriced[day]) for day in micros)
        self.ledger.set_budgets(self.budgets)
        for one in interrupted:
            one.reservation.settle(1_000, 1_000)

    @invariant()
    def what_was_used_is_what_the_records_say(self) -> None:
        for owner in OWNERS:
            for period, used in self.ledger.used(owner[0], self.now_ms, owner[1]).items():
                mine = [one for one in self.kept if one.spent and one.is_of(*owner, period, self.now_ms)]
                spent = [one.spent or (0, 0) for one in mine]
                micros, tokens = (sum(each[unit] for each in spent) for unit in (0, 1))
                assert used == (micros, tokens, sum(one.is_unpriced for one in mine))

    @invariant()
    def every_budget_stands_as_the_records_say(self) -> None:
        for owner in OWNERS:
            mine = [budget for budget in self.budgets if (budget.project, budget.key_id) == owner]
            told = self.ledger.budget_status(owner[0], self.now_ms, owner[1])
            assert [one.budget for one in told] == mine
            for status in told:
                spent, reserved, beyond = self.figures(status.budget)
                assert (status.spent, status.reserved) == (spent, reserved)
                assert min(status.spent, status.reserved, status.remaining) >= 0
                assert spent + reserved <= status.budget.amount + beyond
                assert (status.start_ms, status.end_ms) == span(status.budget.period, self.now_ms)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_any_order_of_events_agrees_with_the_reference() -> None:
    run_state_machine_as_test(LedgerAgainstReference)


@given(st.integers(0, 2**32), st.integers(0, 500), st.booleans())
def test_64_clients_of_one_key_overspend_by_nothing_but_what_was_under_way(
    seed: int, amount: int, keeps_estimates: bool
) -> None:
    """Each client reserves and settles; all take turns in any order. `keeps_estimates`: none uses more than was estimated for it."""
    random = Random(seed)
    requests = [(random.randint(1, 30), random.randint(0, 60)) for _ in range(CLIENTS)]
    ledger = Ledger("USD")
    ledger.set_budgets([Budget("p", Period.MONTH, BudgetUnit.MICROS, amount)])
    turns = [client for client in range(CLIENTS) for _ in range(2)]
    random.shuffle(turns)
    held: dict[int, Reservation] = {}
    used = beyond = 0
    for client in turns:
        estimate, actual = requests[client]
        actual = min(actual, estimate) if keeps_estimates else actual
        if client in held:
            held[client].settle(actual, 0)
            used += actual
            beyond += max(0, actual - estimate)
        else:
            try:
                held[client] = ledger.reserve("p", "k", estimate, 0, NOW)
            except LlamavisorError:
                continue
        (status,) = ledger.budget_status("p", NOW)
        assert status.spent == used
        assert status.spent + status.reserved <= amount + beyond
        assert not keeps_estimates or status.spent + status.reserved <= amount
