"""A request from the moment in which it is let in until its record is written: booked, placed, exchanged, settled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.bookkeeper import Booking, Facts
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.admission import Place, Waiting
from supervisor.gateway.admission.places import Places
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Exchange
from supervisor.gateway.observing.energy import METHOD
from supervisor.gateway.traffic import Outcome, outcome_of
from supervisor.storage.records import TokenSource, TokenUsage

if TYPE_CHECKING:
    from supervisor.gateway.gateway import Gateway

MILLISECONDS = 1_000


class Passage:
    """An exchange for the length of an `async with`; whatever ends it, one usage record tells how. `booking` is there from the beginning of it."""

    __slots__ = (
        "_call",
        "_caller",
        "_energy_begun",
        "_exchange",
        "_gateway",
        "_is_batch",
        "_on_wait",
        "_place",
        "booking",
    )

    def __init__(
        self, gateway: Gateway, call: Call, caller: Caller, on_wait: Callable[[Waiting], None] | None, is_batch: bool
    ) -> None:
        self._gateway = gateway
        self._call = call
        self._caller = caller
        self._on_wait = on_wait
        self._is_batch = is_batch
        self.booking: Booking
        self._place: Place
        self._energy_begun: float | None = None
        self._exchange: Exchange

    async def __aenter__(self) -> Exchange:
        gateway = self._gateway
        started_at = gateway.began()
        try:
            places = gateway.places_for(self._call)
            self.booking = gateway.book(self._call, self._caller, places[0].instance.name)
            if gateway.tracing is not None:
                self._call = gateway.tracing.follow(self._call, self.booking.request.id)
            await self._enter(places, started_at)
        except BaseException:
            gateway.ended()
            raise
        return self._exchange

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._gateway.close_exchange(self._exchange, self._place, error)
            self._settle(error)
        finally:
            self._gateway.ended()

    async def _enter(self, places: Sequence[Places], started_at: float) -> None:
        gateway = self._gateway
        try:
            place = gateway.admission.try_place(places)
            if place is None:
                place = await gateway.admission.place(
                    places, self._caller, is_batch=self._is_batch, on_wait=self._on_wait
                )
            self._place = place
            self._exchange = gateway.open(self._call, place, started_at)
            self._exchange.booking = self.booking
            if gateway.capture is not None and gateway.capture.is_on:
                gateway.capture.watch(self._call, self.booking.request, self._exchange)
            if gateway.energy.is_on:
                self._energy_begun = gateway.energy.begin(place.instance.name)
        except BaseException as error:
            gateway.traffic.begin(places[0].instance.name, started_at).end(error)
            self.booking.settle(outcome_of(error).value, error_code=_code(error))
            raise

    def _usage(self) -> TokenUsage:
        """What the engine told; of an answer that was cut before it could, what was counted, with the prompt as it was estimated."""
        usage = self._exchange.usage
        if usage.source is not TokenSource.COUNTED:
            return usage
        request = self.booking.request
        estimator = self._gateway.bookkeeper.estimator
        estimate = estimator.estimate(request.project, request.endpoint, request.surface, len(self._call.body), None)
        return usage._replace(prompt_tokens=estimate.prompt_tokens)

    def _settle(self, error: BaseException | None) -> None:
        exchange, place = self._exchange, self._place
        outcome = exchange.record.outcome or Outcome.OK
        facts = Facts(
            error_code=_code(error) or exchange.error_code,
            model=exchange.model,
            instance=place.instance.name,
            queued_ms=round(place.queued_seconds * MILLISECONDS, 3),
            first_byte_ms=None if exchange.first_byte_ms is None else round(exchange.first_byte_ms, 3),
        )
        if self._energy_begun is not None:
            millijoules, micrograms = self._gateway.energy.end(place.instance.name, self._energy_begun)
            facts |= Facts(energy_millijoules=millijoules, co2_micrograms=micrograms, energy_method=METHOD)
        self.booking.settle(outcome.value, self._usage(), **facts)


def _code(error: BaseException | None) -> str | None:
    return error.code if isinstance(error, LlamavisorError) else None
