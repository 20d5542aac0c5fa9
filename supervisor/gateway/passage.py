"""A request from the moment in which it is let in until its record is written: booked, placed, exchanged, settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.bookkeeper import Booking
from supervisor.gateway.accounting.callers import ANYONE, Caller
from supervisor.gateway.admission.admission import Place, Waiting
from supervisor.gateway.admission.places import Places
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer, Exchange
from supervisor.gateway.fallbacks import CANNOT_SERVE
from supervisor.gateway.gateway import Gateway
from supervisor.gateway.inflight import InFlightRequest, Stage, cancelled
from supervisor.gateway.losses import ENGINE_ERROR
from supervisor.gateway.openai_errors import SERVER_ERROR_STATUS
from supervisor.gateway.settling import Settling
from supervisor.process.instance import Instance
from supervisor.storage.records import TokenUsage

Ending = TypeVar("Ending", bound=BaseException | None)
Why = Callable[[], LlamavisorError | None]
"""What is behind the cancellation of a request, for the books; None: its client has left."""


class Passage:
    """A request for the length of an `async with`; whatever ends it, one usage record tells how. `booking` is there from the beginning of it.

    Leaving early, for whatever reason, ends it at the engine too. `on_wait` is told while it waits for a place or for a model; see `Admission.place`,
    which also says what is refused. `why` is asked when it is cancelled. As long as nothing of an answer has come, a model that cannot serve may be
    stood in for by its fallbacks: `exchange` is the present one.
    """

    __slots__ = (
        "_call", "_caller", "_fallbacks", "_first_failure", "_gateway", "_is_batch", "_is_cancelled", "_is_open", "_on_wait", "_outlook",
        "_place", "_settling", "_started_at", "_waiter", "_why", "booking", "exchange",
    )  # fmt: skip

    def __init__(
        self,
        gateway: Gateway,
        call: Call,
        caller: Caller = ANYONE,
        *,
        on_wait: Callable[[Waiting], None] | None = None,
        is_batch: bool = False,
        why: Why = lambda: None,
    ) -> None:
        self._gateway = gateway
        self._call = call
        self._caller = caller
        self._on_wait = on_wait
        self._is_batch = is_batch
        self._why = why
        self._is_open = False
        self._is_cancelled = False
        self._fallbacks: Iterator[str]
        self._first_failure: LlamavisorError | Answer | None = None
        self._waiter: asyncio.Task[Any] | None = None
        self._outlook: Waiting | None = None
        self._started_at: float
        self._place: Place
        self._settling: Settling
        self.booking: Booking
        self.exchange: Exchange

    async def __aenter__(self) -> Self:
        gateway = self._gateway
        self._started_at = gateway.began()
        try:
            places = gateway.places_for(self._call, self._call.model)
            self._book(places[0].instance)
            try:
                if not await self._enter(places):
                    self._first_reason()
            except BaseException as error:
                self._settling.unserved(self._reason(error))
                gateway.in_flight.remove(self)
                raise
        except BaseException:
            gateway.ended()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            error = self._reason(error)
            self._gateway.in_flight.remove(self)
            if self._is_open:
                self._close(error)
                self._settling.served(self.exchange, self._place, error)
            else:
                self._settling.unserved(error)
        finally:
            self._gateway.ended()

    async def answer(self) -> Answer:
        """The whole answer, or of a stream the first whole event, of whichever model serves.

        Where none does, what the first to fail has said: errors as `Exchange.answer`, or its own answer of 5xx.
        """
        while True:
            failure: Answer | LlamavisorError
            try:
                answer = failure = await self.exchange.answer()
                if answer.status < SERVER_ERROR_STATUS:
                    return answer
            except CANNOT_SERVE as error:
                failure = error
            if not await self._stand_in(failure):
                return self._first_reason()

    @property
    def id(self) -> str:
        """Of the request's record."""
        return self.booking.request.id

    @property
    def cost_micros(self) -> int | None:
        """What the request has cost, as it is booked; None until it is, and where the model has no price."""
        settlement = self.booking.settlement
        return None if settlement is None else settlement.cost_micros

    def look(self) -> InFlightRequest:
        """How it is now, once it is booked."""
        request = self.booking.request
        seconds = self._gateway.bookkeeper.clock.monotonic() - self._started_at
        if not self._is_open:
            return InFlightRequest(request, Stage.WAITING, seconds, None, self._outlook, TokenUsage())
        exchange = self.exchange
        stage = Stage.SENT if exchange.first_byte_ms is None else Stage.STREAMING
        return InFlightRequest(request, stage, seconds, self._place.instance.name, None, exchange.usage)

    def cancel(self) -> None:
        """End it before its time, wherever it is; its client is told so."""
        if self._is_open:
            self.exchange.cut(cancelled())
        elif self._waiter is not None and not self._is_cancelled:
            self._is_cancelled = True
            self._waiter.cancel()

    def _book(self, instance: Instance) -> None:
        gateway = self._gateway
        self.booking = gateway.book(self._call, self._caller, instance)
        if gateway.tracing is not None:
            self._call = gateway.tracing.follow(self._call, self.booking.request.id)
        self._fallbacks = iter(gateway.names.fallbacks(self._call.model, instance.name))
        self._settling = Settling(gateway.energy, self._call, self.booking)
        gateway.in_flight.add(self)

    async def _stand_in(self, failure: Answer | LlamavisorError) -> bool:
        """Go on with the next model that takes the request. False when there is none; if it was the only one that was asked, all is as it was."""
        is_first = self._first_failure is None
        self._first_failure = self._first_failure or failure
        may_go_on = self._gateway.fallback_resends or not self.exchange.was_sent
        name = next(self._fallbacks, None) if may_go_on else None
        if name is None and is_first:
            return False
        error = None if isinstance(failure, Answer) else failure
        self._close(error)
        if name is None:
            return False
        self._note(name, ENGINE_ERROR if error is None else error.code)
        return await self._enter(self._gateway.places_for(self._call, name))

    async def _enter(self, places: Sequence[Places]) -> bool:
        """A place, and the exchange there: at one of `places`, or at those of the next fallback that takes the request. False when none does."""
        while True:
            try:
                await self._begin(places)
            except CANNOT_SERVE as error:
                self._first_failure = self._first_failure or error
                name = next(self._fallbacks, None)
                if name is None:
                    return False
                self._note(name, error.code)
                places = self._gateway.places_for(self._call, name)
            else:
                return True

    def _first_reason(self) -> Answer:
        """Nobody can serve: what the first has said, as if no other had been asked."""
        self.booking.fallback = None
        if isinstance(self._first_failure, Answer):
            return self._first_failure
        assert self._first_failure is not None
        raise self._first_failure from None

    async def _begin(self, places: Sequence[Places]) -> None:
        gateway = self._gateway
        try:
            place = gateway.admission.try_place(places)
            self._place = await self._wait(places) if place is None else place
            exchange = gateway.open(self._call, self._place, self._started_at)
        except BaseException as error:
            gateway.traffic.begin(places[0].instance.name, self._started_at).end(self._reason(error))
            raise
        exchange.booking = self.booking
        self.exchange, self._is_open = exchange, True
        self._settling.begun(self._place.instance.name)
        if gateway.capture is not None and gateway.capture.is_on:
            gateway.capture.watch(self._call, self.booking.request, exchange)

    async def _wait(self, places: Sequence[Places]) -> Place:
        """A place, in turn; errors as `Admission.place`, and RequestCancelledError."""
        waiter = self._waiter = asyncio.current_task()
        assert waiter is not None
        admission = self._gateway.admission
        try:
            return await admission.place(places, self._caller, is_batch=self._is_batch, on_wait=self._tell)
        except asyncio.CancelledError:
            # Unless its client has left in the same moment.
            if self._is_cancelled and not waiter.uncancel():
                raise cancelled() from None
            raise
        finally:
            self._waiter = None

    def _reason(self, error: Ending) -> Ending | LlamavisorError:
        """What the books are told of what has ended it."""
        return (self._why() or error) if isinstance(error, asyncio.CancelledError) else error

    def _tell(self, waiting: Waiting) -> None:
        self._outlook = waiting
        if self._on_wait is not None:
            self._on_wait(waiting)

    def _note(self, name: str, code: str) -> None:
        self.booking.fallback = f"{name}; {code}"

    def _close(self, error: BaseException | None) -> None:
        self._is_open = False
        self._gateway.close_exchange(self.exchange, self._place, error)
        self._settling.ended(self.exchange, self._place)


async def ask(
    gateway: Gateway, call: Call, caller: Caller = ANYONE, *, is_batch: bool = False, why: Why = lambda: None
) -> Answer:
    """The whole answer to a call that asks for no stream, for surfaces that make something else of it; errors as `Exchange.answer`."""
    async with Passage(gateway, call, caller, is_batch=is_batch, why=why) as passage:
        answer = await passage.answer()
    return replace(answer, cost_micros=passage.cost_micros)
