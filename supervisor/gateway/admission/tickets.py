"""Rings of those who wait: who is next, who would yield, in which order. Pure; a ring holds rings, the innermost a line.

Each member of a ring gets its turn, one ticket at a time, and goes to the end of the ring with it; who is new, or comes back, joins at the end. So
between two turns of a member every other one has at most one, however much it asks for.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Ticket:
    """One request that waits. `project` and `key` say whose turn it takes; `batch`: it yields to those that are not."""

    __slots__ = ("batch", "key", "project")

    def __init__(self, project: str, key: str | None = None, *, batch: bool = False) -> None:
        self.project = project
        self.key = key
        self.batch = batch

    @property
    def path(self) -> tuple[str | None, ...]:
        """Its names in the rings, the outermost first."""
        return (self.project, self.key)


T = TypeVar("T", bound=Ticket)
Path = tuple[str | None, ...]


class _Member(Protocol[T]):
    size: int

    def add(self, ticket: T, path: Path) -> None: ...
    def pop(self) -> T: ...
    def remove(self, ticket: T, path: Path) -> bool: ...
    def order(self) -> Iterator[T]: ...
    def newest(self) -> T: ...
    def who_yields(self, path: Path) -> T | None: ...


class Line(Generic[T]):
    """The tickets of one key: first come, first served."""

    def __init__(self) -> None:
        self._tickets: OrderedDict[T, None] = OrderedDict()
        self.size = 0

    def add(self, ticket: T, path: Path) -> None:
        """Join at the end."""
        self._tickets[ticket] = None
        self.size += 1

    def pop(self) -> T:
        """Take the first off."""
        self.size -= 1
        return self._tickets.popitem(last=False)[0]

    def remove(self, ticket: T, path: Path) -> bool:
        """Take one off; False when it is not here."""
        if ticket not in self._tickets:
            return False
        del self._tickets[ticket]
        self.size -= 1
        return True

    def order(self) -> Iterator[T]:
        """The tickets in the order in which `pop` would give them."""
        return iter(self._tickets)

    def newest(self) -> T:
        """The last that came."""
        return next(reversed(self._tickets))

    def who_yields(self, path: Path) -> T | None:
        """Nobody: within a key, who came first stays."""
        return None


class Ring(Generic[T]):
    """Members by name that take turns. `depth` rings, this one included, lie around each line."""

    def __init__(self, depth: int) -> None:
        self._members: OrderedDict[str | None, _Member[T]] = OrderedDict()
        self._depth = depth
        self.size = 0

    def add(self, ticket: T, path: Path) -> None:
        """Join the member of the path's first name, which joins at the end if it is new."""
        member = self._members.get(path[0])
        if member is None:
            member = self._members[path[0]] = Ring(self._depth - 1) if self._depth > 1 else Line()
        member.add(ticket, path[1:])
        self.size += 1

    def pop(self) -> T:
        """Take off the ticket whose turn it is, and send its member to the end. The ring must not be empty."""
        name, member = next(iter(self._members.items()))
        ticket = member.pop()
        self.size -= 1
        if member.size:
            self._members.move_to_end(name)
        else:
            del self._members[name]
        return ticket

    def remove(self, ticket: T, path: Path) -> bool:
        """Take one off wherever it stands; False when it is not here."""
        member = self._members.get(path[0])
        if member is None or not member.remove(ticket, path[1:]):
            return False
        self.size -= 1
        if not member.size:
            del self._members[path[0]]
        return True

    def order(self) -> Iterator[T]:
        """The tickets in the order in which `pop` would give them if nobody came or left."""
        turns = deque(member.order() for member in self._members.values())
        while turns:
            turn = turns.popleft()
            ticket = next(turn, None)
            if ticket is not None:
                yield ticket
                turns.append(turn)

    def newest(self) -> T:
        """The last that came of the member that holds the most."""
        return self._longest().newest()

    def who_yields(self, path: Path) -> T | None:
        """Who leaves so that a ticket of this path can come, in a full ring: the newest of the member that holds the most, if that member holds more
        than the newcomer's own will; within the newcomer's own member, the same again. None: the newcomer has its share already.
        """
        own = self._members.get(path[0])
        own_size = own.size if own is not None else 0
        longest = self._longest()
        if own_size + 1 < longest.size:
            return longest.newest()
        return own.who_yields(path[1:]) if own is not None else None

    def _longest(self) -> _Member[T]:
        return max(self._members.values(), key=lambda member: member.size)
