"""Telling those who wait how they stand: at once when they join, then whenever something has changed, but only so often."""

from __future__ import annotations

import logging

from supervisor.clock import Clock
from supervisor.gateway.admission.pool import Pool
from supervisor.gateway.admission.waiters import Waiter, Waiting
from supervisor.process.states import State

TELL_SECONDS = 0.25
"""Between two tellings; more often nobody reads it, and each costs a look at the whole queue."""

logger = logging.getLogger(__name__)


class Teller:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def joined(self, pool: Pool, waiter: Waiter) -> None:
        """Tell somebody who has just come. The others hear of it when it moves them."""
        if waiter.on_wait is not None and not waiter.granted.done():
            pool.is_watched = True
            _tell(waiter, _standing(pool, pool.queue.position(waiter), *_outlook(pool)))
        self.stir(pool)

    def stir(self, pool: Pool) -> None:
        """Something may have changed: those who asked for it are told soon."""
        if pool.is_watched and pool.telling is None:
            pool.telling = self._clock.call_later(TELL_SECONDS, lambda: self._tell_all(pool))

    def stop(self, pool: Pool) -> None:
        """Tell nobody any more."""
        if pool.telling is not None:
            pool.telling.cancel()
            pool.telling = None

    def _tell_all(self, pool: Pool) -> None:
        pool.telling = None
        watching = [(position, one) for position, one in enumerate(pool.queue.order(), 1) if one.on_wait is not None]
        pool.is_watched = bool(watching)
        if not watching:
            return
        outlook = _outlook(pool)
        for position, waiter in watching:
            _tell(waiter, _standing(pool, position, *outlook))
        # That a load advances is told by nobody: it has to be looked at.
        if not pool.is_open:
            self.stir(pool)


def _outlook(pool: Pool) -> tuple[State, float | None, int]:
    """The state of the readiest replica, how far it is loaded, and how many places there are."""
    if pool.is_open:
        return State.READY, None, pool.places
    hope = pool.best_hope()
    if hope is None:
        return State.ERROR, None, 0
    snapshot = hope.instance.snapshot()
    return snapshot.state, snapshot.progress, 0


def _standing(pool: Pool, position: int, state: State, progress: float | None, places: int) -> Waiting:
    return Waiting(position, pool.pace.wait_seconds(position, places), progress, state)


def _tell(waiter: Waiter, standing: Waiting) -> None:
    if waiter.on_wait is None or standing.says_the_same_as(waiter.told):
        return
    waiter.told = standing
    try:
        waiter.on_wait(standing)
    except Exception:
        # The others still have to be told, and it waits for a place all the same.
        waiter.on_wait = None
        logger.exception("A request that waits could not be told how it stands")
