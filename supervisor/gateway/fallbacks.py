"""Which models may stand in for one that cannot serve, and when. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from supervisor.errors import EngineDeadlineError, EngineDiedError, NotAvailableError
from supervisor.gateway.admission.admission import QueueFullError
from supervisor.gateway.losses import EngineRefusedError

# What another model may do better; a limit, a budget or a bad field is the same with every model.
CANNOT_SERVE = (EngineDeadlineError, EngineDiedError, EngineRefusedError, NotAvailableError, QueueFullError)


def fallback_order(name: str, chains: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What to try in place of `name`: its fallbacks in their order, after each the fallbacks of that one; every name once, itself never.

    Ends for chains that go round in a circle, too, though the settings refuse those.
    """
    order: dict[str, None] = {name: None}
    upcoming = list(reversed(chains.get(name, ())))
    while upcoming:
        following = upcoming.pop()
        if following not in order:
            order[following] = None
            upcoming += reversed(chains.get(following, ()))
    return tuple(order)[1:]
