"""One supervised inference server: one owner task, one mailbox.

`Lifecycle` decides, `Watch` runs and observes one generation, `Instance` carries effects out and tells the world. Everybody else sends a
request and awaits the reply; nothing outside the owner task changes the state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from supervisor.clock import Clock, Timer
from supervisor.errors import LlamavisorError, NotAvailableError, StateConflictError
from supervisor.launch import Address
from supervisor.process import messages as life
from supervisor.process.figures import Figures
from supervisor.process.lifecycle import Lifecycle
from supervisor.process.messages import Message
from supervisor.process.observe import Traffic
from supervisor.process.output import OutputCapture
from supervisor.process.snapshot import MILLISECONDS, InstanceSnapshot
from supervisor.process.states import State
from supervisor.process.watch import Watch, WatchParts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """What does not change while an instance object lives."""

    name: str
    engine: str
    required: bool = True
    survive_supervisor: bool = False
    on_demand: bool = False


@dataclass(slots=True)
class _Request:
    message: Message
    reply: asyncio.Future[InstanceSnapshot] | None = None


class Instance:
    """The handle of one instance. Create it on the loop, `open` it once, `close` it once. Whoever sends it requests counts them in `traffic`.

    `state_seq` counts its changes of state, beginning where an earlier instance of the name ended.
    """

    def __init__(
        self,
        profile: Profile,
        figures: Figures,
        parts: WatchParts,
        output: OutputCapture,
        clock: Clock,
        publish: Callable[[InstanceSnapshot], None],
        *,
        watch: Callable[..., Any] = Watch,
        state_seq: int = 0,
    ) -> None:
        self.profile = profile
        self.figures = figures
        self.output = output
        self.traffic = Traffic()
        self._parts = parts
        self._clock = clock
        self._publish = publish
        self._new_watch = watch
        self._lifecycle = Lifecycle(figures.retry_policy)
        self._mailbox: asyncio.Queue[_Request] = asyncio.Queue()
        self._owner: asyncio.Task[None] | None = None
        self._watch: Watch | None = None
        self._ending: asyncio.Task[None] | None = None
        self._hurrying: asyncio.Task[bool] | None = None
        self._timers: dict[life.Timer, Timer] = {}
        self._listeners: dict[Callable[[State], None], None] = {}
        self._ready_at_ms: int | None = None
        self._told = State.INITIAL
        self.state_seq = state_seq
        self._is_retired = False
        self._is_held = False

    @property
    def name(self) -> str:
        """Its name, unique in the fleet."""
        return self.profile.name

    @property
    def state(self) -> State:
        """The present state. A read only: to act, send a request; it is refused if the state has moved on."""
        return self._lifecycle.state

    @property
    def accepts_requests(self) -> bool:
        """Whether new requests may begin now: it is ready, and not held back so that it can yield its place."""
        return self._lifecycle.state is State.READY and not self._is_held

    @property
    def generation(self) -> int:
        """Counts launches; a request served by another generation met another process."""
        return self._lifecycle.generation

    @property
    def address(self) -> Address | None:
        """Where the server of the present generation listens; None when there is none."""
        spec = self._watch.spec if self._watch is not None else None
        return spec.address if spec is not None else None

    @property
    def models(self) -> tuple[Mapping[str, Any], ...]:
        """What it serves, in wire shape; empty before it is ready."""
        return self._watch.models if self._watch is not None else ()

    @property
    def watch(self) -> Watch | None:
        """The present generation, for reading (launch spec, process handle)."""
        return self._watch

    @property
    def remains(self) -> bool:
        """Whether processes of the present generation may still exist."""
        return self._lifecycle.remains

    @property
    def is_adopted(self) -> bool:
        """Whether its server is somebody else's: to let go of it frees nothing."""
        return self._lifecycle.adopted

    @property
    def requests_active(self) -> int:
        """Requests that our door is serving from it now."""
        return self.traffic.active

    def pids(self) -> list[int]:
        """The live processes of the present generation."""
        handle = self._watch.handle if self._watch is not None else None
        return handle.pids() if handle is not None else []

    def open(self) -> None:
        """Start the owner task. The instance stays `initial` until somebody starts it."""
        self._owner = asyncio.create_task(self._run(), name=f"instance:{self.name}")

    async def close(self) -> None:
        """End the owner task and let go of the process without touching it (stop first, unless it is to survive)."""
        for timer in self._timers.values():
            timer.cancel()
        for task in (self._owner, self._ending, self._hurrying):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._watch is not None:
            await self._watch.close()
        self.output.close()

    def retire(self) -> None:
        """From now on it may only stop: whoever is about to remove it must not be overtaken by a start."""
        self._is_retired = True

    @property
    def is_retired(self) -> bool:
        """Whether it is about to be removed, or the supervisor to end."""
        return self._is_retired

    def hold(self, *, hold: bool) -> None:
        """Keep new requests from it, or let them in again (`accepts_requests`); listeners hear the present state once more."""
        if hold is not self._is_held:
            self._is_held = hold
            self._tell_listeners(self.state)

    async def start(self) -> InstanceSnapshot:
        """Ask for `starting`; `StateConflictError` when refused."""
        return await self._ask(life.Start())

    async def stop(self, *, kill_adopted: bool = False) -> InstanceSnapshot:
        """Ask for `stopping`; answers once it is taken, idempotent. Use `wait_for` for the end of it."""
        return await self._ask(life.Stop(kill_adopted))

    async def unload(self, states: frozenset[State], why: str) -> InstanceSnapshot:
        """Ask for `stopping`, unless a request is under way or the state is none of `states`: then `StateConflictError`.

        Both are looked at when the request is taken, so that nothing can begin between the look and the stop. `why` is what people are told of it
        until it is started again, and follows "was unloaded: ".
        """
        return await self._ask(life.Unload(states, why))

    async def restart(self) -> InstanceSnapshot:
        """Stop and start as one request."""
        return await self._ask(life.Restart())

    def hurry(self) -> None:
        """From now on an end has no grace: what is being stopped is killed."""
        self.retune(self.profile, replace(self.figures, stop_grace_seconds=0))
        handle = self._watch.handle if self._watch is not None else None
        if handle is not None and self.state is State.STOPPING and not self._lifecycle.adopted:
            self._hurrying = asyncio.create_task(handle.terminate(0, force=True), name=f"hurry:{self.name}")

    async def wait_for(self, states: frozenset[State] | set[State], timeout_seconds: float | None = None) -> State:
        """Wait until the state is one of `states`; `TimeoutError` when it is not by then. Every change wakes every waiter."""
        reached: asyncio.Future[State] = asyncio.get_running_loop().create_future()

        def look(state: State) -> None:
            if state in states and not reached.done():
                reached.set_result(state)

        self._listeners[look] = None
        look(self.state)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await reached
        finally:
            del self._listeners[look]

    async def wait_gone(self) -> None:
        """Wait until nothing of it is left, however long an unkillable process takes."""
        moved = asyncio.Event()
        forget = self.on_change(lambda _state: moved.set())
        try:
            while self.remains:
                moved.clear()
                await moved.wait()
        finally:
            forget()

    def on_change(self, listener: Callable[[State], None]) -> Callable[[], None]:
        """Call `listener` with each state that is entered, and with the present one when requests are held or let in again.

        The first that came is called first. The answer takes it off again.
        """
        self._listeners[listener] = None
        return lambda: self._listeners.pop(listener, None)

    @contextmanager
    def serving(self) -> Iterator[Traffic]:
        """Count one request while it is served; set `last_byte_at` of the answer whenever bytes arrive: they are the best proof of life."""
        self.traffic.active += 1
        try:
            yield self.traffic
        finally:
            self.traffic.active -= 1

    def snapshot(self, state: State | None = None) -> InstanceSnapshot:
        """The instance at this moment (`state`: as it enters that state)."""
        core = self._lifecycle
        # Between the decision to launch and the launch, the watch is still that of the generation before.
        watch = self._watch if self._watch is not None and self._watch.generation == core.generation else None
        handle = watch.handle if watch is not None and core.remains else None
        now, wall = self._clock.monotonic(), self._clock.wall()
        started = handle.started_wall if handle is not None else None
        next_retry = core.next_retry_at if core.state is State.CRASHED else None
        return InstanceSnapshot(
            name=self.name,
            engine=self.profile.engine,
            state=state or core.state,
            state_seq=self.state_seq,
            models=watch.models if watch is not None else (),
            cause=core.cause,
            last_crash=core.last_crash,
            retries=core.retries,
            max_retries=core.policy.max_retries,
            next_retry_at_ms=None if next_retry is None else int((wall + next_retry - now) * MILLISECONDS),
            started_at_ms=None if started is None else int(started * MILLISECONDS),
            ready_at_ms=self._ready_at_ms if core.state is State.READY else None,
            uptime_seconds=max(0.0, wall - started) if started is not None else 0.0,
            progress=watch.progress if watch is not None and core.state is State.STARTING else None,
            pid=handle.pid if handle is not None else None,
            adopted=core.adopted,
            unloaded=core.unloaded,
            address=str(watch.spec.address) if watch is not None and watch.spec is not None else None,
            required=self.profile.required,
            survive_supervisor=self.profile.survive_supervisor,
            on_demand=self.profile.on_demand,
            remains=core.remains,
            requests_active=self.traffic.active,
            parts=watch.parts if watch is not None and core.state is State.READY else {},
        )

    def retune(self, profile: Profile, figures: Figures) -> None:
        """Take new figures without a restart: retries from now on, deadlines and intervals from the next probe."""
        self.profile = profile
        self.figures = figures
        self._lifecycle.policy = figures.retry_policy
        if self._watch is not None:
            self._watch.retune(figures)

    # The owner task

    async def _ask(self, message: Message) -> InstanceSnapshot:
        leaves = self._is_retired and not isinstance(message, life.Stop)
        if leaves or self._owner is None or self._owner.done():
            raise NotAvailableError(f"{self.name} is being removed.", code="shutting_down")
        reply: asyncio.Future[InstanceSnapshot] = asyncio.get_running_loop().create_future()
        self._mailbox.put_nowait(_Request(message, reply))
        return await reply

    def _report(self, message: Message) -> None:
        self._mailbox.put_nowait(_Request(message))

    async def _run(self) -> None:
        try:
            while True:
                self._take(await self._mailbox.get())
        finally:
            self._refuse_the_rest()

    def _refuse_the_rest(self) -> None:
        while not self._mailbox.empty():
            reply = self._mailbox.get_nowait().reply
            if reply is not None and not reply.done():
                reply.set_exception(NotAvailableError(f"{self.name} is being removed.", code="shutting_down"))

    def _take(self, request: _Request) -> None:
        reply = request.reply
        try:
            self._refuse_if_busy(request.message)
            effects = self._lifecycle.handle(request.message, self._clock.monotonic())
        except LlamavisorError as error:
            if reply is not None and not reply.done():
                reply.set_exception(error)
            return
        for effect in effects:
            try:
                self._carry_out(effect)
            except Exception:
                # An owner that died of a listener's fault would leave its process to nobody.
                logger.exception("%s: %r could not be carried out", self.name, effect)
        if reply is not None and not reply.done():
            reply.set_result(self.snapshot())

    def _refuse_if_busy(self, message: Message) -> None:
        if isinstance(message, life.Unload) and self.traffic.active:
            raise StateConflictError(
                f"{self.name} is serving {self.traffic.active} request(s).", details={"state": self.state.value}
            )

    def _carry_out(self, effect: life.Effect) -> None:
        match effect:
            case life.Changed(state):
                self._tell(state)
            case life.Launch(generation):
                self._launch(generation)
            case life.End():
                self._ending = asyncio.create_task(
                    self._end(effect, self._ending), name=f"end:{self.name}:{effect.generation}"
                )
            case life.Arm(timer, generation, delay_seconds):
                due = life.TimerDue(timer, generation)
                self._timers[timer] = self._clock.call_later(delay_seconds, lambda: self._report(due))
            case life.Disarm(timer):
                armed = self._timers.pop(timer, None)
                if armed is not None:
                    armed.cancel()

    def _tell(self, state: State) -> None:
        if state is not self._told:
            self._told = state
            self.state_seq += 1
        if state is State.READY and self._ready_at_ms is None:
            self._ready_at_ms = int(self._clock.wall() * MILLISECONDS)
        elif state is not State.READY:
            self._ready_at_ms = None
        self._publish(self.snapshot(state))
        self._tell_listeners(state)

    def _tell_listeners(self, state: State) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(state)
            except Exception:
                # The others wait for this state too.
                logger.exception("%s: a listener failed on %s", self.name, state.value)

    def _launch(self, generation: int) -> None:
        self._watch = self._new_watch(
            generation=generation,
            name=self.name,
            parts=self._parts,
            figures=self.figures,
            output=self.output,
            traffic=self.traffic,
            clock=self._clock,
            report=self._report,
            changed=lambda: self._publish(self.snapshot()),
        )
        self._watch.begin()

    async def _end(self, effect: life.End, before: asyncio.Task[None] | None) -> None:
        # One end at a time: of two, the later could still be searching for processes when the next generation is there already.
        if before is not None:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        watch = self._watch
        if watch is not None and watch.generation == effect.generation:
            await watch.end(graceful=effect.graceful, kill_adopted=effect.kill_adopted)
        else:
            self._report(life.Gone(effect.generation))
