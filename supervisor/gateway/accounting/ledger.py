"""The two-phase ledger of budgets: reserve an estimate before a request is let in, settle what it really used. Exact, in memory, never waits.

Everything is counted for every project and key, whether it has a budget or not, so that a budget takes effect in the middle of a period with what
was used before. A request belongs to the period in which it was accepted, however much later it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from supervisor.errors import BudgetExceededError, PriceUnknownError
from supervisor.gateway.accounting import periods
from supervisor.storage.accounts import Budget, BudgetUnit, Period, UsedInDay
from supervisor.storage.money import decimal_text

PERIODS = tuple(Period)
KEPT_DAYS = 62
"""Days of use that are kept of each project and key: two months, so that the wall clock may be set forward and back without losing one."""

UNIT_MICROS = BudgetUnit.MICROS


class Used(NamedTuple):
    """What the requests that were settled came to. `unpriced_requests` of them used tokens that have no price: `micros` is without those."""

    micros: int = 0
    tokens: int = 0
    unpriced_requests: int = 0


class _Use(NamedTuple):
    """What is used, and held back, over some time."""

    spent_micros: int = 0
    spent_tokens: int = 0
    reserved_micros: int = 0
    reserved_tokens: int = 0
    unpriced_requests: int = 0


class _Day:
    """What is used, and held back, of one project or key on one day."""

    __slots__ = _Use._fields

    def __init__(self) -> None:
        self.spent_micros = self.spent_tokens = 0
        self.reserved_micros = self.reserved_tokens = 0
        self.unpriced_requests = 0


class _Today(NamedTuple):
    """The day of now, and the periods that it lies in (in the order of `PERIODS`)."""

    start_ms: int
    end_ms: int
    spans: tuple[periods.Span, ...]

    @classmethod
    def at(cls, at_ms: int) -> _Today:
        return cls(*periods.span(Period.DAY, at_ms), tuple(periods.span(period, at_ms) for period in PERIODS))


class _Purse:
    """The days of one project or key. A request touches only `today`; what the other days of a period came to is added up once a day."""

    __slots__ = ("_days", "_elsewhere", "budgets", "date", "today")

    def __init__(self, today: _Today) -> None:
        self.budgets: tuple[tuple[int, Budget], ...] = ()
        self._days: dict[int, _Day] = {}
        self.turn(today)

    def turn(self, today: _Today) -> None:
        """It is another day."""
        self.date = today
        self.today = self.day(today.start_ms)
        self.forget_sums()
        for start_ms in list(self._days)[:-KEPT_DAYS]:
            if start_ms != today.start_ms:
                del self._days[start_ms]

    def day(self, start_ms: int) -> _Day:
        """The day that starts then."""
        return self._days.setdefault(start_ms, _Day())

    def forget_sums(self) -> None:
        """A day other than today has changed."""
        self._elsewhere: tuple[_Use, ...] | None = None

    def elsewhere(self) -> tuple[_Use, ...]:
        """What the other days of each period came to."""
        if self._elsewhere is None:
            self._elsewhere = tuple(self._sum_of(span) for span in self.date.spans)
        return self._elsewhere

    def use(self, at: int) -> _Use:
        """What the whole period came to, by its place in `PERIODS`."""
        return _added(self.elsewhere()[at], self.today)

    def _sum_of(self, span: periods.Span) -> _Use:
        use = _Use()
        for start_ms, day in self._days.items():
            if span.start_ms <= start_ms < span.end_ms and day is not self.today:
                use = _added(use, day)
        return use


class Reservation:
    """What is held back for one request. It is settled or released exactly once: the first word counts, later ones change nothing."""

    __slots__ = ("_counted", "_is_open", "micros", "tokens")

    def __init__(self, counted: tuple[tuple[_Purse, _Day], ...], micros: int, tokens: int) -> None:
        self.micros = micros
        self.tokens = tokens
        self._counted = counted
        self._is_open = True
        for _, day in counted:
            day.reserved_micros += micros
            day.reserved_tokens += tokens

    def settle(self, micros: int | None, tokens: int) -> bool:
        """Count what was really used, on the day of the reservation; more than was held back is counted as well. False: it was settled before.

        `micros` None: the tokens have no price.
        """
        if not self._is_open:
            return False
        self._is_open = False
        spent, unpriced = micros or 0, 1 if micros is None and tokens else 0
        for purse, day in self._counted:
            day.reserved_micros -= self.micros
            day.reserved_tokens -= self.tokens
            day.spent_micros += spent
            day.spent_tokens += tokens
            day.unpriced_requests += unpriced
            if day is not purse.today:
                purse.forget_sums()
        return True

    def release(self) -> bool:
        """Give everything back: nothing was used. False: it was settled before."""
        return self.settle(0, 0)


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """How a budget stands in the period of now (`start_ms` to before `end_ms`), in its unit. `reserved` is held back for requests on their way."""

    budget: Budget
    start_ms: int
    end_ms: int
    spent: int
    reserved: int

    @property
    def remaining(self) -> int:
        """What a request may still use: never below zero, though the last requests may have used more than was estimated."""
        return max(0, self.budget.amount - self.spent - self.reserved)


class Ledger:
    """See the module. Projects and keys are known by their names and ids; one that was never heard of has used nothing."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self._projects: dict[str, _Purse] = {}
        self._keys: dict[str, _Purse] = {}
        self._today = _Today.at(0)

    def set_budgets(self, budgets: Iterable[Budget]) -> None:
        """Replace all budgets. What was used and what is held back in the periods that they name counts at once."""
        for purse in (*self._projects.values(), *self._keys.values()):
            purse.budgets = ()
        for budget in budgets:
            purse = self._purse(budget.project, budget.key_id)
            purse.budgets = (*purse.budgets, (PERIODS.index(budget.period), budget))

    def restore(self, used: Iterable[UsedInDay]) -> None:
        """Count what the books say was used: the days of every period that may still be asked for. For an empty ledger, at boot."""
        for row in used:
            owners = (None,) if row.key_id is None else (None, row.key_id)
            for purse in (self._purse(row.project, owner) for owner in owners):
                day = purse.day(row.day_start_ms)
                day.spent_micros += row.micros
                day.spent_tokens += row.tokens
                day.unpriced_requests += row.unpriced_requests
                purse.forget_sums()

    def reserve(self, project: str, key_id: str | None, micros: int | None, tokens: int, now_ms: int) -> Reservation:
        """Hold an estimate back (`micros` None: the model has no price), or refuse: BudgetExceededError, PriceUnknownError.

        A budget refuses when nothing of it is left (so that one of zero refuses everything), and when the estimate is more than what is left.
        """
        self._turn(now_ms)
        purse = self._today_of(self._projects.get(project) or self._purse(project, None))
        if purse.budgets:
            self._check(purse, micros, tokens)
        if key_id is None:
            return Reservation(((purse, purse.today),), micros or 0, tokens)
        own = self._today_of(self._keys.get(key_id) or self._purse(project, key_id))
        if own.budgets:
            self._check(own, micros, tokens)
        return Reservation(((purse, purse.today), (own, own.today)), micros or 0, tokens)

    def budget_status(self, project: str, now_ms: int, key_id: str | None = None) -> tuple[BudgetStatus, ...]:
        """How each budget of the project stands (or, with `key_id`, of that key), in the order in which they were set."""
        purse = self._known(project, key_id, now_ms)
        return () if purse is None else tuple(self._status(purse, at, budget) for at, budget in purse.budgets)

    def used(self, project: str, now_ms: int, key_id: str | None = None) -> Mapping[Period, Used]:
        """What the project (or the key) has settled in each period of now."""
        purse = self._known(project, key_id, now_ms)
        uses = [_Use() if purse is None else purse.use(at) for at in range(len(PERIODS))]
        return {
            period: Used(use.spent_micros, use.spent_tokens, use.unpriced_requests)
            for period, use in zip(PERIODS, uses, strict=True)
        }

    def _turn(self, now_ms: int) -> None:
        if not self._today.start_ms <= now_ms < self._today.end_ms:
            self._today = _Today.at(now_ms)

    def _today_of(self, purse: _Purse) -> _Purse:
        if purse.date is not self._today:
            purse.turn(self._today)
        return purse

    def _known(self, project: str, key_id: str | None, now_ms: int) -> _Purse | None:
        self._turn(now_ms)
        purse = self._projects.get(project) if key_id is None else self._keys.get(key_id)
        return None if purse is None else self._today_of(purse)

    def _purse(self, project: str, key_id: str | None) -> _Purse:
        purses, name = (self._projects, project) if key_id is None else (self._keys, key_id)
        purse = purses.get(name)
        if purse is None:
            purse = purses[name] = _Purse(self._today)
        return purse

    def _check(self, purse: _Purse, micros: int | None, tokens: int) -> None:
        today, elsewhere = purse.today, purse.elsewhere()
        for at, budget in purse.budgets:
            other = elsewhere[at]
            if budget.unit is UNIT_MICROS:
                if micros is None:
                    raise _price_unknown(budget)
                estimate = micros
                used = other.spent_micros + other.reserved_micros + today.spent_micros + today.reserved_micros
            else:
                estimate = tokens
                used = other.spent_tokens + other.reserved_tokens + today.spent_tokens + today.reserved_tokens
            if used >= budget.amount or used + estimate > budget.amount:
                raise self._exceeded(self._status(purse, at, budget), estimate)

    def _status(self, purse: _Purse, at: int, budget: Budget) -> BudgetStatus:
        use, span = purse.use(at), self._today.spans[at]
        if budget.unit is UNIT_MICROS:
            return BudgetStatus(budget, *span, use.spent_micros, use.reserved_micros)
        return BudgetStatus(budget, *span, use.spent_tokens, use.reserved_tokens)

    def _exceeded(self, status: BudgetStatus, estimate: int) -> BudgetExceededError:
        budget = status.budget
        left, amount, wanted = (
            f"{decimal_text(count)} {self.currency}" if budget.unit is UNIT_MICROS else f"{count} tokens"
            for count in (status.remaining, budget.amount, estimate)
        )
        period = periods.name(budget.period, status.start_ms)
        details = {
            "detail": "Budget exceeded",
            "project": budget.project,
            "key_id": budget.key_id,
            "period": budget.period.value,
            "unit": budget.unit.value,
            "amount": budget.amount,
            "spent": status.spent,
            "reserved": status.reserved,
            "estimate": estimate,
            "resets_at_ms": status.end_ms,
        }
        return BudgetExceededError(
            f"Budget exceeded: {_owner(budget)} has {left} of {amount} left for {period}; the request needs about {wanted}.",
            remedy="Have the budget raised, or wait for the next period.",
            details=details,
        )


def _added(use: _Use, day: _Day) -> _Use:
    return _Use(
        use.spent_micros + day.spent_micros,
        use.spent_tokens + day.spent_tokens,
        use.reserved_micros + day.reserved_micros,
        use.reserved_tokens + day.reserved_tokens,
        use.unpriced_requests + day.unpriced_requests,
    )


def _owner(budget: Budget) -> str:
    return f"project `{budget.project}`" if budget.key_id is None else f"key `{budget.key_id}`"


def _price_unknown(budget: Budget) -> PriceUnknownError:
    return PriceUnknownError(
        f"The model has no price, and {_owner(budget)} has a budget in money.",
        param="model",
        remedy="Set its price in `accounting.prices`, or use a model that has one.",
    )
