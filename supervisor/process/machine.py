"""The state machine of an instance: the table of `contracts.md` §1 and nothing else.

The synchronous `transitions.Machine` (its asynchronous twin cancels a running callback when another trigger arrives), with enum states,
no automatic transitions and no I/O in callbacks. Whatever is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from transitions import EventData, Machine, MachineError

from supervisor.errors import StateConflictError
from supervisor.process.states import State


class Trigger(StrEnum):
    """The events of the table."""

    START = "start"
    ANSWERED = "answered"
    EXITED = "exited"
    UNRESPONSIVE = "unresponsive"
    WEDGED = "wedged"
    START_TIMEOUT = "start_timeout"
    RETRY_DUE = "retry_due"
    GAVE_UP = "gave_up"
    CANNOT_START = "cannot_start"
    STOP = "stop"
    STOPPED = "stopped"
    STUCK = "stuck"


_CRASHING = (Trigger.EXITED, Trigger.UNRESPONSIVE, Trigger.WEDGED, Trigger.START_TIMEOUT)

TABLE: tuple[tuple[Trigger, tuple[State, ...], State], ...] = (
    (Trigger.START, (State.INITIAL, State.CRASHED, State.ERROR), State.STARTING),
    (Trigger.ANSWERED, (State.STARTING,), State.READY),
    *((trigger, (State.STARTING, State.READY), State.CRASHED) for trigger in _CRASHING),
    (Trigger.RETRY_DUE, (State.CRASHED,), State.STARTING),
    (Trigger.GAVE_UP, (State.CRASHED,), State.ERROR),
    (Trigger.CANNOT_START, (State.STARTING,), State.ERROR),
    (Trigger.STOP, (State.STARTING, State.READY, State.CRASHED, State.ERROR), State.STOPPING),
    (Trigger.STOPPED, (State.STOPPING,), State.INITIAL),
    (Trigger.STUCK, (State.STOPPING,), State.ERROR),
)


class StateMachine:
    """One instance's state. `fire` moves it; `on_change` is called after every move with the trigger, the old and the new state."""

    state: State

    def __init__(self, on_change: Callable[[Trigger, State, State], None]) -> None:
        self._on_change = on_change
        self._machine = _build(self)

    def fire(self, trigger: Trigger) -> None:
        """Follow the table; `StateConflictError` (409, with the state) for what it does not hold."""
        try:
            self._machine.events[trigger.value].trigger(self)
        except MachineError:
            message = f"`{trigger.value}` is refused in the state `{self.state.value}`."
            raise StateConflictError(message, details={"state": self.state.value}) from None

    def after_change(self, event: EventData) -> None:
        """Called by `transitions` after every move."""
        transition = event.transition
        assert transition is not None
        self._on_change(Trigger(event.event.name), State[str(transition.source)], State[str(transition.dest)])


def mermaid_diagram() -> str:
    """The state diagram as Mermaid text, drawn from the machine itself; the docs carry it, a test keeps it true."""
    machine = _build(None)
    lines = ["stateDiagram-v2", f"    [*] --> {State.INITIAL.value}"]
    lines += [
        f"    {State[str(transition.source)].value} --> {State[str(transition.dest)].value}: {event.name}"
        for event in machine.events.values()
        for transitions in event.transitions.values()
        for transition in transitions
    ]
    return "\n".join(lines) + "\n"


def _build(model: StateMachine | None) -> Machine:
    machine: Any = Machine(
        model=model,
        states=State,
        initial=State.INITIAL,
        auto_transitions=False,
        send_event=True,
        after_state_change="after_change",
        model_override=False,
    )
    for trigger, sources, target in TABLE:
        machine.add_transition(trigger.value, list(sources), target)
    return machine  # type: ignore[no-any-return]
