"""Lets requests through to the instances: at once where there is a place, else in their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from supervisor.clock import Clock
from supervisor.config.gateway_settings import GatewaySettings
from supervisor.config.settings import InstanceSettings
from supervisor.errors import LlamavisorError, NotAvailableError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.loads import Loads
from supervisor.gateway.admission.places import Places, choose, in_flight_limit
from supervisor.gateway.admission.queue import FairQueue, Ticket
from supervisor.gateway.resolve import check_ready
from supervisor.process.instance import Instance
from supervisor.process.states import State

# What an answer takes before anybody has seen one.
FIRST_SERVICE_SECONDS = 2.0
SERVICE_WEIGHT = 0.1


class QueueFullError(LlamavisorError):
    """The waiting line is full, or the key's share of it."""

    code, status = "queue_full", 429


class QueueDeadlineError(NotAvailableError):
    """It waited as long as it may."""

    code = "queue_deadline"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is told to one that waits: `position` 1 is next; `estimate_seconds` as far as anybody knows; the model's state and load (0 to 1)."""

    position: int
    estimate_seconds: float
    state: State
    progress: float | None


@dataclass(eq=False, slots=True)
class Place:
    """A place at an instance, until `Admission.leave`. `queued_seconds` is what it waited."""

    places: Places
    began: float
    queued_seconds: float = 0.0

    @property
    def instance(self) -> Instance:
        """Whose it is."""
        return self.places.instance


class _Line:
    """The tickets that the same instances can serve."""

    def __init__(self, candidates: tuple[Places, ...]) -> None:
        self.candidates = candidates
        self.queue = FairQueue()
        self.service_seconds = FIRST_SERVICE_SECONDS
        self.withdraw: Callable[[], None] | None = None


class Admission:
    """See the module. For the loop's thread alone."""

    def __init__(self, settings: GatewaySettings, clock: Clock, loads: Loads) -> None:
        self._settings = settings
        self._clock = clock
        self._loads = loads
        self._places: dict[str, Places] = {}
        self._lines: dict[tuple[str, ...], _Line] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Requests in the lines."""
        return self._waiting

    def waiting_for(self, instance: str) -> int:
        """Requests in the lines that `instance` can serve."""
        return sum(len(line.queue) for names, line in self._lines.items() if instance in names)

    def retune(self, settings: GatewaySettings) -> None:
        """Take new settings; those who wait keep their place."""
        self._settings = settings

    def places_of(self, instance: Instance, settings: InstanceSettings) -> Places:
        """The places of an instance, which is new, or was replaced by another of its name, or has new settings."""
        places = self._places.get(instance.name)
        limit = in_flight_limit(settings, self._settings.in_flight_per_slot)
        if places is None or places.instance is not instance:
            places = self._places[instance.name] = Places(instance, limit)
            instance.on_change(lambda state: self._moved(instance, state))
        places.limit = limit
        return places

    def try_place(self, candidates: Sequence[Places]) -> Place | None:
        """A place at once; None when it has to wait, for its turn or for a model."""
        if self._waiting and self._lines.get(_names(candidates)) is not None:
            return None
        now = self._clock.monotonic()
        places = choose(candidates, now)
        if places is None:
            return None
        places.taken += 1
        return Place(places, now)

    async def place(
        self,
        candidates: Sequence[Places],
        caller: Caller,
        *,
        is_batch: bool = False,
        on_wait: Callable[[Waiting], None] | None = None,
    ) -> Place:
        """A place, in turn. `on_wait` is called when one begins to wait, and every `gateway.comment_seconds` from then on.

        QueueFullError, QueueDeadlineError, and NotAvailableError when none of the instances will be ready.
        """
        line = self._line_of(candidates)
        try:
            self._check_room(line, caller)
        except LlamavisorError:
            self._forget_empty(line)
            raise
        ticket = Ticket(caller.project, caller.key_id, is_batch, asyncio.get_running_loop().create_future())
        began = self._clock.monotonic()
        line.queue.add(ticket)
        self._waiting += 1
        try:
            self._ask_for_load(line)
            place = await self._wait(line, ticket, began, on_wait)
        except BaseException:
            self._give_back(ticket)
            raise
        finally:
            self._waiting -= 1
            line.queue.remove(ticket)
            self._forget_empty(line)
        place.queued_seconds = self._clock.monotonic() - began
        return place

    def leave(self, place: Place, *, failed: bool) -> None:
        """Give a place back. `failed`: the engine failed on it."""
        places, now = place.places, self._clock.monotonic()
        places.taken -= 1
        places.note(now, failed=failed)
        if self._waiting:
            for line in self._serving(places):
                line.service_seconds += SERVICE_WEIGHT * (now - place.began - line.service_seconds)
            self._serve(self._serving(places))

    def refuse_all(self, error: LlamavisorError) -> None:
        """Send everybody away."""
        for line in tuple(self._lines.values()):
            self._fail(line, error)

    # Waiting

    async def _wait(
        self, line: _Line, ticket: Ticket, began: float, on_wait: Callable[[Waiting], None] | None
    ) -> Place:
        limit_seconds = self._settings.queue_seconds
        while True:
            self._tell(line, ticket, on_wait)
            left = began + limit_seconds - self._clock.monotonic()
            pause = left if on_wait is None else min(left, self._settings.comment_seconds)
            done, _ = await asyncio.wait([ticket.owner], timeout=max(0.0, pause))
            if done:
                place: Place = ticket.owner.result()
                return place
            if left <= pause:
                raise self._too_late(line, ticket)

    def _tell(self, line: _Line, ticket: Ticket, on_wait: Callable[[Waiting], None] | None) -> None:
        if on_wait is not None and not ticket.owner.done():
            on_wait(self.outlook(line, ticket))

    def outlook(self, line: _Line, ticket: Ticket) -> Waiting:
        """What is known of how long it will take."""
        best = min((places.instance for places in line.candidates), key=_nearness)
        snapshot = best.snapshot()
        position = line.queue.position(ticket)
        places = sum(places.limit for places in line.candidates) or 1
        return Waiting(position, position * line.service_seconds / places, best.state, snapshot.progress)

    def _give_back(self, ticket: Ticket) -> None:
        """Who was waiting has left: a place that was given in the same moment goes to the next."""
        if ticket.owner.done() and ticket.owner.exception() is None:
            self.leave(ticket.owner.result(), failed=False)
        ticket.owner.cancel()

    def _forget_empty(self, line: _Line) -> None:
        if not len(line.queue):
            self._lines.pop(_names(line.candidates), None)
            if line.withdraw is not None:
                line.withdraw()

    def _too_late(self, line: _Line, ticket: Ticket) -> LlamavisorError:
        if not _is_any_ready(line):
            return self._refusal(line)
        position = line.queue.position(ticket)
        return QueueDeadlineError(
            f"It waited {self._settings.queue_seconds:g} s, and {position - 1} are still before it.",
            retry_after_seconds=line.service_seconds,
            remedy="Try again later, or raise `gateway.queue_seconds`.",
        )

    def _check_room(self, line: _Line, caller: Caller) -> None:
        if not self._settings.queue_seconds:
            raise self._refusal(line)
        limit = self._settings.queue_limit
        share = max(1, limit // 2)
        mine = line.queue.count_of(caller.project, caller.key_id)
        if self._waiting < limit and mine < share:
            return
        whose = f"{mine} requests of this key wait" if mine >= share else f"{self._waiting} requests wait"
        raise QueueFullError(
            f"The waiting line is full: {whose}.",
            retry_after_seconds=max(1.0, line.service_seconds),
            details={"waiting": self._waiting, "limit": limit},
        )

    # Serving

    def _line_of(self, candidates: Sequence[Places]) -> _Line:
        names = _names(candidates)
        line = self._lines.get(names)
        if line is None:
            line = self._lines[names] = _Line(tuple(candidates))
        return line

    def _serving(self, places: Places) -> list[_Line]:
        """The lines that it can serve; the one that was served last comes last."""
        return [line for line in self._lines.values() if places in line.candidates]

    def _serve(self, lines: Iterable[_Line]) -> None:
        """Give out what is free."""
        for line in lines:
            while len(line.queue):
                now = self._clock.monotonic()
                places = choose(line.candidates, now)
                if places is None:
                    break
                ticket = line.queue.pop()
                if not ticket.owner.done():
                    places.taken += 1
                    ticket.owner.set_result(Place(places, now))

    def _moved(self, instance: Instance, state: State) -> None:
        """An instance changed its state: those who wait for it go on, or learn that it is in vain."""
        places = self._places.get(instance.name)
        if places is None or places.instance is not instance:
            return
        if instance.accepts_requests:
            places.failures, places.ejected_until = 0, float("-inf")
            self._serve(self._serving(places))
        else:
            for line in self._serving(places):
                self._ask_for_load(line)

    def _ask_for_load(self, line: _Line) -> None:
        """Somebody waits, and nothing takes requests: have something made ready, or learn why it will not be."""
        if line.withdraw is None and len(line.queue) and not _is_any_ready(line):
            best = min((places.instance for places in line.candidates), key=_nearness)
            line.withdraw = self._loads.want(best.name, lambda error: self._give_up(line, error))

    def _give_up(self, line: _Line, error: LlamavisorError) -> None:
        line.withdraw = None
        self._fail(line, error)

    def _refusal(self, line: _Line) -> LlamavisorError:
        best = min((places.instance for places in line.candidates), key=_nearness)
        try:
            check_ready(best.snapshot(), self._clock.wall())
        except NotAvailableError as error:
            return error
        return QueueFullError(
            f"All places at {best.name} are taken.", param="model", retry_after_seconds=line.service_seconds
        )

    def _fail(self, line: _Line, error: LlamavisorError) -> None:
        for ticket in tuple(line.queue.tickets()):
            if not ticket.owner.done():
                ticket.owner.set_exception(error)


def _is_any_ready(line: _Line) -> bool:
    return any(places.instance.accepts_requests for places in line.candidates)


def _names(candidates: Sequence[Places]) -> tuple[str, ...]:
    return tuple(places.instance.name for places in candidates)


_ORDER = (State.READY, State.STARTING, State.CRASHED, State.STOPPING, State.INITIAL, State.ERROR)


def _nearness(instance: Instance) -> int:
    return _ORDER.index(instance.state)
