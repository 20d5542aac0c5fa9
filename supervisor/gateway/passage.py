"""A request from the moment in which it is let in until its record is written: booked, placed, exchanged, settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.bookkeeper import Booking
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.admission import Place, Waiting
from supervisor.gateway.admission.places import Places
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Exchange
from supervisor.gateway.inflight import InFlightRequest, Stage, cancelled
from supervisor.gateway.traffic import Outcome, outcome_of
from supervisor.storage.records import TokenSource, TokenUsage

if TYPE_CHECKING:
    from supervisor.gateway.gateway import Gateway

MILLISECONDS = 1_000


class Passage:
    """An exchange for the length of an `async with`; whatever ends it, one usage record tells how. `booking` is there from the beginning of it."""

    __slots__ = (
        "_call", "_caller", "_exchange", "_gateway", "_is_batch", "_is_cancelled", "_on_wait", "_outlook", "_place", "_started_at", "_waiter",
        "booking",
    )  # fmt: skip

    def __init__(
        self, gateway: Gateway, call: Call, caller: Caller, on_wait: Callable[[Waiting], None] | None, is_batch: bool
    ) -> None:
        self._gateway = gateway
        self._call = call
        self._caller = caller
        self._on_wait = on_wait
        self._is_batch = is_batch
        self.booking: Booking
        self._started_at: float
        self._place: Place
        self._exchange: Exchange | None = None
        self._waiter: asyncio.Task[Any] | None = None
        self._outlook: Waiting | None = None
        self._is_cancelled = False

    async def __aenter__(self) -> Exchange:
        gateway = self._gateway
        self._started_at = gateway.began()
        try:
            places = gateway.places_for(self._call)
            self.booking = gateway.book(self._call, self._caller, places[0].instance.name)
            gateway.in_flight.add(self)
            return await self._enter(places)
        except BaseException:
            gateway.ended()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        exchange = self._exchange
        assert exchange is not None
        try:
            self._gateway.in_flight.remove(self)
            self._gateway.close_exchange(exchange, self._place, error)
            self._settle(exchange, error)
        finally:
            self._gateway.ended()

    def look(self) -> InFlightRequest:
        """How it is now, once it is booked."""
        exchange, request = self._exchange, self.booking.request
        seconds = self._gateway.bookkeeper.clock.monotonic() - self._started_at
        if exchange is None:
            return InFlightRequest(request, Stage.WAITING, seconds, None, self._outlook, TokenUsage())
        stage = Stage.SENT if exchange.first_byte_ms is None else Stage.STREAMING
        return InFlightRequest(request, stage, seconds, self._place.instance.name, None, exchange.usage)

    def cancel(self) -> None:
        """End it before its time, wherever it is; its client is told so."""
        if self._exchange is not None:
            self._exchange.cut(cancelled())
        elif self._waiter is not None and not self._is_cancelled:
            self._is_cancelled = True
            self._waiter.cancel()

    async def _enter(self, places: Sequence[Places]) -> Exchange:
        gateway = self._gateway
        try:
            place = gateway.admission.try_place(places)
            self._place = await self._wait(places) if place is None else place
            exchange = gateway.open(self._call, self._place, self._started_at)
            exchange.booking = self.booking
        except BaseException as error:
            gateway.in_flight.remove(self)
            gateway.traffic.begin(places[0].instance.name, self._started_at).end(error)
            self.booking.settle(outcome_of(error).value, error_code=_code(error))
            raise
        self._exchange = exchange
        return exchange

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

    def _tell(self, waiting: Waiting) -> None:
        self._outlook = waiting
        if self._on_wait is not None:
            self._on_wait(waiting)

    def _usage(self, exchange: Exchange) -> TokenUsage:
        """What the engine told; of an answer that was cut before it could, what was counted, with the prompt as it was estimated."""
        usage = exchange.usage
        if usage.source is not TokenSource.COUNTED:
            return usage
        request = self.booking.request
        estimator = self._gateway.bookkeeper.estimator
        estimate = estimator.estimate(request.project, request.endpoint, request.surface, len(self._call.body), None)
        return usage._replace(prompt_tokens=estimate.prompt_tokens)

    def _settle(self, exchange: Exchange, error: BaseException | None) -> None:
        place = self._place
        outcome = exchange.record.outcome or Outcome.OK
        self.booking.settle(
            outcome.value,
            self._usage(exchange),
            error_code=_code(error) or exchange.error_code,
            model=exchange.model,
            instance=place.instance.name,
            queued_ms=round(place.queued_seconds * MILLISECONDS, 3),
            first_byte_ms=None if exchange.first_byte_ms is None else round(exchange.first_byte_ms, 3),
        )


def _code(error: BaseException | None) -> str | None:
    return error.code if isinstance(error, LlamavisorError) else None
