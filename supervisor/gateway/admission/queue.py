"""The queue in front of a set of replicas: bounded, fair by project and by key within a project, interactive before batch. Pure.

Who is next:

- Projects take turns, one request each; within a project its keys do; within a key, who came first goes first. A request that is the first of its key
  waits for at most `projects × keys of its project - 1` others (as many as there are at once meanwhile), however many requests those have waiting.
- Batch requests go when nobody else waits, but every `BATCH_TURN`-th place goes to one of them: they yield, and are not starved for ever.

Who finds room when all places in the queue are taken: a request of a project that holds less than another one does. The newest of the project that
holds the most yields to it, of its key that holds the most; batch requests yield to all others first. So who asks for a lot fills the queue only as
long as nobody else wants it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic

from supervisor.gateway.admission.tickets import Ring, T

BATCH_TURN = 16
"""Of so many places that are given while batch requests wait, one is theirs."""

_PROJECTS_AND_KEYS = 2


class FairQueue(Generic[T]):
    """See the module. `limit` may change at any time; what waits already stays. `size` is how many wait."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._interactive: Ring[T] = Ring(_PROJECTS_AND_KEYS)
        self._batch: Ring[T] = Ring(_PROJECTS_AND_KEYS)
        self._passed_over = 0

    @property
    def yields(self) -> bool:
        """Whether the next is a batch request that goes only because nobody else waits, so that it may as well leave some room."""
        return not self._interactive.size

    def add(self, ticket: T) -> T | None:
        """Join, and return who leaves for it: None: nobody; the ticket itself: there is no room for it; another one: that has left the queue."""
        leaver = self._who_yields_to(ticket) if self.size >= self.limit else None
        if leaver is ticket:
            return ticket
        if leaver is not None:
            self.remove(leaver)
        self._ring_of(ticket).add(ticket, ticket.path)
        self.size += 1
        return leaver

    def pop(self) -> T:
        """Take off the ticket whose turn it is; the queue must not be empty."""
        self.size -= 1
        if self._is_batch_turn(self._interactive.size, self._passed_over):
            self._passed_over = 0
            return self._batch.pop()
        if self._batch.size:
            self._passed_over += 1
        return self._interactive.pop()

    def remove(self, ticket: T) -> bool:
        """Take one off wherever it stands; False when it does not wait here (any more)."""
        if not self._ring_of(ticket).remove(ticket, ticket.path):
            return False
        self.size -= 1
        return True

    def order(self) -> Iterator[T]:
        """Everybody in the order in which `pop` would give them if nobody came or left. Linear in their number; not to be mixed with changes."""
        interactive, batch = self._interactive.order(), self._batch.order()
        waiting, waiting_batch, passed_over = self._interactive.size, self._batch.size, self._passed_over
        while waiting or waiting_batch:
            if waiting_batch and self._is_batch_turn(waiting, passed_over):
                waiting_batch, passed_over = waiting_batch - 1, 0
                yield next(batch)
            else:
                waiting, passed_over = waiting - 1, passed_over + (waiting_batch > 0)
                yield next(interactive)

    def position(self, ticket: T) -> int:
        """Which in the line a waiting ticket is: 1 is next. Linear; ValueError when it does not wait here."""
        for number, other in enumerate(self.order(), 1):
            if other is ticket:
                return number
        raise ValueError("the ticket is not in the queue")

    def _ring_of(self, ticket: T) -> Ring[T]:
        return self._batch if ticket.batch else self._interactive

    def _is_batch_turn(self, waiting: int, passed_over: int) -> bool:
        return not waiting or (self._batch.size > 0 and passed_over >= BATCH_TURN - 1)

    def _who_yields_to(self, ticket: T) -> T:
        if self._batch.size and not ticket.batch:
            return self._batch.newest()
        ring = self._ring_of(ticket)
        return (ring.who_yields(ticket.path) if ring.size else None) or ticket
