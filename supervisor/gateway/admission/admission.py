"""Admission: lets requests through to instances, as many at a time as they work on well, and makes the others wait in a fair queue.

A place that is free is taken by a few function calls, without a task, a future or a timer (`try_place`). Everything else is driven by what happens:
a place becomes free, an instance changes its state, a wish fails, a deadline passes. All methods are for the loop's thread.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from supervisor.clock import Clock
from supervisor.config.gateway_settings import GatewaySettings
from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission import refusals
from supervisor.gateway.admission.loads import Loads
from supervisor.gateway.admission.places import Place
from supervisor.gateway.admission.pool import Pool, Replica
from supervisor.gateway.admission.roster import Roster
from supervisor.gateway.admission.seeking import Seeker
from supervisor.gateway.admission.telling import Teller
from supervisor.gateway.admission.waiters import OnWait, Waiter
from supervisor.process.instance import Instance
from supervisor.process.states import State


class Admission:
    """See the module. `slots_of` tells the configured slots of an instance by its name; None: the engine is asked once it is ready."""

    def __init__(
        self, settings: GatewaySettings, slots_of: Callable[[str], int | None], loads: Loads, clock: Clock
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._roster = Roster(settings, slots_of, clock, self)
        self._seeker = Seeker(loads, clock, self._refuse_all)
        self._teller = Teller(clock)
        self._turns = itertools.count(1)
        self._is_closed = False

    # What a request asks for

    def pool(self, instances: Sequence[Instance]) -> Pool:
        """The pool of these replicas, in this order. It may be kept until the next `rebind`."""
        return self._roster.pool(instances)

    def try_place(self, pool: Pool, *, batch: bool = False) -> Place | None:
        """A place at once, or None: then `wait` for one. Nobody is overtaken."""
        if pool.queue.size or self._is_closed:
            return None
        replica = pool.choose(calm=batch)
        return None if replica is None else self._take(pool, replica)

    async def wait(
        self,
        pool: Pool,
        caller: Caller,
        *,
        batch: bool = False,
        on_wait: OnWait | None = None,
        within_seconds: float | None = None,
    ) -> Place:
        """A place, as soon as it is this caller's turn. Who is cancelled meanwhile leaves the queue at once.

        `within_seconds` is the longest that it waits; left out, `gateway.queue_seconds`, and for `batch` as long as it takes. `on_wait` is
        told how it stands: before this waits for the first time, and a few times a second whenever that has changed.

        `QueueFullError` (429) when no room is left in the queue, also later, for somebody who holds less of it; `NotAvailableError` (503)
        when no replica will be ready, with the reason, and when time is up.
        """
        place = self.try_place(pool, batch=batch)
        if place is not None:
            return place
        waiter = Waiter(caller, batch=batch, since=self._clock.monotonic(), on_wait=on_wait)
        self._join(pool, waiter, within_seconds)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            waiter.give_back()
            raise
        finally:
            waiter.disarm()
            self._drop(pool, waiter)

    @asynccontextmanager
    async def place(
        self,
        pool: Pool,
        caller: Caller,
        *,
        batch: bool = False,
        on_wait: OnWait | None = None,
        within_seconds: float | None = None,
    ) -> AsyncIterator[Place]:
        """A place, held as long as the context lasts; see `wait`."""
        with await self.wait(pool, caller, batch=batch, on_wait=on_wait, within_seconds=within_seconds) as place:
            yield place

    # Figures

    def waiting(self, name: str | None = None) -> int:
        """How many requests wait; of an instance: before the pools that it is in."""
        if name is None:
            return sum(pool.queue.size for pool in self._roster.pools())
        replica = self._roster.replica(name)
        return 0 if replica is None else sum(pool.queue.size for pool in replica.pools)

    def in_flight(self, name: str) -> int:
        """How many places of an instance are taken."""
        replica = self._roster.replica(name)
        return 0 if replica is None else replica.in_flight

    def limit(self, name: str) -> int | None:
        """How many requests an instance may have in flight; None when nobody has asked for it yet."""
        replica = self._roster.replica(name)
        return None if replica is None else replica.limit

    # Changes from outside

    def retune(self, settings: GatewaySettings) -> None:
        """Take new settings: deadlines for whoever comes from now on, limits at once."""
        self._settings = settings
        self._roster.retune(settings)

    def rebind(self, instances: Iterable[Instance]) -> None:
        """Take all instances as they are after a reload: those that were made anew under their name, and those that are gone.

        Who waits for an instance that was made anew waits for the new one. Who waits before a pool that lost a replica is served by the others.
        """
        self._roster.rebind(instances)

    async def close(self) -> None:
        """Refuse all who wait, and whoever comes; idempotent. Places that are held are held on."""
        self._is_closed = True
        for pool in self._roster.pools():
            self._refuse_all(pool, refusals.shutting_down())
            self._seeker.rest(pool)
            self._teller.stop(pool)
        await self._roster.close()

    # What the roster sees

    def has_room(self, replica: Replica) -> None:
        """Give the free places of a replica to those who wait for it; of several pools the one that was served longest ago goes first."""
        while any(self._grant_next(pool) for pool in sorted(replica.pools, key=_last_served)):
            pass

    def changed(self, replica: Replica, before: State) -> None:
        """Whoever waits for a replica moves on, or is told."""
        self.has_room(replica)
        for pool in tuple(replica.pools):
            self._seeker.changed(pool, replica, before)
            self._teller.stir(pool)

    def shrank(self, pool: Pool) -> None:
        """Whoever waits is served by the other replicas, or told that there is none."""
        self._seeker.seek(pool)
        self._teller.stir(pool)

    # Coming and going

    def _take(self, pool: Pool, replica: Replica, since: float | None = None) -> Place:
        now = self._clock.monotonic()
        replica.in_flight += 1
        replica.instance.traffic.active += 1
        return Place(pool, replica, now, 0.0 if since is None else now - since, self._left)

    def _left(self, place: Place, pool: Pool, replica: Replica) -> None:
        place.instance.traffic.active -= 1
        replica.in_flight -= 1
        pool.pace.add(self._clock.monotonic() - place.begun_at)
        for other in replica.pools:
            if other.queue.size:
                self.has_room(replica)
                break

    def _join(self, pool: Pool, waiter: Waiter, within_seconds: float | None) -> None:
        if self._is_closed:
            raise refusals.shutting_down()
        leaver = pool.queue.add(waiter)
        if leaver is waiter:
            raise refusals.no_room(pool, was_in=False)
        if leaver is not None:
            leaver.refuse(refusals.no_room(pool, was_in=True))
        if within_seconds is None and not waiter.batch:
            within_seconds = self._settings.queue_seconds
        if within_seconds is not None:
            waiter.timer = self._clock.call_later(within_seconds, lambda: self._expire(pool, waiter))
        # A batch request may have left room that this one need not leave.
        while self._grant_next(pool):
            pass
        self._seeker.seek(pool)
        self._teller.joined(pool, waiter)

    def _drop(self, pool: Pool, waiter: Waiter) -> None:
        if pool.queue.remove(waiter):
            self._seeker.seek(pool)
            self._teller.stir(pool)

    def _expire(self, pool: Pool, waiter: Waiter) -> None:
        waiter.refuse(refusals.too_late(pool, self._clock.monotonic() - waiter.since, self._clock.wall()))
        self._drop(pool, waiter)

    def _refuse_all(self, pool: Pool, error: LlamavisorError) -> None:
        while pool.queue.size:
            pool.queue.pop().refuse(error)

    def _grant_next(self, pool: Pool) -> bool:
        """Give a place to who is next before a pool; False when nobody is, or nobody can serve."""
        replica = pool.choose(calm=pool.queue.yields) if pool.queue.size else None
        if replica is None:
            return False
        waiter = pool.queue.pop()
        pool.last_served = next(self._turns)
        if not waiter.has_left:
            waiter.granted.set_result(self._take(pool, replica, waiter.since))
        self._teller.stir(pool)
        return True


def _last_served(pool: Pool) -> int:
    return pool.last_served
