"""What the queue asks of whoever loads models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from supervisor.clock import Clock
from supervisor.errors import LlamavisorError
from supervisor.gateway.resolve import why_not_ready
from supervisor.process.instance import Instance
from supervisor.process.states import State

STAYS_AS_IT_IS = frozenset({State.INITIAL, State.ERROR})


class Loads(Protocol):
    """See the module; `supervisor.fleet.placement` loads on demand."""

    def want(self, instance: str, on_failure: Callable[[LlamavisorError], None]) -> Callable[[], None]:
        """Ask that an instance become ready.

        `on_failure` is called at most once, perhaps before this returns, when it will not. The answer withdraws the wish, idempotently: when the
        last one is withdrawn, a load that was begun on demand may be cancelled.
        """


class NoLoads:
    """Loads nothing: an instance that stays as it is until somebody acts is refused at once; what gets ready by itself is waited for."""

    def __init__(self, find: Callable[[str], Instance], clock: Clock) -> None:
        self._find = find
        self._clock = clock

    def want(self, instance: str, on_failure: Callable[[LlamavisorError], None]) -> Callable[[], None]:
        """See `Loads.want`."""
        found = self._find(instance)
        if found.state in STAYS_AS_IT_IS:
            on_failure(why_not_ready(found.snapshot(), self._clock.wall()))
        return lambda: None
