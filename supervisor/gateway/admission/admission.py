"""Lets requests through to the instances: at once where there is a place, else in their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from supervisor.clock import Clock
from supervisor.config.gateway_settings import GatewaySettings
from supervisor.config.settings import InstanceSettings
from supervisor.errors import LlamavisorError, NotAvailableError
from supervisor.fleet.placement import refusals
from supervisor.fleet.placement.schedule import Lack
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.estimates import load_seconds_left, service_seconds, turn_seconds
from supervisor.gateway.admission.loads import Loads
from supervisor.gateway.admission.places import Places, ask_slots, choose, configured_slots, in_flight_limit
from supervisor.gateway.admission.queue import FairQueue, Ticket
from supervisor.gateway.resolve import check_ready
from supervisor.process.instance import Instance
from supervisor.process.states import State


class QueueFullError(LlamavisorError):
    """The waiting line is full, or the key's share of it."""

    code, status = "queue_full", 429


class QueueDeadlineError(NotAvailableError):
    """It waited as long as it may."""

    code = "queue_deadline"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is told to one that waits: `position` 1 is next; `estimate_seconds`, None when nobody knows; the model's state and load (0 to 1).

    `reason`: what the load itself waits for, for people; None once it has begun.
    """

    position: int
    estimate_seconds: float | None
    state: State
    progress: float | None
    reason: str | None = None


@dataclass(eq=False, slots=True)
class Place:
    """A place at an instance, until `Admission.leave`. `queued_seconds` is what it waited."""

    places: Places
    instance: Instance
    queued_seconds: float = 0.0


class _Line:
    """The tickets that the same instances can serve. Once it is forgotten, nobody joins it any more."""

    def __init__(self, names: tuple[str, ...], candidates: tuple[Places, ...]) -> None:
        self.names = names
        self.candidates = candidates
        self.queue = FairQueue()
        self.withdraw: Callable[[], None] | None = None
        # Those that will not be ready, as far as is known.
        self.hopeless: set[Places] = set()
        self.served = 0


class Admission:
    """See the module. For the loop's thread alone."""

    def __init__(self, settings: GatewaySettings, clock: Clock, loads: Loads) -> None:
        self._settings = settings
        self._clock = clock
        self._loads = loads
        self._places: dict[str, Places] = {}
        self._lines: dict[tuple[str, ...], _Line] = {}
        self._waiting = 0
        self._turns = 0
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Requests in the lines."""
        return self._waiting

    def waiting_for(self, instance: str) -> int:
        """Requests in the lines that `instance` can serve."""
        return sum(len(line.queue) for names, line in self._lines.items() if instance in names)

    def limit_of(self, instance: str) -> int:
        """Requests that are passed to `instance` at once; 0 as long as none came for it."""
        places = self._places.get(instance)
        return 0 if places is None else places.limit

    def retune(self, settings: GatewaySettings) -> None:
        """Take new settings; those who wait keep their place."""
        self._settings = settings
        for places in self._places.values():
            if places.settings is not None:
                self._measure(places, places.settings)

    def places_of(self, instance: Instance, settings: InstanceSettings) -> Places:
        """The places of an instance, which is new, or was replaced by another of its name, or has new settings."""
        places = self._places.get(instance.name)
        if places is None:
            places = self._places[instance.name] = Places(instance, 0)
        elif places.instance is not instance:
            places.move_to(instance)
        if places.settings is not settings:
            self._measure(places, settings)
        return places

    def try_place(self, candidates: Sequence[Places]) -> Place | None:
        """A place at once; None when it has to wait, for its turn or for a model."""
        if self._waiting and self._lines.get(_names(candidates)) is not None:
            return None
        now = self._clock.monotonic()
        places = choose(candidates, now)
        if places is None:
            return None
        return _take(places, now)

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
            self._make_room(line, caller, is_batch=is_batch)
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

    def leave(self, place: Place, *, failed: bool | None) -> None:
        """Give a place back. `failed`: the engine failed on it; None when nobody can say, as of one that was not used."""
        places, now = place.places, self._clock.monotonic()
        began = places.began.pop(place)
        if failed is not None:
            places.note(now, failed=failed)
        if failed is False:
            places.learn(now - began)
        if self._waiting:
            self._serve(self._serving(places))

    def refuse_all(self, error: LlamavisorError) -> None:
        """Send everybody away, and ask for nothing more."""
        for task in tuple(self._asking):
            task.cancel()
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
        service = self._service_seconds(line)
        if best.state is State.READY:
            return Waiting(position, turn_seconds(position, places, service), best.state, None)
        load = load_seconds_left(snapshot)
        # As soon as it is there, so many have a place.
        estimate = None if load is None else load + turn_seconds(max(0, position - places), places, service)
        awaited = self._awaited(line, best)
        return Waiting(position, estimate, best.state, snapshot.progress, None if awaited is None else awaited[1].text)

    def _awaited(self, line: _Line, best: Instance) -> tuple[str, Lack] | None:
        """The instance whose load has to wait, and for what; `best` is the one of the line that is nearest to ready."""
        if best.state not in _RESTING:
            return None
        lacks = ((name, self._loads.waits_for(name)) for name in line.names)
        return next(((name, lack) for name, lack in lacks if lack is not None), None)

    def _service_seconds(self, line: _Line) -> float:
        now = self._clock.monotonic()
        learned = [places.service_seconds for places in line.candidates if places.service_seconds is not None]
        return service_seconds(learned, [now - began for places in line.candidates for began in places.began.values()])

    def _give_back(self, ticket: Ticket) -> None:
        """Who was waiting has left: a place that was given in the same moment goes to the next."""
        if ticket.owner.done() and ticket.owner.exception() is None:
            self.leave(ticket.owner.result(), failed=None)
        ticket.owner.cancel()

    def _forget_empty(self, line: _Line) -> None:
        if not len(line.queue):
            self._forget(line)

    def _forget(self, line: _Line) -> None:
        """Who comes from now on has a line of its own; the one of its names may be a newer one already."""
        if self._lines.get(line.names) is line:
            del self._lines[line.names]
        if line.withdraw is not None:
            line.withdraw()
            line.withdraw = None

    def _too_late(self, line: _Line, ticket: Ticket) -> LlamavisorError:
        if not _is_any_ready(line):
            return self._refusal(line)
        position = line.queue.position(ticket)
        return QueueDeadlineError(
            f"It waited {self._settings.queue_seconds:g} s, and {position - 1} are still before it.",
            retry_after_seconds=self._service_seconds(line),
            remedy="Try again later, or raise `gateway.queue_seconds`.",
        )

    def _make_room(self, line: _Line, caller: Caller, *, is_batch: bool) -> None:
        if not self._settings.queue_seconds:
            raise self._refusal(line)
        if len(line.queue) < self._settings.queue_limit:
            return
        ticket = line.queue.who_yields(caller.project, caller.key_id, is_batch=is_batch)
        if ticket is None:
            raise self._full(line, "and as many of them are yours as of anybody")
        line.queue.remove(ticket)
        if not ticket.owner.done():
            ticket.owner.set_exception(self._full(line, "and this one left for somebody who has fewer of them"))

    def _full(self, line: _Line, why: str) -> QueueFullError:
        waiting, limit = len(line.queue), self._settings.queue_limit
        return QueueFullError(
            f"The waiting line is full: {limit} requests wait, {why}.",
            retry_after_seconds=max(1.0, self._service_seconds(line)),
            details={"waiting": waiting, "limit": limit},
        )

    # Places

    def _measure(self, places: Places, settings: InstanceSettings) -> None:
        """See how many requests it takes at once; where only the engine knows, ask it as soon as it is ready. Who fits in now goes on."""
        places.settings = settings
        places.limit = in_flight_limit(settings, self._settings.in_flight_per_slot, places.told_slots)
        self._serve(self._serving(places))
        is_known = settings.max_in_flight is not None or configured_slots(settings) or places.told_slots
        if not is_known and places.instance.accepts_requests:
            task = asyncio.create_task(self._ask(places), name=f"{places.instance.name}:slots")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self, places: Places) -> None:
        places.told_slots = await ask_slots(places.instance)
        if places.told_slots is not None and places.settings is not None:
            self._measure(places, places.settings)

    # Serving

    def _line_of(self, candidates: Sequence[Places]) -> _Line:
        names = _names(candidates)
        line = self._lines.get(names)
        if line is None:
            line = self._lines[names] = _Line(names, tuple(candidates))
        return line

    def _serving(self, places: Places) -> list[_Line]:
        """The lines that it can serve; the one that was served last comes last."""
        lines = [line for line in self._lines.values() if places in line.candidates]
        return lines if len(lines) < 2 else sorted(lines, key=lambda line: line.served)

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
                    self._turns += 1
                    line.served = self._turns
                    ticket.owner.set_result(_take(places, now))

    def changed(self, instance: Instance, _state: State) -> None:
        """An instance changed its state (for `Fleet.on_change`): those who wait for one of its name go on, or learn that it is in vain."""
        places = self._places.get(instance.name)
        if places is None:
            return
        if places.instance is not instance:
            places.move_to(instance)
        for line in self._serving(places):
            line.hopeless.discard(places)
        if instance.accepts_requests:
            # Another process, perhaps with other slots.
            places.forget()
            self._serve(self._serving(places))
        else:
            for line in self._serving(places):
                self._ask_for_load(line)

    def _ask_for_load(self, line: _Line) -> None:
        """Somebody waits, and nothing takes requests: have something made ready, or learn why it will not be."""
        if line.withdraw is None and len(line.queue) and not _is_any_ready(line):
            hopes = [places for places in line.candidates if places not in line.hopeless]
            best = min(hopes, key=_distance)
            try:
                line.withdraw = self._loads.want(best.instance.name, lambda error: self._give_up(line, best, error))
            except LlamavisorError as error:
                self._give_up(line, best, error)

    def _give_up(self, line: _Line, places: Places, error: LlamavisorError) -> None:
        """It will not be ready; perhaps another replica will."""
        line.withdraw = None
        line.hopeless.add(places)
        if line.hopeless.issuperset(line.candidates):
            self._fail(line, error)
        else:
            self._ask_for_load(line)

    def _refusal(self, line: _Line) -> LlamavisorError:
        best = min((places.instance for places in line.candidates), key=_nearness)
        awaited = self._awaited(line, best)
        if awaited is not None:
            return refusals.not_yet(*awaited)
        try:
            check_ready(best.snapshot(), self._clock.wall())
        except NotAvailableError as error:
            return error
        return QueueFullError(
            f"All places at {best.name} are taken.", param="model", retry_after_seconds=self._service_seconds(line)
        )

    def _fail(self, line: _Line, error: LlamavisorError) -> None:
        self._forget(line)
        for ticket in tuple(line.queue.tickets()):
            if not ticket.owner.done():
                ticket.owner.set_exception(error)


def _take(places: Places, now: float) -> Place:
    place = Place(places, places.instance)
    places.began[place] = now
    return place


def _is_any_ready(line: _Line) -> bool:
    return any(places.instance.accepts_requests for places in line.candidates)


def _names(candidates: Sequence[Places]) -> tuple[str, ...]:
    return tuple(places.instance.name for places in candidates)


_RESTING = frozenset({State.INITIAL, State.ERROR})
_ORDER = (State.READY, State.STARTING, State.CRASHED, State.STOPPING, State.INITIAL, State.ERROR)


def _nearness(instance: Instance) -> int:
    return _ORDER.index(instance.state)


def _distance(places: Places) -> int:
    return _nearness(places.instance)
