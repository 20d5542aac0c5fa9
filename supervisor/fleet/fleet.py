"""The fleet: every instance by name, and the only one who creates, changes and removes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from supervisor.clock import Clock
from supervisor.config.diff import SettingsDiff
from supervisor.config.settings import InstanceSettings, Settings
from supervisor.config.suggestions import remedy_for
from supervisor.data_folder import DataFolder
from supervisor.errors import InstanceNotFoundError, NotAvailableError, StateConflictError
from supervisor.events import EventLog
from supervisor.fleet.addresses import AddressBook
from supervisor.fleet.planning import Planner
from supervisor.fleet.usage import FleetUsage, UsageMeter
from supervisor.process.child import spawn
from supervisor.process.figures import Figures
from supervisor.process.instance import Instance, Profile
from supervisor.process.output import LogWriter, OutputCapture
from supervisor.process.posix import Found
from supervisor.process.snapshot import InstanceSnapshot
from supervisor.process.states import State
from supervisor.process.watch import WatchParts

# Somebody wanted it to run; of one in `error` a changed configuration may be the remedy.
WANTED = frozenset({State.STARTING, State.READY, State.CRASHED, State.ERROR})
SETTLED = frozenset({State.INITIAL, State.ERROR})


class Fleet:
    """See the module. Names keep the order of the configuration; the first is the default instance."""

    def __init__(
        self, folder: DataFolder, events: EventLog, clock: Clock, *, spawn: Callable[..., object] = spawn
    ) -> None:
        self._folder = folder
        self._events = events
        self._clock = clock
        self._spawn = spawn
        self._addresses = AddressBook(folder.sockets)
        self._writer = LogWriter()
        self._instances: dict[str, Instance] = {}
        self._planners: dict[str, Planner] = {}
        self._state_seqs: dict[str, int] = {}
        self._lingering: dict[str, asyncio.Task[None]] = {}
        self._configured = Settings(instances={})
        self._usage = UsageMeter(clock)
        self._changing = asyncio.Lock()
        self._listeners: set[Callable[[Instance, State], None]] = set()

    def names(self) -> list[str]:
        """The names of all instances, in the order of the configuration."""
        return list(self._instances)

    def instances(self) -> list[Instance]:
        """All instances, in the order of the configuration."""
        return list(self._instances.values())

    def find(self, name: str) -> Instance | None:
        """The instance of that name, if there is one."""
        return self._instances.get(name)

    def get(self, name: str) -> Instance:
        """The instance of that name; `InstanceNotFoundError` with the nearest name."""
        try:
            return self._instances[name]
        except KeyError:
            raise InstanceNotFoundError(
                f"There is no instance named {name!r}.",
                param="name",
                remedy=_sentence(remedy_for(name, self._instances)),
            ) from None

    @property
    def default(self) -> Instance:
        """The first configured instance; `InstanceNotFoundError` when there is none at all."""
        for instance in self._instances.values():
            return instance
        raise InstanceNotFoundError(
            "No instance is configured.", remedy="Add one under `instances` in the configuration and reload."
        )

    def settings_of(self, name: str) -> InstanceSettings:
        """The settings that an instance was made from."""
        self.get(name)
        return self._planners[name].settings

    async def start(self, name: str) -> InstanceSnapshot:
        """Ask an instance to start; `StateConflictError` when it refuses."""
        return await self.get(name).start()

    async def stop(self, name: str, *, kill_adopted: bool = False) -> InstanceSnapshot:
        """Ask an instance to stop; idempotent. Answers when it is `stopping`."""
        return await self.get(name).stop(kill_adopted=kill_adopted)

    async def unload(self, name: str, states: frozenset[State], why: str) -> InstanceSnapshot:
        """Stop an instance for another's sake, or because nobody needs it; refused as `Instance.unload` says."""
        return await self.get(name).unload(states, why)

    def hold(self, name: str, *, hold: bool) -> None:
        """Keep new requests from an instance so that it can yield its place, or let them in again."""
        self.get(name).hold(hold=hold)

    def on_change(self, listener: Callable[[Instance, State], None]) -> Callable[[], None]:
        """Call `listener` as `Instance.on_change` does, for every instance, those made later too; the answer takes it off again."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def restart(self, name: str) -> InstanceSnapshot:
        """Ask an instance to stop and start again."""
        return await self.get(name).restart()

    async def stop_and_wait(self, name: str) -> State:
        """Stop an instance and wait until it is `initial`, or `error` when it cannot be killed."""
        return await _stop_and_wait(self.get(name))

    def usage(self) -> FleetUsage:
        """Memory and processor share of the instances' processes now."""
        return self._usage.read({name: instance.pids() for name, instance in self._instances.items()})

    async def open(self, settings: Settings, survivors: Mapping[str, Found]) -> None:
        """Make every configured instance; survivors of an earlier supervisor are handed to theirs. Nothing is started yet."""
        self._configure(settings)
        for name in settings.instances:
            self._add(name, survivors.get(name))

    async def autostart(self, settings: Settings, survivors: Mapping[str, Found]) -> None:
        """Start those that are to start with the supervisor, and those whose process is still there."""
        wanted = [name for name, own in settings.instances.items() if own.autostart or name in survivors]
        await asyncio.gather(*(self._start_if_it_can(name) for name in wanted))

    async def apply(self, settings: Settings, diff: SettingsDiff) -> None:
        """Carry out a changed configuration by difference: what did not change keeps running.

        An instance whose process cannot be killed stays, in `error`, until that process is gone; only then does it go, or is replaced.
        """
        async with self._changing:
            self._configure(settings)
            wanted = {name for name in diff.changed if self._instances[name].state in WANTED}
            await asyncio.gather(*(self._remove(name) for name in (*diff.removed, *diff.changed)))
            for name in (*diff.added, *diff.changed):
                if name not in self._instances:
                    self._add(name, None)
            for name in (*diff.retuned, *diff.unchanged):
                self._retune(name)
            self._sort()
            added = {name for name in diff.added if settings.instances[name].autostart}
            await asyncio.gather(*(self._start_if_it_can(name) for name in wanted | added))

    async def stop_all(self, *, survivors_too: bool) -> None:
        """Stop every instance and wait; those that are to survive the supervisor only if `survivors_too`, or if they are stopping already."""
        leaving = [
            one
            for one in self.instances()
            if survivors_too or not one.profile.survive_supervisor or one.state is State.STOPPING
        ]
        for instance in leaving:
            instance.retire()
        await asyncio.gather(*(_stop_and_wait(instance) for instance in leaving))

    async def close(self) -> None:
        """Let go of whatever is left, without touching its processes, and end the log writer."""
        for task in self._lingering.values():
            task.cancel()
        await asyncio.gather(*self._lingering.values(), return_exceptions=True)
        await asyncio.gather(*(instance.close() for instance in self.instances()))
        self._instances.clear()
        self._writer.close()

    # Making and removing

    def _configure(self, settings: Settings) -> None:
        self._configured = settings
        self._addresses.keep_free(own.port for own in settings.instances.values() if own.port is not None)

    def _add(self, name: str, survivor: Found | None) -> None:
        settings = self._configured
        own = settings.instances[name]
        planner = Planner(name, own, settings.models.folders, self._addresses, self._folder.run_id, survivor)
        parts = WatchParts(planner.survivor, planner.plan, planner.describe, self._addresses.release, self._spawn)  # type: ignore[arg-type]
        output = OutputCapture(
            name,
            self._folder.logs / f"{name}.log",
            ring_lines=own.log_ring_lines,
            file_bytes=own.log_file_bytes,
            files=own.log_files,
            clock=self._clock,
            writer=self._writer,
        )
        instance = Instance(
            _profile(settings, name),
            _figures(settings, name),
            parts,
            output,
            self._clock,
            self._publish,
            state_seq=self._state_seqs.pop(name, 0),
        )
        self._instances[name] = instance
        self._planners[name] = planner
        instance.on_change(lambda state: self._tell(instance, state))
        instance.open()
        self._publish(instance.snapshot())

    async def _remove(self, name: str) -> None:
        instance = self._instances[name]
        instance.retire()
        await _stop_and_wait(instance)
        if not instance.remains:
            await self._forget(instance)
        elif name not in self._lingering:
            self._lingering[name] = asyncio.create_task(self._replace_when_gone(instance), name=f"linger:{name}")

    async def _forget(self, instance: Instance) -> None:
        name = instance.name
        await instance.close()
        # The next of the name begins in `initial`, which is a change only where this one ended otherwise.
        self._state_seqs[name] = instance.state_seq + (instance.state is not State.INITIAL)
        del self._instances[name], self._planners[name]
        self._events.publish("instance_removed", {"instance": name}, instance=name)

    async def _replace_when_gone(self, instance: Instance) -> None:
        name = instance.name
        await instance.wait_gone()
        async with self._changing:
            del self._lingering[name]
            if self._instances.get(name) is instance:
                await self._forget(instance)
                if name in self._configured.instances:
                    self._add(name, None)
                    self._sort()

    def _retune(self, name: str) -> None:
        settings, instance = self._configured, self._instances[name]
        own = settings.instances[name]
        self._planners[name].retune(own, settings.models.folders)
        instance.retune(_profile(settings, name), _figures(settings, name))
        instance.output.retune(ring_lines=own.log_ring_lines, file_bytes=own.log_file_bytes, files=own.log_files)

    def _sort(self) -> None:
        """The order of the configuration; what is not in it any more, but still there, comes last."""
        names = dict.fromkeys([*self._configured.instances, *self._instances])
        self._instances = {name: self._instances[name] for name in names}

    async def _start_if_it_can(self, name: str) -> None:
        instance = self._instances.get(name)
        if instance is not None and instance.state is State.INITIAL:
            try:
                await instance.start()
            except (StateConflictError, NotAvailableError):
                # Somebody else started it in the same breath, which is what we wanted; or it is about to be removed.
                return

    def _tell(self, instance: Instance, state: State) -> None:
        for listener in tuple(self._listeners):
            listener(instance, state)

    def _publish(self, snapshot: InstanceSnapshot) -> None:
        self._events.publish("llama_status", snapshot.to_wire(), instance=snapshot.name)


async def _stop_and_wait(instance: Instance) -> State:
    await instance.stop()
    return await instance.wait_for(SETTLED)


def _figures(settings: Settings, name: str) -> Figures:
    return Figures(**settings.supervision_of(name).model_dump())


def _profile(settings: Settings, name: str) -> Profile:
    own = settings.instances[name]
    return Profile(
        name,
        own.engine.kind,
        required=own.is_required,
        survive_supervisor=own.survive_supervisor,
        on_demand=own.is_on_demand,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith("?") else ".")
