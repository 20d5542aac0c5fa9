"""The replicas that serve one endpoint, and which of them takes the next request."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from supervisor.clock import Clock, Timer
from supervisor.errors import LlamavisorError
from supervisor.gateway.admission.ejection import Ejection, EjectionFigures
from supervisor.gateway.admission.pace import Pace
from supervisor.gateway.admission.queue import FairQueue
from supervisor.gateway.admission.slots import UNKNOWN_SLOTS
from supervisor.gateway.admission.waiters import Waiter
from supervisor.gateway.resolve import READIEST_FIRST
from supervisor.process.instance import Instance
from supervisor.process.states import State


class Replica:
    """An instance as somewhere to be served: how many requests it takes, how many it has, and whether it keeps failing.

    Shared by all pools that the instance is in. `state`, `generation` and `accepts` (it takes requests) are what its listener saw last:
    listeners are told in the same breath in which an instance changes, so that these are true whenever anybody else runs, and cost no call.

    `limit` requests may be in flight at once; `calm_limit`, its slots, when they are to leave some room. `told_slots` are those that the
    engine told of, where it was asked.
    """

    def __init__(
        self, instance: Instance, figures: EjectionFigures, clock: Clock, came_back: Callable[[Replica], None]
    ) -> None:
        self.instance = instance
        self.state = instance.state
        self.generation = instance.generation
        self.accepts = instance.accepts_requests
        self.in_flight = 0
        self.limit = self.calm_limit = UNKNOWN_SLOTS
        self.told_slots: int | None = None
        self.pools: list[Pool] = []
        self.figures = figures
        self.unsubscribe: Callable[[], None] | None = None
        self._ejection = Ejection()
        self._clock = clock
        self._came_back = came_back
        self._return: Timer | None = None

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.instance.name

    @property
    def is_ejected(self) -> bool:
        """Whether it is left alone for now, because it keeps failing."""
        return self._ejection.is_out

    def set_slots(self, slots: int, in_flight_per_slot: float) -> None:
        """Take what the engine works on at once, and how many requests may be there for each."""
        self.limit = max(1, math.floor(slots * in_flight_per_slot))
        self.calm_limit = min(slots, self.limit)

    def observe(self) -> State:
        """Take in how the instance is now, and return the state that was seen before. A new process starts with a clean slate."""
        before, self.state = self.state, self.instance.state
        self.accepts = self.instance.accepts_requests
        if self.generation != self.instance.generation:
            self.generation = self.instance.generation
            self.succeeded()
        return before

    def failed(self) -> None:
        """Count a request that it did not serve; at too many in a row it is ejected for a time."""
        seconds = self._ejection.failed(self.figures)
        if seconds is not None:
            self._return = self._clock.call_later(seconds, self._returns)

    def succeeded(self) -> None:
        """It serves: it is back, and what it failed at is forgotten."""
        was_out = self._ejection.is_out
        self._ejection.succeeded()
        if was_out:
            self._stop_waiting()
            self._came_back(self)

    def close(self) -> None:
        """Listen no more to the instance, and forget what it failed at."""
        if self.unsubscribe is not None:
            self.unsubscribe()
            self.unsubscribe = None
        self._ejection.succeeded()
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._return is not None:
            self._return.cancel()
            self._return = None

    def _returns(self) -> None:
        self._return = None
        self._ejection.returns()
        self._came_back(self)


@dataclass(slots=True, eq=False)
class Wish:
    """What a pool asked of `Loads`; `withdraw` is there once that has answered. `is_stale`: it is to be asked anew."""

    replica: Replica
    withdraw: Callable[[], None] | None = None
    is_stale: bool = False


class Pool:
    """The replicas of one endpoint, in the order of the configuration, and the queue before them.

    `failed` are those of which it is known that they will not be ready, and why; `wish` is the one that was asked for.
    """

    def __init__(self, replicas: tuple[Replica, ...], queue_limit: int) -> None:
        self.replicas = replicas
        self.queue: FairQueue[Waiter] = FairQueue(queue_limit)
        self.pace = Pace()
        self.failed: dict[Replica, LlamavisorError] = {}
        self.wish: Wish | None = None
        self.last_served = 0
        self.is_watched = False
        self.telling: Timer | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its replicas."""
        return tuple([replica.name for replica in self.replicas])

    @property
    def name(self) -> str:
        """The same for sentences."""
        return ", ".join(self.names)

    @property
    def is_open(self) -> bool:
        """Whether any replica takes requests now."""
        return any(replica.accepts for replica in self.replicas)

    @property
    def places(self) -> int:
        """How many requests may be in flight as things are."""
        return sum(replica.limit for replica in self._serving())

    def choose(self, *, calm: bool = False) -> Replica | None:
        """The replica that takes the next request: of those that are ready and not ejected the one with the most room for its size.

        None: all are full, or none is ready. When all that are ready are ejected, they serve nevertheless: a replica that fails now and then is
        better than none. `calm`: only up to the number of slots.
        """
        if len(self.replicas) == 1:
            only = self.replicas[0]
            limit = only.calm_limit if calm else only.limit
            return only if only.accepts and only.in_flight < limit else None
        chosen = None
        for replica in self._serving():
            if replica.in_flight < (replica.calm_limit if calm else replica.limit) and (
                chosen is None or replica.in_flight * chosen.limit < chosen.in_flight * replica.limit
            ):
                chosen = replica
        return chosen

    def best_hope(self) -> Replica | None:
        """While none is ready: the one that may be soonest, of equals the one that was asked for; None when it is known that none will be."""
        hopes = [replica for replica in self.replicas if replica not in self.failed]
        return min(hopes, key=self._hopelessness, default=None)

    def know_nothing_of(self, replica: Replica) -> None:
        """Forget what was learnt of a replica: its name means another instance now."""
        self.failed.pop(replica, None)
        if self.wish is not None and self.wish.replica is replica:
            self.wish.is_stale = True

    def _hopelessness(self, replica: Replica) -> tuple[bool, int, bool]:
        is_asked_for = self.wish is not None and self.wish.replica is replica
        return replica.instance.is_retired, READIEST_FIRST.index(replica.instance.state), not is_asked_for

    def _serving(self) -> list[Replica]:
        ready = [replica for replica in self.replicas if replica.accepts]
        return [replica for replica in ready if not replica.is_ejected] or ready
