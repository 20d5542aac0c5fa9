"""The fleet: every instance by name, and the only one who creates, changes and removes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from supervisor.clock import Clock
from supervisor.config.diff import SettingsDiff
from supervisor.config.settings import InstanceSettings, Settings
from supervisor.config.suggestions import remedy_for
from supervisor.data_folder import DataFolder
from supervisor.errors import InstanceNotFoundError, StateConflictError
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

RUNNING = frozenset({State.STARTING, State.READY, State.CRASHED})
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
        self._settings: dict[str, InstanceSettings] = {}
        self._usage = UsageMeter(clock)
        self._changing = asyncio.Lock()

    def names(self) -> list[str]:
        """The names of all instances, in the order of the configuration."""
        return list(self._instances)

    def instances(self) -> list[Instance]:
        """All instances, in the order of the configuration."""
        return list(self._instances.values())

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
        return self._settings[name]

    async def start(self, name: str) -> InstanceSnapshot:
        """Ask an instance to start; `StateConflictError` when it refuses."""
        return await self.get(name).start()

    async def stop(self, name: str, *, kill_adopted: bool = False) -> InstanceSnapshot:
        """Ask an instance to stop; idempotent. Answers when it is `stopping`."""
        return await self.get(name).stop(kill_adopted=kill_adopted)

    async def restart(self, name: str) -> InstanceSnapshot:
        """Ask an instance to stop and start again."""
        return await self.get(name).restart()

    async def stop_and_wait(self, name: str) -> State:
        """Stop an instance and wait until it is `initial`, or `error` when it cannot be killed."""
        return await _stop_and_wait(self.get(name))

    def usage(self) -> FleetUsage:
        """Memory and processor share of the instances' processes now."""
        return self._usage.read({name: instance.pids() for name, instance in self._instances.items()})

    def digest_of(self, name: str, settings: Settings) -> str:
        """What a survivor of that instance must carry to be taken back."""
        return self._planner(name, settings, None).digest

    async def open(self, settings: Settings, survivors: Mapping[str, Found]) -> None:
        """Make every configured instance; survivors of an earlier supervisor are handed to theirs. Nothing is started yet."""
        for name in settings.instances:
            self._add(name, settings, survivors.get(name))

    async def autostart(self, settings: Settings, survivors: Mapping[str, Found]) -> None:
        """Start those that are to start with the supervisor, and those whose process is still there."""
        wanted = [name for name, own in settings.instances.items() if own.autostart or name in survivors]
        await asyncio.gather(*(self._start_if_it_can(name) for name in wanted))

    async def apply(self, settings: Settings, diff: SettingsDiff) -> None:
        """Carry out a changed configuration by difference: what did not change keeps running."""
        async with self._changing:
            running = {name for name in diff.changed if self._instances[name].state in RUNNING}
            await asyncio.gather(*(self._remove(name) for name in (*diff.removed, *diff.changed)))
            for name in (*diff.added, *diff.changed):
                self._add(name, settings, None)
            for name in diff.retuned:
                self._settings[name] = settings.instances[name]
                self._instances[name].retune(_profile(settings, name), _figures(settings, name))
            self._instances = {name: self._instances[name] for name in settings.instances}
            added = {name for name in diff.added if settings.instances[name].autostart}
            await asyncio.gather(*(self._start_if_it_can(name) for name in running | added))

    async def stop_all(self, *, survivors_too: bool) -> None:
        """Stop every instance and wait; those that are to survive the supervisor only if `survivors_too`."""
        leaving = [one for one in self.instances() if survivors_too or not one.profile.survive_supervisor]
        await asyncio.gather(*(_stop_and_wait(instance) for instance in leaving))

    async def close(self) -> None:
        """Let go of whatever is left, without touching its processes, and end the log writer."""
        await asyncio.gather(*(instance.close() for instance in self.instances()))
        self._instances.clear()
        self._writer.close()

    # Making and removing

    def _planner(self, name: str, settings: Settings, survivor: Found | None) -> Planner:
        own = settings.instances[name]
        return Planner(name, own, settings.models.folders, self._addresses, self._folder.run_id, survivor)

    def _add(self, name: str, settings: Settings, survivor: Found | None) -> None:
        own = settings.instances[name]
        planner = self._planner(name, settings, survivor)
        parts = WatchParts(planner.plan, planner.describe, self._addresses.release, self._spawn)  # type: ignore[arg-type]
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
            _profile(settings, name), _figures(settings, name), parts, output, self._clock, self._publish
        )
        self._instances[name] = instance
        self._settings[name] = own
        instance.open()
        self._publish(instance.snapshot())

    async def _remove(self, name: str) -> None:
        instance = self._instances[name]
        await _stop_and_wait(instance)
        await instance.close()
        del self._instances[name], self._settings[name]
        self._events.publish("instance_removed", {"instance": name}, instance=name)

    async def _start_if_it_can(self, name: str) -> None:
        instance = self._instances.get(name)
        if instance is not None and instance.state is State.INITIAL:
            try:
                await instance.start()
            except StateConflictError:
                # Somebody else started it in the same breath, which is what we wanted.
                return

    def _publish(self, snapshot: InstanceSnapshot) -> None:
        self._events.publish("llama_status", snapshot.to_wire(), instance=snapshot.name)


async def _stop_and_wait(instance: Instance) -> State:
    await instance.stop()
    return await instance.wait_for(SETTLED)


def _figures(settings: Settings, name: str) -> Figures:
    return Figures(**settings.supervision_of(name).model_dump())


def _profile(settings: Settings, name: str) -> Profile:
    own = settings.instances[name]
    return Profile(name, own.engine.kind, required=own.is_required, survive_supervisor=own.survive_supervisor)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith("?") else ".")
