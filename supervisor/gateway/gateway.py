"""The door: finds the instance that a request is for, and sees it through. It counts what passes, and knows when nothing does."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from supervisor.clock import Clock
from supervisor.config.settings import Settings
from supervisor.errors import NotAvailableError
from supervisor.fleet.fleet import Fleet
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer, Exchange
from supervisor.gateway.resolve import (
    Candidate,
    check_ready,
    check_speaks_openai,
    choose,
    configured_id,
    not_found,
    speaks_openai,
)
from supervisor.gateway.silence import Watchman
from supervisor.gateway.traffic import Record, TrafficStats
from supervisor.gateway.upstream import Upstreams
from supervisor.process.instance import Instance
from supervisor.process.states import State

OWNER = "llamavisor"
LAST_WORDS_SECONDS = 1.0


class Gateway:
    """See the module. `traffic` holds the figures. All methods are for the loop's thread."""

    def __init__(self, fleet: Fleet, settings: Settings, clock: Clock) -> None:
        self.traffic = TrafficStats(clock)
        self._fleet = fleet
        self._clock = clock
        self._upstreams = Upstreams()
        self._watchman = Watchman(settings.server.upstream_idle_seconds)
        # An adopted server is known by its models only while it is there; who asks for one meanwhile means this instance all the same.
        self._served: dict[str, frozenset[str]] = {}
        self._active = 0
        self._exchanges: set[Exchange] = set()
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active(self) -> int:
        """Requests that are on their way now."""
        return self._active

    def retune(self, settings: Settings) -> None:
        """Take new settings, for requests from now on."""
        self._watchman.limit_seconds = settings.server.upstream_idle_seconds
        self._served = {name: ids for name, ids in self._served.items() if name in settings.instances}

    def resolve(self, model: str | None) -> Instance:
        """The instance that `model` means: an instance's name, or the id of a model (of those that serve it, a ready one). None: the default.

        `ModelNotFoundError` with the nearest name; `InstanceNotFoundError` when there is no instance at all.
        """
        if model is None:
            return self._fleet.default
        # Most requests name an instance: they need not pay for a look at every model.
        for instance in self._fleet.instances():
            if instance.name == model:
                return instance
        return self._fleet.get(choose(model, self._candidates()))

    def require_ready(self, instance: Instance) -> None:
        """Raise NotAvailableError (503, with the reason and when to come back) unless the instance can serve now."""
        if self._is_closed:
            raise NotAvailableError("The server is shutting down.", code="shutting_down")
        check_ready(instance.snapshot(), self._clock.wall())

    def exchange(self, call: Call) -> Passage:
        """See a request through, from its instance to its outcome. Leaving early, for whatever reason, closes the connection to the engine."""
        return Passage(self, call)

    async def ask(self, call: Call) -> Answer:
        """The whole answer to a call that asks for no stream, for surfaces that make something else of it; errors as `Exchange.answer`."""
        async with self.exchange(call) as exchange:
            return await exchange.answer()

    def models(self) -> list[dict[str, Any]]:
        """Every name that requests may give, as OpenAI model objects: each instance's, then the ids of the models that are ready."""
        found: dict[str, dict[str, Any]] = {}
        for instance in self._fleet.instances():
            if not speaks_openai(self._fleet.settings_of(instance.name)):
                continue
            modified = [int(model.get("modified_at") or 0) for model in instance.models]
            found.setdefault(instance.name, _model_object(instance.name, max(modified, default=0)))
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
        for exchange in tuple(self._exchanges):
            exchange.cut(
                NotAvailableError("The server shut down before the answer was complete.", code="shutting_down")
            )
        await self.wait_idle(LAST_WORDS_SECONDS)
        self._watchman.close()
        self._upstreams.close()

    def _candidates(self) -> list[Candidate]:
        return [
            Candidate(instance.name, self._ids_of(instance), instance.state, instance.requests_active)
            for instance in self._fleet.instances()
        ]

    def _ids_of(self, instance: Instance) -> frozenset[str]:
        configured = configured_id(self._fleet.settings_of(instance.name))
        served = frozenset(model["id"] for model in instance.models)
        if served:
            self._served[instance.name] = served
        ids = served or self._served.get(instance.name, frozenset())
        return ids if configured is None else ids | {configured}

    # For passages

    def enter(self, call: Call) -> Exchange:
        """Let a request in; errors as `resolve` and `require_ready`. Pair it with `leave`."""
        instance = self.resolve(call.model)
        check_speaks_openai(instance.name, self._fleet.settings_of(instance.name))
        record = self.traffic.begin(instance.name)
        self._active += 1
        self._idle.clear()
        try:
            if instance.state is not State.READY or self._is_closed:
                self.require_ready(instance)
            upstream = self._upstreams.to(instance)
        except BaseException as error:
            self._ended(record, error)
            raise
        instance.traffic.active += 1
        exchange = Exchange(call, upstream, record, instance.traffic, self._watchman, self._clock)
        self._exchanges.add(exchange)
        return exchange

    def leave(self, exchange: Exchange, error: BaseException | None) -> None:
        """It is over; `error` is what ended it, if anything did."""
        self._exchanges.discard(exchange)
        exchange.close()
        exchange.pulse.active -= 1
        self._ended(exchange.record, error)

    def _ended(self, record: Record, error: BaseException | None) -> None:
        record.end(error)
        self._active -= 1
        if not self._active:
            self._idle.set()


class Passage:
    """An exchange for the length of an `async with`."""

    __slots__ = ("_call", "_exchange", "_gateway")

    def __init__(self, gateway: Gateway, call: Call) -> None:
        self._gateway = gateway
        self._call = call

    async def __aenter__(self) -> Exchange:
        self._exchange = self._gateway.enter(self._call)
        return self._exchange

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gateway.leave(self._exchange, error)


def _model_object(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER}
