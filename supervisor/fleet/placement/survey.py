"""One look at the fleet and the machine, as the values that the decisions are made of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.config.placement_settings import endpoint_of
from supervisor.config.settings import InstanceSettings, Settings
from supervisor.errors import LlamavisorError
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.models import model_argument
from supervisor.fleet.placement.eviction import Grip, Tenant
from supervisor.fleet.placement.keeping import Replica
from supervisor.fleet.placement.measured import MeasuredBook
from supervisor.fleet.placement.memory import Gpu, MachineMemory, at_least, estimate, reservation, room
from supervisor.fleet.placement.notes import Notes
from supervisor.fleet.placement.resources import HOST, Amounts, gpu, group
from supervisor.fleet.placement.wishes import Wishes
from supervisor.fleet.planning import settings_digest
from supervisor.models.discovery import read_model_file
from supervisor.process.instance import Instance
from supervisor.process.states import State
from supervisor.process.usage import ProcessMemory, memory_of

logger = logging.getLogger(__name__)

ReadMachine = Callable[[], MachineMemory]

# What a disk of today reads in a second, for models whose load was never timed.
ASSUMED_LOAD_BYTES_PER_SECOND = 1_000_000_000
HOLDING = frozenset({State.STARTING, State.READY, State.CRASHED, State.STOPPING})


@dataclass(frozen=True, slots=True)
class _Appraisal:
    digest: str
    amounts: Amounts


class Surveyor:
    """Looks; changes nothing. `read_machine` is asked once a look."""

    def __init__(self, fleet: Fleet, book: MeasuredBook, notes: Mapping[str, Notes], read_machine: ReadMachine) -> None:
        self._fleet = fleet
        self._book = book
        self._notes = notes
        self._read_machine = read_machine
        self._settings = Settings(instances={})
        self._appraisals: dict[str, _Appraisal] = {}

    def retune(self, settings: Settings) -> None:
        """Take new settings; everything is appraised anew."""
        self._settings = settings
        self._appraisals.clear()

    def settings_of(self, name: str) -> InstanceSettings | None:
        """The settings of an instance; None when it is on its way out of the configuration."""
        return self._settings.instances.get(name)

    def spares(self) -> dict[str, int]:
        """How many idle replicas each endpoint keeps."""
        found: dict[str, int] = {}
        for name, own in self._settings.instances.items():
            endpoint = endpoint_of(name, own)
            found[endpoint] = max(found.get(endpoint, 0), own.warm_spare)
        return {endpoint: count for endpoint, count in found.items() if count}

    def forget(self, name: str) -> None:
        """Look at its model again: the file may be another one by now."""
        self._appraisals.pop(name, None)

    async def appraise(self, names: Iterable[str]) -> None:
        """Read the headers of models that are not known yet, off the loop."""
        gpus = self._read_machine().gpus
        for name in names:
            own = self.settings_of(name)
            if own is not None and name not in self._appraisals:
                self._appraisals[name] = await asyncio.to_thread(_appraise, own, self._settings.models.folders, gpus)

    def needs(self, name: str) -> dict[str, int]:
        """What an instance takes: as configured, else as measured, else as estimated; and its places in groups."""
        own, appraisal = self.settings_of(name), self._appraisals.get(name)
        if own is None or appraisal is None:
            return {}
        measured = self._book.of(name, appraisal.digest)
        amounts = {**appraisal.amounts, **(measured.peak if measured is not None else {})}
        if own.memory_bytes is not None:
            amounts[HOST] = own.memory_bytes
        return {**amounts, **{group(one): 1 for one in own.group}}

    def machine(self) -> MachineMemory:
        """The machine now."""
        return self._read_machine()

    def room(self, machine: MachineMemory, tenants: list[Tenant]) -> dict[str, int]:
        """What newcomers may take; see `memory.room`."""
        limits = {name: one.limit for name, one in self._settings.groups.items() if one.limit is not None}
        return room(machine, tenants, self._settings.memory, limits)

    def tenants(self, machine: MachineMemory, wishes: Wishes, now: float) -> list[Tenant]:
        """Everybody who holds something, in the order of the configuration."""
        holding = [one for one in self._fleet.instances() if one.state in HOLDING or one.remains]
        return [self._tenant(instance, machine, wishes, now) for instance in holding]

    def replicas(self, wishes: Wishes) -> list[Replica]:
        """Everybody who may be started and unloaded without being asked."""
        own = self._settings.instances
        return [
            self._replica(instance, own[instance.name], wishes)
            for instance in self._fleet.instances()
            if instance.name in own and own[instance.name].is_on_demand and not instance.is_adopted
        ]

    def note_measured(self, instance: Instance, load_seconds: float | None = None) -> None:
        """Put into the book what an instance takes now, and took at most."""
        appraisal = self._appraisals.get(instance.name)
        if appraisal is None or instance.is_adopted:
            return
        try:
            pids = instance.pids()
            peak = memory_of(pids).peak
            taken = {HOST: peak, **_gpu_use(self._read_machine().gpus, pids)} if peak else {}
        except OSError as error:
            # Out of descriptors, say: who changes its state must not be held up for a figure.
            logger.info("%s was not measured: %s", instance.name, error)
            return
        self._book.note(instance.name, appraisal.digest, taken, load_seconds=load_seconds)

    def _tenant(self, instance: Instance, machine: MachineMemory, wishes: Wishes, now: float) -> Tenant:
        name, pids = instance.name, instance.pids()
        notes = self._notes.get(name) or Notes()
        used = memory_of(pids)
        taken = {HOST: used.resident, **_gpu_use(machine.gpus, pids)}
        needs = {group(one): 1 for one in self._groups_of(name)} if instance.is_adopted else self.needs(name)
        holds = at_least(needs, taken)
        return Tenant(
            name=name,
            holds=holds,
            grip=self._grip(instance),
            reserved=reservation(needs, taken, used.mapped),
            gives_back=_given_back(taken, used),
            idle_seconds=max(0.0, now - notes.used_at),
            reload_seconds=self._reload_seconds(name, holds),
            wanted_since=wishes.since(name),
            ready_since=notes.ready_since,
        )

    def _grip(self, instance: Instance) -> Grip:
        own = self.settings_of(instance.name)
        if instance.state is State.STOPPING:
            return Grip.LEAVING
        if own is None or not own.is_on_demand or own.pinned or instance.is_adopted or instance.state is State.ERROR:
            return Grip.PINNED
        if instance.requests_active:
            return Grip.BUSY
        return Grip.LOADING if instance.state is State.STARTING else Grip.IDLE

    def _replica(self, instance: Instance, own: InstanceSettings, wishes: Wishes) -> Replica:
        notes = self._notes.get(instance.name) or Notes()
        return Replica(
            name=instance.name,
            endpoint=endpoint_of(instance.name, own),
            is_ready=notes.ready_since is not None,
            is_loaded=instance.state in (State.STARTING, State.READY),
            is_engaged=bool(instance.requests_active) or wishes.has_any(instance.name),
            may_start=instance.state is State.INITIAL and notes.stopped_number is None and not instance.is_retired,
            used_at=notes.used_at,
            ttl_seconds=own.ttl_seconds,
        )

    def _groups_of(self, name: str) -> tuple[str, ...]:
        own = self.settings_of(name)
        return own.group if own is not None else ()

    def _reload_seconds(self, name: str, holds: Amounts) -> float:
        appraisal = self._appraisals.get(name)
        measured = self._book.of(name, appraisal.digest) if appraisal is not None else None
        if measured is not None and measured.load_seconds is not None:
            return measured.load_seconds
        return holds.get(HOST, 0) / ASSUMED_LOAD_BYTES_PER_SECOND


def _appraise(own: InstanceSettings, folders: tuple[Path, ...], gpus: Mapping[int, Gpu]) -> _Appraisal:
    header, size_bytes = None, 0
    try:
        path = model_argument(own, folders) if own.url is None else None
        if path is not None and Path(path).is_file():
            model = read_model_file(Path(path))
            header, size_bytes = model.header, model.size_bytes
    except LlamavisorError:
        # Its start will say what is wrong with it, with a remedy.
        pass
    return _Appraisal(f"{settings_digest(own)}:{size_bytes}", estimate(own, header, gpus))


def _gpu_use(gpus: Mapping[int, Gpu], pids: Iterable[int]) -> dict[str, int]:
    mine = set(pids)
    use = {gpu(index): sum(amount for pid, amount in one.used_by.items() if pid in mine) for index, one in gpus.items()}
    return {name: amount for name, amount in use.items() if amount}


def _given_back(taken: Amounts, used: ProcessMemory) -> dict[str, int]:
    """What the machine will count as free when the processes are gone, and does not now: mapped files it counts already."""
    return {**taken, HOST: max(0, used.resident - used.mapped)}
