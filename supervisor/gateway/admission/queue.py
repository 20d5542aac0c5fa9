"""The waiting line: bounded, and fair by project and key. Pure: it knows no instance, no clock and no task.

Projects take turns; within a project its keys take turns; within a key the first that came is the first served. So a ticket that is the k-th of its
key is served after at most k × (keys of its project that wait) × (projects that wait) others, however much traffic anybody sends. Batch work waits in
a line of its own, which gets a turn when nobody else waits, and every BATCH_TURN-th turn when somebody does: it yields, but it does not starve.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

BATCH_TURN = 16


@dataclass(eq=False, slots=True)
class Ticket:
    """A place in the line. `owner` is whatever the caller wants to find again."""

    project: str
    key: str | None
    is_batch: bool = False
    owner: Any = None


@dataclass(slots=True)
class _Line:
    """One class of tickets: by project, then by key, each in the order of their turns."""

    projects: OrderedDict[str, OrderedDict[str | None, deque[Ticket]]] = field(default_factory=OrderedDict)
    count: int = 0

    def add(self, ticket: Ticket) -> None:
        keys = self.projects.setdefault(ticket.project, OrderedDict())
        keys.setdefault(ticket.key, deque()).append(ticket)
        self.count += 1

    def remove(self, ticket: Ticket) -> bool:
        keys = self.projects.get(ticket.project, OrderedDict())
        tickets = keys.get(ticket.key, deque())
        if ticket not in tickets:
            return False
        tickets.remove(ticket)
        self._tidy(ticket)
        return True

    def count_of(self, project: str, key: str | None) -> int:
        keys = self.projects.get(project)
        tickets = None if keys is None else keys.get(key)
        return 0 if tickets is None else len(tickets)

    def pop(self) -> Ticket:
        """The next in turn; whoever had it goes to the end."""
        project, keys = next(iter(self.projects.items()))
        key, tickets = next(iter(keys.items()))
        ticket = tickets.popleft()
        keys.move_to_end(key)
        self.projects.move_to_end(project)
        self._tidy(ticket)
        return ticket

    def _tidy(self, ticket: Ticket) -> None:
        self.count -= 1
        keys = self.projects[ticket.project]
        if not keys[ticket.key]:
            del keys[ticket.key]
        if not keys:
            del self.projects[ticket.project]

    def order(self) -> Iterator[Ticket]:
        """Every ticket in the order in which they will be served, if nobody else comes."""
        waiting = {
            project: {key: iter(tickets) for key, tickets in keys.items()} for project, keys in self.projects.items()
        }
        while waiting:
            for project in list(waiting):
                ticket = _next_of(waiting[project])
                if ticket is None:
                    del waiting[project]
                else:
                    yield ticket


def _next_of(keys: dict[str | None, Iterator[Ticket]]) -> Ticket | None:
    """The next ticket of the key whose turn it is, which goes to the end."""
    while keys:
        key = next(iter(keys))
        tickets = keys.pop(key)
        ticket = next(tickets, None)
        if ticket is not None:
            keys[key] = tickets
            return ticket
    return None


class FairQueue:
    """See the module."""

    def __init__(self) -> None:
        self._interactive = _Line()
        self._batch = _Line()
        self._turns = 0

    def __len__(self) -> int:
        return self._interactive.count + self._batch.count

    def count_of(self, project: str, key: str | None) -> int:
        """Tickets of one key, both classes."""
        return self._interactive.count_of(project, key) + self._batch.count_of(project, key)

    def add(self, ticket: Ticket) -> None:
        """Wait."""
        (self._batch if ticket.is_batch else self._interactive).add(ticket)

    def remove(self, ticket: Ticket) -> bool:
        """Wait no more; False when it does not wait (any more)."""
        return (self._batch if ticket.is_batch else self._interactive).remove(ticket)

    def pop(self) -> Ticket:
        """Whose turn it is. IndexError when nobody waits."""
        if not len(self):
            raise IndexError("nobody waits")
        self._turns += 1
        return self._line().pop()

    def tickets(self) -> Iterator[Ticket]:
        """All, in the order in which they will be served if nobody else comes (batch work last, whatever its turns)."""
        yield from self._interactive.order()
        yield from self._batch.order()

    def position(self, ticket: Ticket) -> int:
        """1 for the next to be served, if nobody else comes; 0 for one that does not wait."""
        return next((place for place, each in enumerate(self.tickets(), 1) if each is ticket), 0)

    def _line(self) -> _Line:
        if not self._batch.count:
            return self._interactive
        if not self._interactive.count or self._turns % BATCH_TURN == 0:
            return self._batch
        return self._interactive
