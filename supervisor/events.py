"""The event log and its bus: every change has a sequence number; subscribers get the newest truth, never a queue of old ones."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.clock import Clock

EVENT_LOG_LENGTH = 2_000
MILLISECONDS = 1_000


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    `epoch` names this run of the supervisor; `seq` counts from 1 without gaps within it, so that a client can tell a gap from silence.
    `type` is snake_case (`llama_status`, `instance_removed`, `configuration_reloaded`, `shutdown`); `timestamp_ms` unix milliseconds.
    """

    epoch: str
    seq: int
    type: str
    instance: str | None
    data: Mapping[str, Any]
    timestamp_ms: int

    @property
    def key(self) -> tuple[str, str | None]:
        """Events of one key supersede one another: only the newest matters to someone who fell behind."""
        return (self.type, self.instance)

    def to_wire(self) -> dict[str, Any]:
        """The JSON shape of `contracts.md` §1: type, data, timestamp, and epoch + seq at top level."""
        return {
            "type": self.type,
            "data": dict(self.data),
            "timestamp": self.timestamp_ms,
            "epoch": self.epoch,
            "seq": self.seq,
        }


class Subscription:
    """One reader of the bus. Iterate it; `close` ends the iteration.

    What waits is bounded by the number of keys, whatever the reader's pace: a newer event of a key replaces the older one and takes its
    place in `seq` order.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._pending: dict[tuple[str, str | None], Event] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def offer(self, event: Event) -> None:
        """Take an event in; called by the log, on the loop."""
        self._pending.pop(event.key, None)
        self._pending[event.key] = event
        self._wake.set()

    def take(self) -> list[Event]:
        """All that waits, oldest first, without waiting."""
        events = list(self._pending.values())
        self._pending.clear()
        self._wake.clear()
        return events

    def close(self) -> None:
        """End the iteration and leave the bus; idempotent."""
        self._closed = True
        self._wake.set()
        self._log.unsubscribe(self)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            await self._wake.wait()
            for event in self.take():
                yield event
            if self._closed:
                return


class EventLog:
    """The one log of this run of the supervisor. All methods are called on the loop."""

    def __init__(self, clock: Clock, *, length: int = EVENT_LOG_LENGTH) -> None:
        self._clock = clock
        self.epoch = uuid.uuid4().hex[:12]
        self._events: deque[Event] = deque(maxlen=length)
        self._subscriptions: set[Subscription] = set()
        self._seq = 0

    @property
    def seq(self) -> int:
        """The sequence number of the newest event; 0 before the first."""
        return self._seq

    def publish(self, type: str, data: Mapping[str, Any], *, instance: str | None = None) -> Event:
        """Append an event and offer it to every subscriber; never blocks."""
        self._seq += 1
        event = Event(self.epoch, self._seq, type, instance, data, int(self._clock.wall() * MILLISECONDS))
        self._events.append(event)
        for subscription in tuple(self._subscriptions):
            subscription.offer(event)
        return event

    def since(self, seq: int) -> list[Event] | None:
        """Every event after `seq`, oldest first; None when some of them are no longer held (the reader needs a snapshot)."""
        if seq > self._seq or (self._events and seq < self._events[0].seq - 1):
            return None
        return [event for event in self._events if event.seq > seq]

    def history(self, instance: str, *, limit: int = 100) -> list[Event]:
        """The newest events of one instance, oldest first."""
        return [event for event in self._events if event.instance == instance][-limit:]

    def subscribe(self) -> Subscription:
        """A new reader, from now on."""
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a reader; see `Subscription.close`."""
        self._subscriptions.discard(subscription)

    @property
    def subscriber_count(self) -> int:
        """How many readers there are."""
        return len(self._subscriptions)
