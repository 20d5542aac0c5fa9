"""How many requests of batch work are on their way, and whose turn it is. That they come after those who wait is the queue's business."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.queue import FairQueue, Ticket


@dataclass(frozen=True, slots=True)
class Servers:
    """The instances that can answer a request, by name, and how many requests they work on side by side (None: nobody knows)."""

    names: tuple[str, ...]
    slots: int | None = None


@dataclass(eq=False, slots=True)
class _Line:
    """Those who want the same instances. `own` of them are on their way."""

    slots: int | None = None
    own: int = 0
    queue: FairQueue = field(default_factory=FairQueue)


class Turns:
    """At most `parallel` at once at the same instances, and no more than these have slots: whatever else they take at once is for clients.

    Projects take turns, and within a project its keys. Who waits for one model holds up nobody who wants another.
    """

    def __init__(self, parallel: int) -> None:
        self.parallel = parallel
        self._lines: dict[tuple[str, ...], _Line] = {}

    @property
    def own(self) -> int:
        """How many are on their way, to all instances together."""
        return sum(line.own for line in self._lines.values())

    def retune(self, parallel: int) -> None:
        """From now on so many at once."""
        self.parallel = parallel
        for line in self._lines.values():
            self._pump(line)

    @asynccontextmanager
    async def turn(self, servers: Servers, caller: Caller) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the block runs."""
        line = self._lines.setdefault(servers.names, _Line())
        line.slots = servers.slots
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = Ticket(caller.project, caller.key_id, owner=turn)
        line.queue.add(ticket)
        self._pump(line)
        try:
            await turn
            yield
        finally:
            if not line.queue.remove(ticket):
                line.own -= 1
            self._pump(line)
            if not line.own and not len(line.queue):
                del self._lines[servers.names]

    def _pump(self, line: _Line) -> None:
        most = self.parallel if line.slots is None else min(self.parallel, line.slots)
        while len(line.queue) and line.own < most:
            turn = line.queue.pop().owner
            line.own += 1
            # Who was cancelled in this moment gives it back.
            if not turn.done():
                turn.set_result(None)
