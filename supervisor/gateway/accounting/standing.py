"""How a caller stands: what its project has used this month, and what is left of its tightest budget."""

from __future__ import annotations

from supervisor.gateway.accounting.bookkeeper import Bookkeeper
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.accounting.ledger import BudgetStatus as Standing
from supervisor.gateway.routing import BudgetStatus
from supervisor.storage.accounts import BudgetUnit, Period


def budget_status(bookkeeper: Bookkeeper, caller: Caller) -> BudgetStatus:
    """In tokens: the month's use, and the limit and the rest of that budget in tokens of which the least is left (None: there is none)."""
    now_ms, ledger = bookkeeper.now_ms(), bookkeeper.ledger
    used = ledger.used(caller.project, now_ms)[Period.MONTH]
    standings = [*ledger.budget_status(caller.project, now_ms)]
    if caller.key_id is not None:
        standings += ledger.budget_status(caller.project, now_ms, caller.key_id)
    least = _least([standing for standing in standings if standing.budget.unit is BudgetUnit.TOKENS])
    limit = None if least is None else least.budget.amount
    return BudgetStatus(used.tokens, used.micros, limit, None if least is None else least.remaining)


def tightest(bookkeeper: Bookkeeper, project: str, period: Period) -> Standing | None:
    """The project's budget for that period, the one in tokens first; None when it has none."""
    standings = bookkeeper.ledger.budget_status(project, bookkeeper.now_ms())
    own = [standing for standing in standings if standing.budget.period is period]
    return _least([standing for standing in own if standing.budget.unit is BudgetUnit.TOKENS]) or _least(own)


def _least(standings: list[Standing]) -> Standing | None:
    return min(standings, key=lambda standing: standing.remaining, default=None)
