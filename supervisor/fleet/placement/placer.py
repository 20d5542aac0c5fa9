"""The owner of placement: it alone starts instances because they are wanted, and unloads them because others are, or nobody is.

It decides nothing: each time something has changed it takes one look (`survey.py`), asks the pure functions what to do (`schedule.py`,
`keeping.py`), and has the fleet do it. Whatever it sets off shows as a change later, and is looked at then; so it waits for nothing, and a slow
instance holds up no other. Orders by hand go past it, and are carried out as they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from supervisor.clock import Clock, Timer
from supervisor.config.settings import Settings
from supervisor.errors import InstanceNotFoundError, LlamavisorError, NotAvailableError, StateConflictError
from supervisor.events import EventLog
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.placement import refusals, schedule
from supervisor.fleet.placement.debts import Debts
from supervisor.fleet.placement.eviction import Grip, Tenant
from supervisor.fleet.placement.keeping import rested, wanted_ahead
from supervisor.fleet.placement.machine import nvml_reader, read_machine
from supervisor.fleet.placement.measured import MeasuredBook
from supervisor.fleet.placement.memory import MachineMemory
from supervisor.fleet.placement.notes import Notes
from supervisor.fleet.placement.schedule import Decision, Eviction, Lack, Situation, Target, takes_part
from supervisor.fleet.placement.survey import HOLDING, ReadMachine, Surveyor
from supervisor.fleet.placement.wishes import OnFailure, Wishes
from supervisor.process.instance import Instance
from supervisor.process.states import State

logger = logging.getLogger(__name__)

MEASURED_FILE = "placement.json"
# A start that failed is not tried again for every request that comes.
AGAIN_AFTER_ERROR_SECONDS = 30.0
AFTER_FAILURE_LOOK_SECONDS = 1.0
# Requests may begin and end a thousand times a second; a look takes a millisecond.
NUDGE_SECONDS = 0.05
NOT_READY_YET = frozenset({State.STARTING, State.CRASHED})
# One that crashed holds its place, for it will be back.
UNLOADABLE = frozenset({State.READY, State.CRASHED})
READY_ONLY = frozenset({State.READY})


class Placer:
    """See the module. All methods are for the loop's thread; `open` it after the fleet, `close` it before."""

    def __init__(
        self,
        fleet: Fleet,
        data_folder: Path,
        events: EventLog,
        clock: Clock,
        *,
        read_machine: ReadMachine = read_machine,
    ) -> None:
        self._fleet = fleet
        self._events = events
        self._clock = clock
        self._wishes = Wishes()
        self._notes: dict[str, Notes] = {}
        self._book = MeasuredBook(data_folder / MEASURED_FILE)
        self._survey = Surveyor(fleet, self._book, self._notes, read_machine)
        self._settings = Settings(instances={})
        self._debts = Debts()
        self._waiting: dict[str, Lack] = {}
        self._held: frozenset[str] = frozenset()
        # Those whose requests' ends (and, of spares, beginnings) may change a decision.
        self._watched: frozenset[str] = frozenset()
        self._preloads: list[str] = []
        self._unmeasured: set[str] = set()
        self._wake = asyncio.Event()
        self._timer: Timer | None = None
        self._nudge: Timer | None = None
        self._owner: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = lambda: None

    async def open(self, settings: Settings) -> None:
        """Begin; what is to be preloaded follows as there is room."""
        await asyncio.to_thread(nvml_reader)
        self._forget = self._fleet.on_change(self._changed)
        self.retune(settings)
        self._owner = asyncio.create_task(self._run(), name="placer")

    def retune(self, settings: Settings) -> None:
        """Take new settings, once the fleet has them."""
        before = self._settings.instances
        self._settings = settings
        self._survey.retune(settings)
        new = [name for name, own in settings.instances.items() if name not in before or not before[name].preload]
        self._preloads = [name for name in dict.fromkeys([*self._preloads, *new]) if self._is_to_preload(name)]
        for name in self._notes.keys() - settings.instances.keys() - set(self._fleet.names()):
            del self._notes[name]
        self._wake.set()

    async def close(self) -> None:
        """End: who still waits is told so; nothing that runs is touched."""
        self._forget()
        for timer in (self._timer, self._nudge):
            if timer is not None:
                timer.cancel()
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)
            self._owner = None
        self._hold(frozenset())
        self._wishes.fail_all(NotAvailableError("The server is shutting down.", code="shutting_down"))
        await self._book.save()

    # What others ask

    def want(self, instance: str, on_failure: OnFailure) -> Callable[[], None]:
        """Somebody waits until an instance is ready; the answer withdraws the wish (idempotent, harmless after a failure).

        An instance that is `on_demand` is started; any other is waited for only while it is on its way. If it cannot become ready, `on_failure`
        is called once, later, on the loop. A load that began because somebody waited is cancelled when the last of them leaves.
        A wish that is neither withdrawn nor failed keeps its instance from yielding to those who came later.
        `InstanceNotFoundError`; `NotAvailableError` when shutting down.
        """
        resting = self._fleet.get(instance).state in (State.INITIAL, State.ERROR)
        if self._owner is None:
            raise NotAvailableError("The server is shutting down.", code="shutting_down")
        if resting and not self._wishes.has_any(instance):
            self._survey.forget(instance)
        wish = self._wishes.add(instance, self._clock.monotonic(), on_failure)
        self._wake.set()

        def withdraw() -> None:
            if self._wishes.withdraw(wish):
                self._wake.set()

        return withdraw

    def used(self, instance: str) -> None:
        """A request to an instance has begun, or ended (after `Instance.requests_active` went down). O(1)."""
        notes = self._notes.get(instance)
        if notes is not None:
            notes.used_at = self._clock.monotonic()
        if instance in self._watched and self._nudge is None:
            self._nudge = self._clock.call_later(NUDGE_SECONDS, self._nudged)

    def waits_for(self, instance: str) -> Lack | None:
        """What a wanted instance waits for before its load can begin; None when it is not waiting for its turn."""
        return self._waiting.get(instance)

    # The owner task

    def _nudged(self) -> None:
        self._nudge = None
        self._wake.set()

    def _changed(self, instance: Instance, state: State) -> None:
        notes = self._notes.setdefault(instance.name, Notes())
        if state is State.READY and notes.ready_since is None:
            self._unmeasured.add(instance.name)
        if state is State.STOPPING:
            self._survey.note_measured(instance)
            # Whoever replaces an instance starts it again if it was wanted; that is no stop by hand.
            notes.is_leaving |= instance.is_retired
        took = notes.enter(state, self._clock.monotonic(), self._wishes.last_number)
        if took is not None:
            self._survey.note_measured(instance, took)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._look()
            except Exception:
                # An owner that dies of one look, or does not look again, would leave everybody waiting.
                logger.exception("A look at what is to be loaded failed")
                self._arm(self._clock.monotonic() + AFTER_FAILURE_LOOK_SECONDS)

    async def _look(self) -> None:
        holding = [one.name for one in self._fleet.instances() if one.state in HOLDING]
        await self._survey.appraise(dict.fromkeys([*holding, *self._wishes.names(), *self._ahead()]))
        self._measure()
        await self._cancel_deserted()
        targets = self._targets()
        situation, machine = self._situation(targets)
        decision = schedule.decide(situation)
        self._waiting = dict(decision.waiting)
        self._hold(decision.held)
        for name, lack in decision.refused.items():
            self._wishes.fail(name, refusals.no_room(name, lack, situation.tenants))
        due, rest_ends_at = rested(self._survey.replicas(self._wishes), self._survey.spares(), situation.now)
        self._watch(situation, decision)
        self._arm(decision.look_again_at, rest_ends_at)
        await self._carry_out(decision, situation, machine)
        for name in due:
            await self._rest(name, situation.tenants, machine)
        if decision.load is None and decision.eviction is None:
            await self._load_ahead(situation)
        await self._book.save()

    def _measure(self) -> None:
        for name in self._unmeasured & set(self._fleet.names()):
            self._survey.note_measured(self._fleet.get(name))
        self._unmeasured.clear()

    def _situation(self, targets: list[Target]) -> tuple[Situation, MachineMemory]:
        now, machine = self._clock.monotonic(), self._survey.machine()
        tenants = self._survey.tenants(machine, self._wishes, now)
        anyone_leaving = any(tenant.grip is Grip.LEAVING for tenant in tenants)
        loading = [
            name for name, notes in self._notes.items() if notes.begun_at is not None and self._is_starting(name)
        ]
        situation = Situation(
            targets=targets,
            tenants=tenants,
            free=self._survey.room(machine, tenants),
            now=now,
            patience_seconds=self._settings.memory.patience_seconds,
            loading=frozenset().union(*(takes_part(self._survey.needs(name)) for name in loading)),
            not_back=self._debts.outstanding(machine, now, anyone_leaving=anyone_leaving),
        )
        return situation, machine

    def _is_starting(self, name: str) -> bool:
        return any(one.name == name and one.state is State.STARTING for one in self._fleet.instances())

    # Wishes: who is to be loaded, who fails

    def _targets(self) -> list[Target]:
        """The wanted instances that a load would help, the oldest want first. Those that nothing helps fail here."""
        names = [name for name in self._wishes.names() if self._is_to_load(name)]
        return [Target(name, self._survey.needs(name), self._wishes.since(name) or 0.0) for name in names]

    def _is_to_load(self, name: str) -> bool:
        try:
            instance = self._fleet.get(name)
        except InstanceNotFoundError as error:
            self._wishes.fail(name, error)
            return False
        if instance.is_retired or instance.state not in (State.INITIAL, State.ERROR):
            return False
        notes = self._notes.setdefault(name, Notes())
        own = self._survey.settings_of(name)
        if instance.state is State.ERROR:
            return self._is_to_load_after_error(instance, notes, own is not None and own.is_on_demand)
        if own is None or not own.is_on_demand:
            self._wishes.fail(name, refusals.not_on_demand(instance))
        elif notes.stopped_number is not None:
            self._wishes.fail(name, refusals.was_stopped(instance), up_to=notes.stopped_number)
        return self._wishes.has_any(name)

    def _is_to_load_after_error(self, instance: Instance, notes: Notes, is_on_demand: bool) -> bool:
        since = float("inf") if notes.failed_at is None else self._clock.monotonic() - notes.failed_at
        again_in = AGAIN_AFTER_ERROR_SECONDS - since
        if is_on_demand and again_in <= 0 and not instance.remains:
            self._wishes.fail(instance.name, refusals.failed(instance, None), up_to=notes.failed_number)
            return self._wishes.has_any(instance.name)
        self._wishes.fail(instance.name, refusals.failed(instance, again_in if is_on_demand and again_in > 0 else None))
        return False

    async def _cancel_deserted(self) -> None:
        for name, notes in list(self._notes.items()):
            deserted = notes.begun_at is not None and notes.is_demanded and not self._wishes.has_any(name)
            if deserted and await self._unload(name, NOT_READY_YET, "nobody waited for it any more"):
                self._publish("load_cancelled", name, "no_waiters", f"Nobody waits for {name} any more.")

    # Acting

    async def _carry_out(self, decision: Decision, situation: Situation, machine: MachineMemory) -> None:
        if decision.eviction is not None:
            await self._evict(decision.eviction, situation.tenants, machine)
        elif decision.load is not None:
            await self._load(decision.load, is_demanded=True)

    async def _evict(self, eviction: Eviction, tenants: Iterable[Tenant], machine: MachineMemory) -> None:
        why = f"it made room for {eviction.target}"
        for tenant in tenants:
            if tenant.name in eviction.victims and await self._unload(tenant.name, UNLOADABLE, why):
                self._debts.incur(machine, [tenant])
                message = f"{tenant.name} makes room for {eviction.target}: {eviction.lack.text}."
                self._publish("evicted", tenant.name, eviction.lack.reason, message, **{"for": eviction.target})

    async def _rest(self, name: str, tenants: Iterable[Tenant], machine: MachineMemory) -> None:
        own = self._survey.settings_of(name)
        if own is not None and await self._unload(name, READY_ONLY, f"idle for {own.ttl_seconds:g} s"):
            self._debts.incur(machine, [tenant for tenant in tenants if tenant.name == name])
            self._publish("unloaded", name, "idle", f"{name} had no request for {own.ttl_seconds:g} s (`ttl_seconds`).")

    async def _load(self, name: str, *, is_demanded: bool) -> None:
        notes = self._notes.setdefault(name, Notes())
        notes.begin(self._clock.monotonic(), is_demanded=is_demanded)
        try:
            await self._fleet.start(name)
        except LlamavisorError as error:
            # The state has moved on, or it is about to be removed: either shows as a change, and is looked at then.
            notes.begun_at = None
            logger.debug("%s was not started: %s", name, error)

    async def _unload(self, name: str, states: frozenset[State], why: str) -> bool:
        """Whether it leaves; not so when a request was quicker, or somebody else."""
        notes = self._notes.setdefault(name, Notes())
        notes.is_leaving = True
        try:
            await self._fleet.unload(name, states, why)
        except LlamavisorError as error:
            notes.is_leaving = False
            if isinstance(error, StateConflictError):
                self._wake.set()
            return False
        return True

    def _hold(self, names: frozenset[str]) -> None:
        there = set(self._fleet.names())
        for name in (self._held ^ names) & there:
            self._fleet.hold(name, hold=name in names)
        self._held = names

    # Ahead of need

    def _is_to_preload(self, name: str) -> bool:
        own = self._settings.instances.get(name)
        return own is not None and own.preload and not own.autostart

    def _ahead(self) -> list[str]:
        """What is to be loaded although nobody waits, in order."""
        replicas = self._survey.replicas(self._wishes)
        may_start = {replica.name for replica in replicas if replica.may_start}
        self._preloads = [name for name in self._preloads if name in may_start]
        return list(dict.fromkeys([*self._preloads, *wanted_ahead(replicas, self._survey.spares())]))

    async def _load_ahead(self, situation: Situation) -> None:
        for name in self._ahead():
            needs = self._survey.needs(name)
            if schedule.spare_room(situation, needs):
                await self._load(name, is_demanded=False)
                return
            if name in self._preloads and not situation.loading and not situation.targets and not situation.not_back:
                logger.info("%s is not preloaded: there is no room for it.", name)
                self._preloads.remove(name)

    # Waking up

    def _watch(self, situation: Situation, decision: Decision) -> None:
        """Who is in somebody's way, or has spares, is worth a look when its requests begin or end."""
        spares = self._survey.spares()
        with_spares = {one.name for one in self._survey.replicas(self._wishes) if one.endpoint in spares}
        in_the_way = {tenant.name for tenant in situation.tenants} if decision.waiting else set()
        self._watched = frozenset(with_spares | in_the_way)

    def _arm(self, *moments: float | None) -> None:
        """One timer, for the earliest of what time alone brings about."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min((moment for moment in moments if moment is not None), default=None)
        if due is not None:
            self._timer = self._clock.call_later(max(0.0, due - self._clock.monotonic()), self._wake.set)

    def _publish(self, kind: str, name: str, reason: str, message: str, **more: str) -> None:
        self._events.publish(kind, {"instance": name, "reason": reason, "message": message, **more}, instance=name)
