"""While no replica of a pool can serve those who wait before it: asking for the one that may be soonest, then for the next, until none is left."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.clock import Clock
from supervisor.errors import LlamavisorError
from supervisor.gateway.admission.loads import Loads
from supervisor.gateway.admission.pool import Pool, Replica, Wish
from supervisor.gateway.admission.refusals import removed
from supervisor.gateway.resolve import why_not_ready
from supervisor.process.states import State

RefuseAll = Callable[[Pool, LlamavisorError], None]


class Seeker:
    """See the module. A pool has one wish at a time, as long as somebody waits before it and nobody serves."""

    def __init__(self, loads: Loads, clock: Clock, refuse_all: RefuseAll) -> None:
        self._loads = loads
        self._clock = clock
        self._refuse_all = refuse_all

    def seek(self, pool: Pool) -> None:
        """See that somebody is asked for if that is needed, and nobody if not. When all hope is gone, all who wait are told why."""
        while pool.queue.size and not pool.is_open:
            hope = pool.best_hope()
            if hope is None:
                self._refuse_all(pool, _last_failure(pool))
                break
            # What is being replaced is there again in a moment, as another instance of the name (`Admission.rebind`), or never.
            if hope.instance.is_retired or self._is_asked_for(pool, hope):
                return
            self._want(pool, hope)
        self.rest(pool)

    def rest(self, pool: Pool) -> None:
        """Ask for nothing more."""
        pool.failed.clear()
        wish, pool.wish = pool.wish, None
        if wish is not None and wish.withdraw is not None:
            wish.withdraw()

    def changed(self, pool: Pool, replica: Replica, before: State) -> None:
        """A replica of a pool came from one state into another, or told the same again (then nothing new is known)."""
        if replica.state is not before:
            pool.failed.pop(replica, None)
            if replica.state is State.ERROR:
                pool.failed[replica] = why_not_ready(replica.instance.snapshot(), self._clock.wall())
            if pool.wish is not None and pool.wish.replica is replica and replica.state is State.INITIAL:
                pool.wish.is_stale = True
        self.seek(pool)

    def _is_asked_for(self, pool: Pool, replica: Replica) -> bool:
        wish = pool.wish
        return wish is not None and wish.replica is replica and not wish.is_stale

    def _want(self, pool: Pool, replica: Replica) -> None:
        before, wish = pool.wish, Wish(replica)
        pool.wish = wish
        withdraw = self._loads.want(replica.name, lambda error: self._failed(pool, wish, error))
        wish.withdraw = withdraw
        if pool.wish is not wish:
            withdraw()
        # Last, so that what is asked for again is not thought to be wanted no more in between.
        if before is not None and before.withdraw is not None:
            before.withdraw()

    def _failed(self, pool: Pool, wish: Wish, error: LlamavisorError) -> None:
        if pool.wish is not wish:
            return
        pool.wish = None
        pool.failed[wish.replica] = error
        if wish.withdraw is not None:
            wish.withdraw()
            self.seek(pool)


def _last_failure(pool: Pool) -> LlamavisorError:
    for error in reversed(pool.failed.values()):
        return error
    return removed()
