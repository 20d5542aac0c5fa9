"""A request from the moment in which it is let in until its record is written: booked, placed, exchanged, settled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.bookkeeper import Booking, Facts
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.admission.admission import Place, Waiting
from supervisor.gateway.admission.places import Places
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer, Exchange
from supervisor.gateway.fallbacks import CANNOT_SERVE, FIRST_FAILURE
from supervisor.gateway.observing.energy import METHOD, Charge
from supervisor.gateway.traffic import Outcome, outcome_of
from supervisor.storage.records import TokenSource, TokenUsage

if TYPE_CHECKING:
    from supervisor.gateway.gateway import Gateway

MILLISECONDS = 1_000


class Passage:
    """A request for the length of an `async with`; whatever ends it, one usage record tells how. `booking` is there from the beginning of it.

    As long as nothing of an answer has come, a model that cannot serve may be stood in for by its fallbacks: `exchange` is the present one.
    """

    __slots__ = (
        "_call", "_caller", "_energy", "_energy_begun", "_fallbacks", "_first_error", "_gateway", "_is_batch", "_is_open", "_on_wait",
        "_place", "_started_at", "booking", "exchange",
    )  # fmt: skip

    def __init__(
        self, gateway: Gateway, call: Call, caller: Caller, on_wait: Callable[[Waiting], None] | None, is_batch: bool
    ) -> None:
        self._gateway = gateway
        self._call = call
        self._caller = caller
        self._on_wait = on_wait
        self._is_batch = is_batch
        self._is_open = False
        self._fallbacks: Iterator[str]
        self._first_error: LlamavisorError | None = None
        self._started_at: float
        self._place: Place
        self._energy_begun: float | None = None
        self._energy: Charge | None = None
        self.booking: Booking
        self.exchange: Exchange

    async def __aenter__(self) -> Self:
        gateway = self._gateway
        self._started_at = gateway.began()
        try:
            places = gateway.places_for(self._call, self._call.model)
            self.booking = gateway.book(self._call, self._caller, places[0].instance.name)
            if gateway.tracing is not None:
                self._call = gateway.tracing.follow(self._call, self.booking.request.id)
            self._fallbacks = iter(gateway.fallbacks_of(self._call, places[0].instance.name))
            try:
                await self._enter(places)
            except BaseException as error:
                self._settle_unserved(error)
                raise
        except BaseException:
            gateway.ended()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._is_open:
                self._close(error)
                self._settle(error)
            else:
                self._settle_unserved(error or RuntimeError("no answer was asked for"))
        finally:
            self._gateway.ended()

    async def answer(self) -> Answer:
        """The whole answer, or of a stream the first whole event, of whichever model serves. Errors as `Exchange.answer`, of the first to fail."""
        while True:
            try:
                answer = await self.exchange.answer()
            except CANNOT_SERVE as error:
                if not await self._stand_in(error, error.code):
                    raise self._first_error or error from None
                continue
            if answer.status < FIRST_FAILURE or not await self._stand_in(None, "engine_error"):
                return answer

    async def _stand_in(self, error: LlamavisorError | None, code: str) -> bool:
        """Go on with the next model that takes the request; False when there is none, and all is as it was."""
        name = next(self._fallbacks, None)
        if name is None:
            return False
        self._close(error)
        self._first_error = self._first_error or error
        self._note(name, code)
        await self._enter(self._gateway.places_for(self._call, name))
        return True

    async def _enter(self, places: Sequence[Places]) -> None:
        """A place, and the exchange there: at one of `places`, or at those of the next fallback that takes the request."""
        while True:
            try:
                await self._begin(places)
            except CANNOT_SERVE as error:
                self._first_error = self._first_error or error
                name = next(self._fallbacks, None)
                if name is None:
                    raise self._first_error from None
                self._note(name, error.code)
                places = self._gateway.places_for(self._call, name)
            else:
                return

    async def _begin(self, places: Sequence[Places]) -> None:
        gateway = self._gateway
        try:
            place = gateway.admission.try_place(places)
            if place is None:
                place = await gateway.admission.place(
                    places, self._caller, is_batch=self._is_batch, on_wait=self._on_wait
                )
            self._place = place
            self.exchange = gateway.open(self._call, place, self._started_at)
        except BaseException as error:
            gateway.traffic.begin(places[0].instance.name, self._started_at).end(error)
            raise
        self.exchange.booking = self.booking
        self._is_open = True
        if gateway.capture is not None and gateway.capture.is_on:
            gateway.capture.watch(self._call, self.booking.request, self.exchange)
        if gateway.energy.is_on:
            self._energy_begun = gateway.energy.begin(place.instance.name)

    def _note(self, name: str, code: str) -> None:
        self.booking.fallback = f"{name}; {code}"

    def _close(self, error: BaseException | None) -> None:
        self._is_open = False
        self._gateway.close_exchange(self.exchange, self._place, error)
        if self._energy_begun is not None:
            charge = self._gateway.energy.end(self._place.instance.name, self._energy_begun)
            self._energy = charge if self._energy is None else self._energy.plus(charge)
            self._energy_begun = None

    def _usage(self) -> TokenUsage:
        """What the engine told; of an answer that was cut before it could, what was counted, with the prompt as it was estimated if need be."""
        usage = self.exchange.usage
        if usage.source is not TokenSource.COUNTED or usage.prompt_tokens:
            return usage
        request = self.booking.request
        estimator = self._gateway.bookkeeper.estimator
        estimate = estimator.estimate(request.project, request.endpoint, request.surface, len(self._call.body), None)
        return usage._replace(prompt_tokens=estimate.prompt_tokens)

    def _settle_unserved(self, error: BaseException) -> None:
        self.booking.settle(outcome_of(error).value, error_code=_code(error), route_reason=self._route_reason())

    def _settle(self, error: BaseException | None) -> None:
        exchange, place = self.exchange, self._place
        outcome = exchange.record.outcome or Outcome.OK
        facts = Facts(
            error_code=_code(error) or exchange.error_code,
            model=exchange.model,
            instance=place.instance.name,
            route_reason=self._route_reason(),
            queued_ms=round(place.queued_seconds * MILLISECONDS, 3),
            first_byte_ms=None if exchange.first_byte_ms is None else round(exchange.first_byte_ms, 3),
        )
        if self._energy is not None:
            millijoules, micrograms = self._energy
            facts |= Facts(energy_millijoules=millijoules, co2_micrograms=micrograms, energy_method=METHOD)
        self.booking.settle(outcome.value, self._usage(), **facts)

    def _route_reason(self) -> str | None:
        fallback = self.booking.fallback
        return self._call.route_reason if fallback is None else f"fallback: {fallback}"


def _code(error: BaseException | None) -> str | None:
    return error.code if isinstance(error, LlamavisorError) else None
