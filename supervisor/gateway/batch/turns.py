"""How many requests of batch work are on their way; that they come after those who wait is the queue's business."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Turns:
    """At most `parallel` at once, in the order in which they were asked for."""

    def __init__(self, parallel: int) -> None:
        self.own = 0
        self.parallel = parallel
        self._waiting: deque[asyncio.Future[None]] = deque()

    def retune(self, parallel: int) -> None:
        """From now on so many at once."""
        self.parallel = parallel
        self._pump()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the block runs."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._pump()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self.own -= 1
            else:
                with suppress(ValueError):
                    self._waiting.remove(turn)
            self._pump()

    def _pump(self) -> None:
        while self._waiting and self.own < self.parallel:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self.own += 1
                turn.set_result(None)
