"""One request that waits, and what it is told meanwhile."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from supervisor.clock import Timer
from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.tickets import Ticket
from supervisor.process.states import State

if TYPE_CHECKING:
    from supervisor.gateway.admission.places import Place


@dataclass(frozen=True, slots=True)
class Waiting:
    """How a request that waits stands.

    `position` 1 is next. `estimate_seconds` is how long it may still take; None when nobody can tell, as while a model is being loaded.
    `state` is that of the readiest replica: `ready` means that it waits for a place, `starting` that the model is being loaded;
    `load_progress`, 0 to 1, how far, where that is known.
    """

    position: int
    estimate_seconds: float | None
    load_progress: float | None
    state: State

    @property
    def ahead(self) -> int:
        """How many go before it."""
        return self.position - 1

    def says_the_same_as(self, other: Waiting | None) -> bool:
        """Whether nothing has happened since, but that time has passed."""
        return other is not None and (self.position, self.load_progress, self.state) == (
            other.position,
            other.load_progress,
            other.state,
        )


OnWait = Callable[[Waiting], None]


class Waiter(Ticket):
    """A ticket with a request behind it: `granted` becomes its place, or the reason why there is none."""

    __slots__ = ("granted", "on_wait", "since", "timer", "told")

    def __init__(self, caller: Caller, *, batch: bool, since: float, on_wait: OnWait | None) -> None:
        super().__init__(caller.project, caller.key_id, batch=batch)
        self.granted: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self.since = since
        self.on_wait = on_wait
        self.told: Waiting | None = None
        self.timer: Timer | None = None

    @property
    def has_left(self) -> bool:
        """Whether it was cancelled, and its task has yet to notice."""
        return self.granted.done()

    def refuse(self, error: LlamavisorError) -> None:
        """Tell it why it is not served. It gets an error of its own: one that many raise would collect the traces of all of them."""
        if not self.granted.done():
            self.granted.set_exception(copy.copy(error))

    def give_back(self) -> None:
        """It was cancelled in the same breath in which it got a place, or a refusal, perhaps."""
        if self.granted.done() and not self.granted.cancelled() and self.granted.exception() is None:
            self.granted.result().leave()

    def disarm(self) -> None:
        """Forget its deadline."""
        if self.timer is not None:
            self.timer.cancel()
