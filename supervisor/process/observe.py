"""Observing one server: is it ready yet, does it still answer, do its tokens advance?

An `Observer` raises `GivenUp` with what it saw; it never acts. Truth is observed: a probe that was answered by a process that is not ours
counts for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from supervisor.clock import Clock
from supervisor.launch import Address, LaunchSpec
from supervisor.process import posix
from supervisor.process.child import ProcessHandle
from supervisor.process.figures import Figures
from supervisor.process.liveness import LivenessJudge, Observation, ProgressJudge, Verdict
from supervisor.process.output import OutputCapture
from supervisor.process.probe import Prober
from supervisor.process.readiness import StartDeadline, probe_delays
from supervisor.process.states import Cause, Reason

# A frozen server has to be noticed within 10 s: three misses of one interval and one deadline each.
LIVENESS_DEADLINE_INTERVALS = 2
LIVENESS_DEADLINE_FLOOR_SECONDS = 1.0
# Below a hundredth nobody sees the bar move, and every step is an event to every dashboard.
PROGRESS_STEP = 0.01
# Reading the progress walks the process's page table: not more often than anybody looks.
PROGRESS_READ_INTERVAL_SECONDS = 0.25


class Traffic:
    """Requests that are being served through our door, and when the last byte came from the server (monotonic seconds): the best proof of life."""

    __slots__ = ("active", "last_byte_at")

    def __init__(self) -> None:
        self.active = 0
        self.last_byte_at = float("-inf")


class GivenUp(Exception):
    """The server is not to be waited for any longer; `cause` says what was seen."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Subject:
    """What is observed: `handle` is None for an adopted server whose process cannot be seen."""

    spec: LaunchSpec
    handle: ProcessHandle | None
    adopted: bool


class Observer:
    """Observes one generation. `progress` is 0 to 1 while loading, when known; `changed` is called when it moves."""

    def __init__(
        self,
        subject: Subject,
        prober: Prober,
        figures: Figures,
        output: OutputCapture,
        traffic: Traffic,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self.figures = figures
        self.progress: float | None = None
        self._subject = subject
        self._prober = prober
        self._output = output
        self._traffic = traffic
        self._clock = clock
        self._changed = changed
        self._progress_read_at = float("-inf")

    async def until_ready(self) -> None:
        """Return once the server of this generation answers; `GivenUp` (start_timeout, stranger, port_in_use) when it will not."""
        deadline = StartDeadline(self.figures.start_deadline_seconds, self._clock.monotonic())
        delays = probe_delays(self.figures.probe_interval_min_seconds, self.figures.probe_interval_max_seconds)
        for delay_seconds in delays:
            health = await self._prober.health(self.figures.probe_deadline_seconds)
            if health.ok and self._answer_is_ours():
                self.progress = None
                return
            await self._note_progress(deadline)
            if deadline.expired(self._clock.monotonic()):
                raise GivenUp(self._start_timeout(health.detail))
            await self._clock.sleep(delay_seconds)

    async def keep_observing(self) -> None:
        """Never returns; `GivenUp` (unresponsive, wedged) when the server is there but serves no more."""
        liveness = LivenessJudge(self.figures.liveness_misses)
        progress = ProgressJudge(self.figures.wedge_seconds, self.figures.wedge_busy_seconds)
        progress_due = self._clock.monotonic() + self.figures.progress_interval_seconds
        while True:
            await self._clock.sleep(self.figures.liveness_interval_seconds)
            await self._observe_liveness(liveness)
            if self._clock.monotonic() >= progress_due:
                await self._observe_progress(progress)
                progress_due = self._clock.monotonic() + self.figures.progress_interval_seconds

    # Readiness

    def _answer_is_ours(self) -> bool:
        subject = self._subject
        if subject.adopted or subject.handle is None:
            return True
        address = subject.spec.address
        if subject.handle.owns(address):
            return True
        stranger = posix.listening_owner(address)
        if stranger is None or stranger in subject.handle.pids():
            return False
        raise GivenUp(taken(address, stranger, Reason.STRANGER, permanent=not subject.spec.address_is_ours))

    async def _note_progress(self, deadline: StartDeadline) -> None:
        now = self._clock.monotonic()
        deadline.note_output(self._output.last_output_monotonic, now)
        if now - self._progress_read_at < PROGRESS_READ_INTERVAL_SECONDS:
            return
        self._progress_read_at = now
        fraction = await self._load_fraction()
        if fraction is None:
            return
        deadline.note_fraction(fraction, now)
        if self.progress is None or abs(fraction - self.progress) >= PROGRESS_STEP:
            self.progress = fraction
            self._changed()

    async def _load_fraction(self) -> float | None:
        if self._output.load_progress is not None:
            return self._output.load_progress
        handle, model_file = self._subject.handle, self._subject.spec.model_file
        if handle is None or model_file is None:
            return None
        return await asyncio.to_thread(posix.file_read_fraction, handle.pid, model_file)

    def _start_timeout(self, detail: str) -> Cause:
        seconds = self.figures.start_deadline_seconds
        return Cause(
            Reason.START_TIMEOUT,
            f"not ready, and no sign of progress for {seconds:g} s (last probe: {detail})",
            remedy="If the model really takes longer, raise `supervision.start_deadline_seconds`.",
            output_tail=self._output.stderr_tail(),
        )

    # Liveness and progress

    async def _observe_liveness(self, judge: LivenessJudge) -> None:
        self._output.poll_file()
        asked_at = self._clock.monotonic()
        interval = self.figures.liveness_interval_seconds
        patience = max(LIVENESS_DEADLINE_FLOOR_SECONDS, LIVENESS_DEADLINE_INTERVALS * interval)
        health = await self._prober.health(min(self.figures.probe_deadline_seconds, patience))
        # A server whose HTTP threads are all busy streaming to our clients answers no probe, and is anything but dead.
        alive = health.ok or self._traffic.last_byte_at >= asked_at
        if judge.observe(alive) is Verdict.UNRESPONSIVE:
            misses = self.figures.liveness_misses
            message = f"the process is there, but did not answer {misses} health probes in a row ({health.detail})"
            raise GivenUp(Cause(Reason.UNRESPONSIVE, message, output_tail=self._output.stderr_tail()))

    async def _observe_progress(self, judge: ProgressJudge) -> None:
        spec = self._subject.spec
        # A server on an address of our choice gets requests through our door only: while there are none, there is nothing to ask.
        if self._traffic.active == 0 and (spec.address_is_ours or spec.probe.counters is None):
            return
        counters = await self._prober.counters(self.figures.probe_deadline_seconds)
        pids = self._subject.handle.pids() if self._subject.handle is not None else []
        observation = Observation(
            now=self._clock.monotonic(),
            counters=counters,
            requests_active_here=self._traffic.active,
            cpu_seconds=posix.cpu_seconds(pids),
            last_byte_at=self._traffic.last_byte_at,
        )
        verdict = judge.observe(observation)
        if verdict is Verdict.DOUBT and await self._prober.canary(self.figures.wedge_seconds):
            judge.canary_answered(self._clock.monotonic())
        elif verdict in (Verdict.DOUBT, Verdict.WEDGED):
            message = "answers health probes, but no token came for too long while requests were active"
            raise GivenUp(Cause(Reason.WEDGED, message, output_tail=self._output.stderr_tail()))


def taken(address: Address, holder: int, reason: Reason = Reason.PORT_IN_USE, *, permanent: bool = True) -> Cause:
    """The cause to show when somebody else (process `holder`) has the address."""
    return Cause(
        reason,
        f"{address} is taken by {posix.describe_process(holder)}",
        remedy="Stop that process, or configure another port.",
        permanent=permanent,
    )
