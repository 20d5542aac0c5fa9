"""The waiting line: bounded, and fair by project and key. Pure: it knows no instance, no clock and no task.

Projects take turns; within a project its keys take turns; within a key the first that came is the first served. So a ticket that is the k-th of its
key is served after at most k × (keys of its project that wait) × (projects that wait) others, however much traffic anybody sends. Batch work waits in
a line of its own, which gets a turn when nobody else waits, and every BATCH_TURN-th turn when somebody does: it yields, but it does not starve.

Whoever keeps the line bounded asks `who_yields`: of a full line the newest ticket of the one that holds the most leaves for somebody who holds less.
So who asks for a lot fills the line only as long as nobody else wants it.
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


_Keys = OrderedDict[str | None, deque[Ticket]]


@dataclass(slots=True)
class _Line:
    """One class of tickets: by project, then by key, each in the order of their turns."""

    projects: OrderedDict[str, _Keys] = field(default_factory=OrderedDict)
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

    def pop(self) -> Ticket:
        """The next in turn; whoever had it goes to the end."""
        project, keys = next(iter(self.projects.items()))
        key, tickets = next(iter(keys.items()))
        ticket = tickets.popleft()
        keys.move_to_end(key)
        self.projects.move_to_end(project)
        self._tidy(ticket)
        return ticket

    def newest_of_largest(self) -> Ticket:
        """The newest ticket of the largest key of the project that holds the most."""
        return _newest(max(self.projects.values(), key=_size))

    def who_yields(self, project: str, key: str | None) -> Ticket | None:
        """See `FairQueue.who_yields`. Who would hold more than the other afterwards, does not get the room: nobody is to gain by turns."""
        nothing: _Keys = OrderedDict()
        mine = self.projects.get(project, nothing)
        largest = max(self.projects.values(), key=_size, default=nothing)
        if _size(largest) > _size(mine) + 1:
            return _newest(largest)
        if mine and max(map(len, mine.values())) > len(mine.get(key, ())) + 1:
            return _newest(mine)
        return None

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


def _size(keys: _Keys) -> int:
    return sum(map(len, keys.values()))


def _newest(keys: _Keys) -> Ticket:
    return max(keys.values(), key=len)[-1]


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

    def who_yields(self, project: str, key: str | None, *, is_batch: bool) -> Ticket | None:
        """Whose ticket leaves so that one of `key` finds room; None: nobody's. Batch work leaves for everybody else."""
        if self._batch.count and not is_batch:
            return self._batch.newest_of_largest()
        return (self._batch if is_batch else self._interactive).who_yields(project, key)

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
