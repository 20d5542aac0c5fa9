"""Every replica and every pool by name, kept true to the instances as they come and go, and to how much each takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from supervisor.clock import Clock
from supervisor.config.gateway_settings import GatewaySettings
from supervisor.gateway.admission.ejection import EjectionFigures
from supervisor.gateway.admission.pool import Pool, Replica
from supervisor.gateway.admission.slots import UNKNOWN_SLOTS, ask_slots
from supervisor.process.instance import Instance
from supervisor.process.states import State


class Audience(Protocol):
    """Who acts upon what the roster sees."""

    def has_room(self, replica: Replica) -> None:
        """A replica may take more than before."""

    def changed(self, replica: Replica, before: State) -> None:
        """The instance of a replica, which was in the state `before`, has entered another one, or takes requests (not) again."""

    def shrank(self, pool: Pool) -> None:
        """A pool has lost a replica; without any left it is dissolved, and nobody will serve those who wait before it."""


class Roster:
    """See the module. `slots_of` tells the configured slots of an instance by its name; None: the engine is asked once it is ready."""

    def __init__(
        self,
        settings: GatewaySettings,
        slots_of: Callable[[str], int | None],
        clock: Clock,
        audience: Audience,
    ) -> None:
        self._settings = settings
        self._slots_of = slots_of
        self._clock = clock
        self._audience = audience
        self._replicas: dict[str, Replica] = {}
        self._pools: dict[tuple[str, ...], Pool] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def pool(self, instances: Sequence[Instance]) -> Pool:
        """The pool of these instances in this order, which may be new, or known under their names."""
        pool = self._pools.get(tuple([instance.name for instance in instances]))
        if pool is None:
            return self._add_pool(instances)
        for replica, instance in zip(pool.replicas, instances, strict=True):
            if replica.instance is not instance:
                self._attach(replica, instance)
        return pool

    def pools(self) -> Iterator[Pool]:
        """All pools."""
        return iter(tuple(self._pools.values()))

    def replica(self, name: str) -> Replica | None:
        """The replica of that name; None when no pool has it."""
        return self._replicas.get(name)

    def retune(self, settings: GatewaySettings) -> None:
        """Take new settings."""
        self._settings = settings
        for pool in self._pools.values():
            pool.queue.limit = settings.queue_limit
        for replica in self._replicas.values():
            replica.figures = _figures(settings)
            self._set_slots(replica)

    def rebind(self, instances: Iterable[Instance]) -> None:
        """Take the instances as they are now: those that were made anew under their name, and those that are gone."""
        present = {instance.name: instance for instance in instances}
        for name, replica in tuple(self._replicas.items()):
            if name not in present:
                del self._replicas[name]
                self._detach(replica)
            elif replica.instance is not present[name]:
                self._attach(replica, present[name])

    async def close(self) -> None:
        """Listen to nobody any more."""
        for replica in self._replicas.values():
            replica.close()
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _add_pool(self, instances: Sequence[Instance]) -> Pool:
        replicas = tuple([self._replica_for(instance) for instance in instances])
        pool = self._pools[tuple([replica.name for replica in replicas])] = Pool(replicas, self._settings.queue_limit)
        for replica in replicas:
            replica.pools.append(pool)
        return pool

    def _replica_for(self, instance: Instance) -> Replica:
        replica = self._replicas.get(instance.name)
        if replica is None:
            replica = Replica(instance, _figures(self._settings), self._clock, self._audience.has_room)
            self._replicas[instance.name] = replica
            self._listen(replica)
        elif replica.instance is not instance:
            self._attach(replica, instance)
        return replica

    def _attach(self, replica: Replica, instance: Instance) -> None:
        """From now on this instance is meant by the name."""
        replica.close()
        replica.instance = instance
        before = replica.observe()
        for pool in replica.pools:
            pool.know_nothing_of(replica)
        self._listen(replica)
        self._audience.changed(replica, before)

    def _detach(self, replica: Replica) -> None:
        replica.close()
        for pool in replica.pools:
            del self._pools[pool.names]
            pool.replicas = tuple([other for other in pool.replicas if other is not replica])
            pool.know_nothing_of(replica)
            if pool.replicas and pool.names not in self._pools:
                self._pools[pool.names] = pool
            else:
                self._dissolve(pool)
            self._audience.shrank(pool)

    def _dissolve(self, pool: Pool) -> None:
        for replica in pool.replicas:
            replica.pools.remove(pool)
        pool.replicas = ()

    def _listen(self, replica: Replica) -> None:
        replica.unsubscribe = replica.instance.on_change(lambda _state: self._changed(replica))
        self._set_slots(replica)
        self._learn_slots(replica)

    def _changed(self, replica: Replica) -> None:
        before = replica.observe()
        if before is not State.READY:
            self._learn_slots(replica)
        self._audience.changed(replica, before)

    def _set_slots(self, replica: Replica) -> None:
        slots = self._slots_of(replica.name) or replica.told_slots or UNKNOWN_SLOTS
        replica.set_slots(slots, self._settings.in_flight_per_slot)
        self._audience.has_room(replica)

    def _learn_slots(self, replica: Replica) -> None:
        if replica.instance.state is State.READY and self._slots_of(replica.name) is None:
            task = asyncio.create_task(self._ask_slots(replica), name=f"slots:{replica.name}")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask_slots(self, replica: Replica) -> None:
        replica.told_slots = await ask_slots(replica.instance)
        self._set_slots(replica)


def _figures(settings: GatewaySettings) -> EjectionFigures:
    return EjectionFigures(settings.eject_failures, settings.eject_seconds, settings.eject_max_seconds)
