"""How many requests of batch work are on their way: few enough that who waits for an answer gets it first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from supervisor.clock import Clock, Timer

RECHECK_SECONDS = 0.05
PATIENCE_SECONDS = 10.0


def may_start(parallel: int, own: int, others: int, waited_seconds: float) -> bool:
    """Whether one more request of batch work may start, with `own` and `others` on their way.

    Batch work gets the places that nobody else takes. It is not starved for ever: without a place for `PATIENCE_SECONDS`, one goes all the same.
    """
    if own + others < parallel:
        return True
    return own == 0 and waited_seconds >= PATIENCE_SECONDS


class Turns:
    """Gives out turns in the order in which they were asked for. `others` counts the requests that clients wait for."""

    def __init__(self, parallel: int, others: Callable[[], int], clock: Clock) -> None:
        self.own = 0
        self.parallel = parallel
        self._others = others
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._since = clock.monotonic()
        self._timer: Timer | None = None

    def retune(self, parallel: int) -> None:
        """From now on so many at once."""
        self.parallel = parallel
        self._pump()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the block runs."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._since = self._clock.monotonic()
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
        """Give turns to whoever may have them; look again soon when it is clients that stand in the way, for nobody tells when they are gone."""
        while self._waiting and self._may_start():
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self.own += 1
                self._since = self._clock.monotonic()
                turn.set_result(None)
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._waiting and self._timer is None and self.own < self.parallel:
            self._timer = self._clock.call_later(RECHECK_SECONDS, self._recheck)

    def _may_start(self) -> bool:
        waited_seconds = self._clock.monotonic() - self._since
        return may_start(self.parallel, self.own, max(0, self._others()), waited_seconds)

    def _recheck(self) -> None:
        self._timer = None
        self._pump()
