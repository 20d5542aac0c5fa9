"""The decisions of one instance, without a process: messages in, effects out.

`Lifecycle.handle` is a function of the present state, one message and the time. It moves the machine, keeps the count of retries and says
what is to be done (`Effect`s); `instance.py` carries it out. Hence every race is a sequence of messages, tested on a fake clock.

A *generation* is one launch, own or adopted. Messages about a generation that is not the present one are stale and change nothing.
`remains` says whether processes of the present generation may still exist; nothing is launched while they do.
"""

from __future__ import annotations

import random

from supervisor.errors import StateConflictError
from supervisor.process.machine import StateMachine, Trigger
from supervisor.process.messages import (
    Answered,
    Arm,
    CannotStart,
    Changed,
    Disarm,
    Effect,
    End,
    Exited,
    Failed,
    Gone,
    Launch,
    Message,
    Restart,
    Start,
    Stop,
    Stuck,
    Timer,
    TimerDue,
    Unload,
)
from supervisor.process.retry import RetryPolicy
from supervisor.process.states import Cause, Reason, State

_FAILURE_TRIGGERS = {
    Reason.UNRESPONSIVE: Trigger.UNRESPONSIVE,
    Reason.WEDGED: Trigger.WEDGED,
    Reason.START_TIMEOUT: Trigger.START_TIMEOUT,
}


class Lifecycle:
    """The decision core of one instance. Attributes are for reading; only `handle` changes them."""

    def __init__(self, policy: RetryPolicy, source: random.Random | None = None) -> None:
        self.policy = policy
        self.generation = 0
        self.retries = 0
        self.remains = False
        self.adopted = False
        self.cause: Cause | None = None
        self.last_crash: Cause | None = None
        self.next_retry_at: float | None = None
        # Why it is `stopping` or `initial`, if it was unloaded.
        self.unloaded: str | None = None
        self._is_stuck = False
        self._when_gone: Trigger | None = None
        self._start_after_stop = False
        self._source = source or random.Random()
        self._effects: list[Effect] = []
        self._machine = StateMachine(lambda _trigger, _old, new: self._effects.append(Changed(new)))

    @property
    def state(self) -> State:
        """The present state."""
        return self._machine.state

    def handle(self, message: Message, now: float) -> tuple[Effect, ...]:
        """Take one message in at monotonic time `now`; the effects are to be carried out in order.

        `StateConflictError` when a request (`Start`, `Stop`, `Unload`, `Restart`) is refused; nothing has changed then.
        """
        self._effects = []
        self._dispatch(message, now)
        return tuple(self._effects)

    def _dispatch(self, message: Message, now: float) -> None:
        match message:
            case Start():
                self._on_start()
            case Stop():
                self._on_stop(message)
            case Unload():
                self._on_unload(message)
            case Restart():
                self._on_restart()
            case TimerDue():
                self._on_timer(message)
            case _ if message.generation != self.generation:
                return
            case Answered():
                self._on_answered(message)
            case Exited() | Failed():
                self._on_ended(message, now)
            case CannotStart():
                self._on_cannot_start(message)
            case Gone():
                self._on_gone()
            case Stuck():
                self._on_stuck(message)

    # Requests

    def _on_start(self) -> None:
        self._refuse_while_unkillable()
        if self.state in (State.CRASHED, State.ERROR) and self.remains:
            self._disarm_retry()
            self._when_gone = Trigger.START
            return
        self._launch(Trigger.START)

    def _refuse_while_unkillable(self) -> None:
        if self._is_stuck:
            raise StateConflictError(
                "The old process still exists: it survived SIGKILL, so its slot and its address stay reserved.",
                remedy="Once it is gone (see its pid on the status page), start again.",
                details={"state": self.state.value},
            )

    def _on_stop(self, message: Stop) -> None:
        self._start_after_stop = False
        if self.state in (State.INITIAL, State.STOPPING):
            return
        self._machine.fire(Trigger.STOP)
        self._end_present_generation(message.kill_adopted)

    def _on_unload(self, message: Unload) -> None:
        if self.state not in message.states:
            raise StateConflictError(
                f"It is not unloaded in the state `{self.state.value}`.", details={"state": self.state.value}
            )
        self._on_stop(Stop())
        self.unloaded = message.why

    def _on_restart(self) -> None:
        if self.state is State.INITIAL:
            self._launch(Trigger.START)
            return
        self._refuse_while_unkillable()
        # Before the flag: a refusal in `stopping` must leave nothing behind.
        self._machine.fire(Trigger.STOP)
        self._start_after_stop = True
        self._end_present_generation(kill_adopted=False)

    def _end_present_generation(self, kill_adopted: bool) -> None:
        self.unloaded = None
        self._disarm_all()
        if self.remains:
            self._effects.append(End(self.generation, graceful=True, kill_adopted=kill_adopted))
        else:
            self._settle_stop()

    def _settle_stop(self) -> None:
        self.cause = None
        self.adopted = False
        self.retries = 0
        self._machine.fire(Trigger.STOPPED)
        if self._start_after_stop:
            self._start_after_stop = False
            self._launch(Trigger.START)

    # Reports of the watch

    def _on_answered(self, message: Answered) -> None:
        if self.state is not State.STARTING:
            return
        self.cause = None
        self.adopted = message.adopted
        self._machine.fire(Trigger.ANSWERED)
        self._effects.append(Arm(Timer.STABLE, self.generation, self.policy.stable_seconds))

    def _on_ended(self, message: Exited | Failed, now: float) -> None:
        if self.state not in (State.STARTING, State.READY):
            return
        if message.cause.permanent and self.state is State.STARTING:
            self._refuse_start(message.cause)
        else:
            self._crash(_FAILURE_TRIGGERS.get(message.cause.reason, Trigger.EXITED), message.cause, now)

    def _on_cannot_start(self, message: CannotStart) -> None:
        if self.state is State.STARTING:
            self._refuse_start(message.cause)

    def _refuse_start(self, cause: Cause) -> None:
        self.cause = self.last_crash = cause
        self._machine.fire(Trigger.CANNOT_START)
        self._effects.append(End(self.generation, graceful=False))

    def _crash(self, trigger: Trigger, cause: Cause, now: float) -> None:
        self.cause = self.last_crash = cause
        retries_left = self.retries < self.policy.max_retries
        self._effects.append(Disarm(Timer.STABLE))
        self._machine.fire(trigger)
        self._effects.append(End(self.generation, graceful=False))
        if retries_left:
            self.retries += 1
            delay = self.policy.delay_seconds(self.retries, self._source)
            self.next_retry_at = now + delay
            self._effects.append(Arm(Timer.RETRY, self.generation, delay))
        else:
            self._machine.fire(Trigger.GAVE_UP)

    def _on_gone(self) -> None:
        self.remains = self._is_stuck = False
        if self.state is State.STOPPING:
            self._settle_stop()
        elif self._when_gone is not None:
            self._launch(self._when_gone)
        elif self.state is State.ERROR:
            # Now it may be started again, which the status page has to show.
            self._effects.append(Changed(self.state))

    def _on_stuck(self, message: Stuck) -> None:
        self._is_stuck = True
        self._start_after_stop = False
        self._disarm_all()
        self.cause = self.last_crash = message.cause
        if self.state is State.STOPPING:
            self._machine.fire(Trigger.STUCK)
        elif self.state is State.CRASHED:
            self._machine.fire(Trigger.GAVE_UP)
        elif self.state is State.ERROR:
            # No move, but another cause than was told.
            self._effects.append(Changed(self.state))

    def _on_timer(self, message: TimerDue) -> None:
        if message.generation != self.generation:
            return
        if message.timer is Timer.STABLE and self.state is State.READY:
            self.retries = 0
            self._effects.append(Changed(self.state))
        elif message.timer is Timer.RETRY and self.state is State.CRASHED:
            if self.remains:
                self._when_gone = Trigger.RETRY_DUE
            else:
                self._launch(Trigger.RETRY_DUE)

    # Steps

    def _launch(self, trigger: Trigger) -> None:
        begins_anew = self.state is State.ERROR
        # First, because it raises when the request is refused.
        self._machine.fire(trigger)
        if begins_anew:
            self.retries = 0
        self._disarm_all()
        self.generation += 1
        self.remains = True
        self.adopted = False
        self.unloaded = None
        self._effects.append(Launch(self.generation))

    def _disarm_retry(self) -> None:
        self.next_retry_at = None
        self._effects.append(Disarm(Timer.RETRY))

    def _disarm_all(self) -> None:
        self._when_gone = None
        self._disarm_retry()
        self._effects.append(Disarm(Timer.STABLE))
