"""One generation of an instance: adopt or spawn the server, have it observed, end it.

A `Watch` decides nothing about states: it reports what happened to the owner task (`lifecycle` messages), with its generation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.clock import Clock
from supervisor.errors import LlamavisorError
from supervisor.launch import Address, LaunchSpec
from supervisor.process import posix
from supervisor.process.child import CannotSpawnError, ProcessHandle, Tags, attach_foreign, reattach, spawn
from supervisor.process.classify import classify_exit
from supervisor.process.figures import Figures
from supervisor.process.messages import Answered, CannotStart, Exited, Failed, Gone, Message, Stuck
from supervisor.process.observe import GivenUp, Observer, Subject, Traffic, taken
from supervisor.process.output import OutputCapture
from supervisor.process.probe import Prober
from supervisor.process.states import Cause, ExitStatus, Reason

logger = logging.getLogger(__name__)

STUCK_RECHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What one launch is to do.

    `may_adopt`: a server that already answers at the configured address is taken.
    """

    spec: LaunchSpec
    tags: Tags
    survive: bool = False
    may_adopt: bool = False


class CannotPlanError(LlamavisorError):
    """There is nothing to launch, and no retry would help; `cause` says why."""

    code, status = "cannot_start", 422

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message, remedy=cause.remedy)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What the fleet lends to an instance.

    `survivor` is a server of ours that outlived an earlier supervisor and still lives, to be taken back instead of spawning; `plan` says
    what the next launch is to do (around that survivor, if there is one), or raises `CannotPlanError`; `describe` lists the models that a
    ready server has; `release` takes the address back when nothing of the generation is left; `spawn` starts the process.
    """

    survivor: Callable[[], posix.Found | None]
    plan: Callable[[posix.Found | None], Awaitable[LaunchPlan]]
    describe: Callable[[Prober, LaunchSpec], Awaitable[tuple[Mapping[str, Any], ...]]]
    release: Callable[[Address], None]
    spawn: Callable[..., ProcessHandle] = spawn


class Watch:
    """See the module. `spec` is what is launched (None before it is planned), `handle` the process, `models` what it serves,
    `parts` the process ids of those that it consists of, by name (empty: it is one process)."""

    def __init__(
        self,
        *,
        generation: int,
        name: str,
        parts: WatchParts,
        figures: Figures,
        output: OutputCapture,
        traffic: Traffic,
        clock: Clock,
        report: Callable[[Message], None],
        changed: Callable[[], None],
    ) -> None:
        self.generation = generation
        self.name = name
        self.spec: LaunchSpec | None = None
        self.handle: ProcessHandle | None = None
        self.models: tuple[Mapping[str, Any], ...] = ()
        self.parts: Mapping[str, int] = {}
        self.observer: Observer | None = None
        self._parts = parts
        self._figures = figures
        self._output = output
        self._traffic = traffic
        self._clock = clock
        self._report = report
        self._changed = changed
        self._prober: Prober | None = None
        self._task: asyncio.Task[None] | None = None
        self._adopted = False
        self._was_ready = False
        self._is_over = False
        self._oom_kills_before: int | None = None

    @property
    def progress(self) -> float | None:
        """0 to 1 while loading, when known."""
        return self.observer.progress if self.observer is not None else None

    def begin(self) -> None:
        """Start the task; called once, on the loop."""
        self._task = asyncio.create_task(self._run(), name=f"watch:{self.name}:{self.generation}")

    def retune(self, figures: Figures) -> None:
        """Take new figures, from the next probe on."""
        self._figures = figures
        if self.observer is not None:
            self.observer.figures = figures

    async def end(self, *, graceful: bool, kill_adopted: bool) -> None:
        """Stop observing, end the processes, and report `Gone`, or `Stuck` and later `Gone`. An adopted server is only let go.

        Once `Gone` is reported, nothing is done any more: what carries the instance's marks then is of the next generation.
        """
        if self._is_over:
            return
        await self._stop_observing()
        if self.handle is not None:
            if not self._adopted or kill_adopted:
                await self._end_process(self.handle, graceful=graceful)
            self.handle.close()
        if self.spec is not None:
            self._parts.release(self.spec.address)
        self._is_over = True
        self._report(Gone(self.generation))

    async def close(self) -> None:
        """Stop observing and let go of the process, whatever it does."""
        await self._stop_observing()
        if self.handle is not None:
            self.handle.close()

    async def _end_process(self, handle: ProcessHandle, *, graceful: bool) -> None:
        if await handle.terminate(self._figures.stop_grace_seconds, force=not graceful):
            return
        self._report(Stuck(self.generation, _unkillable(handle)))
        while not await handle.terminate(0, force=True):
            await self._clock.sleep(STUCK_RECHECK_SECONDS)

    async def _stop_observing(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._prober is not None:
            await self._prober.close()

    async def _run(self) -> None:
        try:
            # Before anything is awaited: from here on, whoever ends this generation ends the survivor with it.
            survivor = self._parts.survivor()
            if survivor is not None:
                self._take(reattach(survivor, self._output))
            plan = await self._parts.plan(survivor)
            self.spec = plan.spec
            self._prober = Prober(plan.spec.address, plan.spec.probe)
            if self.handle is None:
                await self._launch(plan, self._prober)
            self._changed()
            await self._observe(plan.spec, self._prober)
        except GivenUp as seen:
            self._report(Failed(self.generation, seen.cause))
        except (CannotPlanError, CannotSpawnError) as error:
            kind = CannotStart if error.cause.permanent else Failed
            self._report(kind(self.generation, error.cause))
        except Exception as error:
            logger.exception("the watch of %s failed", self.name)
            cause = Cause(
                Reason.WATCH_FAILED, f"the supervisor's own watch failed: {error!r}", remedy="Please report this."
            )
            self._report(Failed(self.generation, cause))

    async def _launch(self, plan: LaunchPlan, prober: Prober) -> None:
        spec = plan.spec
        if plan.may_adopt and await prober.matches_signature(self._figures.probe_deadline_seconds):
            self._adopted = True
            owner = posix.listening_owner(spec.address)
            if owner is not None:
                self._take(attach_foreign(owner))
        elif not spec.argv:
            raise GivenUp(_not_answering(spec.address))
        else:
            self._spawn(plan)

    def _spawn(self, plan: LaunchPlan) -> None:
        spec = plan.spec
        holder = None if spec.address_is_ours else posix.listening_owner(spec.address)
        if holder is not None:
            raise GivenUp(taken(spec.address, holder))
        self.handle = self._parts.spawn(spec, plan.tags, self._output, survive=plan.survive, on_exit=self._on_exit)
        self._oom_kills_before = posix.oom_kills()

    def _take(self, handle: ProcessHandle) -> None:
        self.handle = handle
        handle.exited.add_done_callback(lambda exited: None if exited.cancelled() else self._on_exit(exited.result()))

    def _on_exit(self, status: ExitStatus) -> None:
        self._report(Exited(self.generation, self._classify(status)))

    def _classify(self, status: ExitStatus) -> Cause:
        if self._adopted:
            return Cause(Reason.ADOPTED_EXITED, "the adopted server went away", exit=status)
        self._output.drain()
        oom_kills = posix.oom_kills()
        return classify_exit(
            status,
            self._output.stderr_tail(),
            self.spec.failures if self.spec is not None else (),
            oom_kill=oom_kills is not None and oom_kills > (self._oom_kills_before or 0),
            was_ready=self._was_ready,
        )

    async def _observe(self, spec: LaunchSpec, prober: Prober) -> None:
        self.observer = Observer(
            Subject(spec, self.handle, self._adopted),
            prober,
            self._figures,
            self._output,
            self._traffic,
            self._clock,
            self._changed,
        )
        await self.observer.until_ready()
        self.models = await self._parts.describe(prober, spec)
        self.parts = await prober.parts(self._figures.probe_deadline_seconds)
        self._was_ready = True
        self._report(Answered(self.generation, self._adopted))
        await self.observer.keep_observing()


def _unkillable(handle: ProcessHandle) -> Cause:
    pids = ", ".join(map(str, handle.pids()))
    return Cause(
        Reason.UNKILLABLE,
        f"process {pids or handle.pid} survives SIGKILL",
        remedy="It hangs inside the kernel (a driver, a network file system); only that, or a reboot, can free it.",
        permanent=True,
    )


def _not_answering(address: Address) -> Cause:
    return Cause(
        Reason.NOT_ANSWERING,
        f"no server of this engine answers at {address}",
        remedy="Start it there, or give the instance an engine and a model so that it can be started from here.",
    )
