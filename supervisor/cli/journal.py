"""What the supervisor's own log says of the instances: each change of state, so that the terminal and journald tell what the page tells."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from supervisor.events import Event, EventLog
from supervisor.process.lines import to_text
from supervisor.process.states import State

logger = logging.getLogger(__name__)

_LEVELS = {State.CRASHED.value: logging.WARNING, State.ERROR.value: logging.ERROR}


class Journal:
    """Reads the event log and writes one line for each change of state, at `warning` for a crash and `error` when it was given up."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._seen = 0
        self._told: dict[str, tuple[str, int]] = {}

    def catch_up(self) -> None:
        """Write what has happened since the last call."""
        # From the log, not from a subscription: that one leaves out what was overtaken, and a crash must not be left out.
        for event in self._events.since(self._seen) or ():
            self._note(event)
        self._seen = self._events.seq

    def _note(self, event: Event) -> None:
        if event.type == "instance_removed" and event.instance is not None:
            self._told.pop(event.instance, None)
            logger.info("%s: removed", event.instance)
        elif event.type == "llama_status":
            self._note_state(event.data)

    def _note_state(self, data: Mapping[str, Any]) -> None:
        name, state = data["instance"], data["status"]
        # Progress and new figures are published too, and are no news here.
        now = (state, data["retries"] if state == State.CRASHED.value else 0)
        before, self._told[name] = self._told.get(name), now
        # That there is an instance is no change.
        if before == now or (before is None and state == State.INITIAL.value):
            return
        process = f" (pid {data['pid']})" if state == State.READY.value and data["pid"] is not None else ""
        remedy = f". {data['remedy']}" if state == State.ERROR.value and data["remedy"] else ""
        line = f"{name}: {data['headline']}{process}{remedy}"
        # Words of an engine may be in it: they shall not drive the reader's terminal, nor look like a line of ours.
        logger.log(_LEVELS.get(state, logging.INFO), "%s", to_text(line.encode()))
