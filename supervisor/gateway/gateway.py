"""The door: finds the instance that a request is for, and what it needs there. It counts what passes, and knows when nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from supervisor.clock import Clock
from supervisor.config.settings import Settings
from supervisor.errors import NotAvailableError
from supervisor.fleet.fleet import Fleet
from supervisor.gateway.accounting.bookkeeper import Booking, Bookkeeper
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.admission import Admission, Place
from supervisor.gateway.admission.loads import Loads
from supervisor.gateway.admission.places import Places
from supervisor.gateway.calls import REQUEST_ID, Call
from supervisor.gateway.exchange import Exchange
from supervisor.gateway.inflight import InFlight
from supervisor.gateway.names import Names
from supervisor.gateway.observing.capture import Capture
from supervisor.gateway.observing.energy import EnergyBook
from supervisor.gateway.observing.tracing import Tracing
from supervisor.gateway.resolve import (
    Candidate,
    check_speaks_openai,
    choose,
    configured_id,
    not_found,
    speaks_openai,
)
from supervisor.gateway.silence import Watchman
from supervisor.gateway.surfaces import surface_of
from supervisor.gateway.traffic import Outcome, TrafficStats
from supervisor.gateway.upstream import Upstreams
from supervisor.process.instance import Instance
from supervisor.process.states import State

OWNER = "llamavisor"
LAST_WORDS_SECONDS = 1.0
# What an instance is blamed for.
FAILURES = frozenset({Outcome.ENGINE_DIED, Outcome.ENGINE_ERROR, Outcome.CUT, Outcome.TIMEOUT})


class Gateway:
    """See the module.

    `names` are those of the configuration, `traffic` holds the figures, `admission` the waiting lines, `bookkeeper` who pays, `in_flight` what is on
    its way, `energy` what is drawn, `tracing` who follows, and `capture` who copies (both None: nobody).
    `fallback_resends`: see `GatewaySettings`. All methods are for the loop's thread.
    """

    def __init__(self, fleet: Fleet, settings: Settings, clock: Clock, bookkeeper: Bookkeeper, loads: Loads) -> None:
        self.bookkeeper = bookkeeper
        self.tracing: Tracing | None = None
        self.capture: Capture | None = None
        self.energy = EnergyBook(settings, clock)
        self._fleet = fleet
        self._clock = clock
        self._loads = loads
        self._upstreams = Upstreams()
        self._watchman = Watchman(settings.server.upstream_idle_seconds)
        # An adopted server is known by its models only while it is there; who asks for one meanwhile means this instance all the same.
        self._served: dict[str, tuple[str, ...]] = {}
        self._active = 0
        self.admission = Admission(settings.gateway, clock, loads)
        self._forget = fleet.on_change(self.admission.changed)
        self.traffic = TrafficStats(clock, self.admission.waiting_for)
        self._exchanges: set[Exchange] = set()
        self.names = Names(settings)
        self.fallback_resends = settings.gateway.fallback_resends
        self.in_flight = InFlight()
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active(self) -> int:
        """Requests that are on their way now."""
        return self._active

    def retune(self, settings: Settings) -> None:
        """Take new settings, for requests from now on."""
        self.admission.retune(settings.gateway)
        self.names = Names(settings)
        self.fallback_resends = settings.gateway.fallback_resends
        self.energy.retune(settings)
        if self.capture is not None:
            self.capture.retune(settings)
        self._watchman.limit_seconds = settings.server.upstream_idle_seconds
        self._served = {name: ids for name, ids in self._served.items() if name in settings.instances}

    def resolve(self, model: str | None) -> list[Instance]:
        """The instances that `model` means, in the order of the configuration: see `Names`, else all that serve a model of that id.

        None means the default endpoint. `ModelNotFoundError` with the nearest name; `InstanceNotFoundError` when there is no instance at all.
        """
        # Most requests give a name of the configuration: they need not pay for a look at every model.
        named = [self._fleet.find(name) for name in self.names.instances(model)]
        # In the middle of a reload some may not be there yet.
        found = [instance for instance in named if instance is not None]
        if found:
            return found
        if model is None:
            return [self._fleet.default]
        return [self._fleet.get(name) for name in choose(model, self._candidates())]

    def servers_of(self, model: str | None) -> list[str]:
        """The instances of which one would answer a request that names `model`; errors as `resolve`, and for engines without the OpenAI routes."""
        names = [instance.name for instance in self.resolve(model)]
        for name in names:
            check_speaks_openai(name, self._fleet.settings_of(name))
        return names

    def models(self) -> list[dict[str, Any]]:
        """Every name that requests may give, as OpenAI model objects: each instance's, then the ids of the models that are ready."""
        found: dict[str, dict[str, Any]] = {}
        for instance in self._fleet.instances():
            settings = self._fleet.settings_of(instance.name)
            if not speaks_openai(settings):
                continue
            modified = [int(model.get("modified_at") or 0) for model in instance.models]
            for name in (instance.name, settings.endpoint, *settings.aliases):
                if name is not None:
                    found.setdefault(name, _model_object(name, max(modified, default=0)))
            for model in instance.models if instance.state is State.READY else ():
                found.setdefault(model["id"], _model_object(model["id"], int(model.get("modified_at") or 0)))
        return list(found.values())

    def model(self, name: str) -> dict[str, Any]:
        """One of `models`; `ModelNotFoundError` with the nearest name."""
        for model in self.models():
            if model["id"] == name:
                return model
        raise not_found(name, self._candidates())

    async def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until no request is on its way; False when some still are by then."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Take no more requests, cut those on their way (each is told so), and close every connection; idempotent."""
        self._is_closed = True
        over = NotAvailableError("The server shut down before the answer was complete.", code="shutting_down")
        self.admission.refuse_all(over)
        for exchange in tuple(self._exchanges):
            exchange.cut(over)
        await self.wait_idle(LAST_WORDS_SECONDS)
        self._forget()
        self._watchman.close()
        self._upstreams.close()

    def _candidates(self) -> list[Candidate]:
        return [
            Candidate(instance.name, self._ids_of(instance), instance.state) for instance in self._fleet.instances()
        ]

    def _ids_of(self, instance: Instance) -> frozenset[str]:
        settings = self._fleet.settings_of(instance.name)
        names = (configured_id(settings), settings.endpoint, *settings.aliases)
        return frozenset(self._served_by(instance)).union(name for name in names if name is not None)

    def _served_by(self, instance: Instance) -> tuple[str, ...]:
        """The ids of the models that a server has, or had when it was there last."""
        served = tuple(model["id"] for model in instance.models)
        if served:
            self._served[instance.name] = served
        return served or self._served.get(instance.name, ())

    # For passages

    def places_for(self, call: Call, model: str | None) -> list[Places]:
        """The places at which a call can be served by `model` (None: by the default one)."""
        if self._is_closed:
            raise NotAvailableError("The server is shutting down.", code="shutting_down")
        places = []
        for instance in self.resolve(model):
            settings = self._fleet.settings_of(instance.name)
            check_speaks_openai(instance.name, settings)
            places.append(self.admission.places_of(instance, settings))
        return places

    def book(self, call: Call, caller: Caller, instance: Instance) -> Booking:
        """Write down a request that means this instance first.

        RateLimitedError, BudgetExceededError, PriceUnknownError; UnauthorizedError when the caller's key has ended.
        """
        # Whoever was let in once may ask for long: the lines of a batch, the chats of a connection.
        self.bookkeeper.keyring.check(caller)
        surface = surface_of(call.path)
        return self.bookkeeper.open(
            caller,
            self.names.endpoint(call.model, instance.name),
            surface.name,
            stream=call.wants_stream,
            body_length=len(call.body),
            max_tokens=call.max_tokens if surface.generates else 0,
            is_free=surface.is_free,
            names=self._priced_as(call, instance),
            answers=call.answers,
            client_request_id=call.headers.get(REQUEST_ID),
            batch_id=call.batch_id,
            request_id=call.id,
        )

    def _priced_as(self, call: Call, instance: Instance) -> Iterator[str]:
        """One thing has one price, whatever name it is asked for by. Worked out as far as it is needed: most prices are those of endpoints."""
        yield from self.names.priced_as(instance.name)
        # Of a server with several models that of the one that is asked for; else, of its own.
        served = self._served_by(instance)
        if call.model in served:
            yield call.model
        yield from served

    def began(self) -> float:
        """A request is on its way; pair it with `ended`. The time, monotonic seconds."""
        self._active += 1
        self._idle.clear()
        return self._clock.monotonic()

    def ended(self) -> None:
        """It is not any more."""
        self._active -= 1
        if not self._active:
            self._idle.set()

    def open(self, call: Call, place: Place, started_at: float) -> Exchange:
        """The exchange at a place; pair it with `close_exchange`. NotAvailableError when the instance has just gone; the place is given back."""
        instance = place.instance
        try:
            upstream = self._upstreams.to(instance)
        except BaseException:
            self.admission.leave(place, failed=None)
            raise
        record = self.traffic.begin(instance.name, started_at)
        instance.traffic.active += 1
        self._loads.used(instance.name)
        exchange = Exchange(call, upstream, record, instance.traffic, self._watchman, self._clock)
        self._exchanges.add(exchange)
        return exchange

    def close_exchange(self, exchange: Exchange, place: Place, error: BaseException | None) -> None:
        """It is over; `error` is what ended it, if anything did."""
        self._exchanges.discard(exchange)
        exchange.close()
        exchange.pulse.active -= 1
        self._loads.used(place.instance.name)
        exchange.record.end(error)
        # Who sets a short deadline is not to have an instance passed over.
        failed = None if exchange.is_cut_short else has_failed(exchange.record.outcome, error)
        self.admission.leave(place, failed=failed)


def has_failed(outcome: Outcome | None, error: BaseException | None) -> bool | None:
    """Whether the engine failed with a request; None when its end says nothing of the engine, as when the client left. `error` is what ended it."""
    if outcome in FAILURES:
        return True
    is_whole = outcome is Outcome.OK or (outcome is Outcome.REFUSED and error is None)
    return False if is_whole else None


def _model_object(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER}
