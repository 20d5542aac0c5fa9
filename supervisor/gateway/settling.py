"""What a request has come to when it is over: its tokens, its share of the energy, and the words of its record."""

from __future__ import annotations

from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.bookkeeper import Booking, Facts
from supervisor.gateway.admission.admission import Place
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Exchange
from supervisor.gateway.observing.energy import METHOD, Charge, EnergyBook
from supervisor.gateway.surfaces import surface_of
from supervisor.gateway.traffic import Outcome, outcome_of
from supervisor.storage.records import TokenSource, TokenUsage

MILLISECONDS = 1_000
# Ways to end that may come over a request while it waits for a fallback.
IMPATIENT = frozenset({Outcome.CLIENT_GONE, Outcome.CANCELLED, Outcome.TIMEOUT})


class Settling:
    """The end of one booking. Tell it of each exchange that the request has (`begun`, `ended`); then, once, how it ended (`served` or `unserved`)."""

    __slots__ = ("_booking", "_call", "_charge", "_energy", "_first", "_metered")

    def __init__(self, energy: EnergyBook, call: Call, booking: Booking) -> None:
        self._energy = energy
        self._call = call
        self._booking = booking
        self._metered: tuple[str, float] | None = None
        self._charge: Charge | None = None
        self._first: tuple[Exchange, Place] | None = None

    def begun(self, instance: str) -> None:
        """The request is at an instance."""
        begun = self._energy.begin(instance) if self._energy.is_on else None
        self._metered = None if begun is None else (instance, begun)

    def ended(self, exchange: Exchange, place: Place) -> None:
        """It has left the instance."""
        self._first = self._first or (exchange, place)
        if self._metered is not None:
            charge = self._energy.end(*self._metered)
            self._charge = charge if self._charge is None else self._charge.plus(charge)
            self._metered = None

    def served(self, exchange: Exchange, place: Place, error: BaseException | None) -> None:
        """It had an exchange to its end, good or bad."""
        self._settle(exchange.record.outcome or Outcome.OK, exchange, place, error)

    def unserved(self, error: BaseException | None) -> None:
        """Nobody has served it. If anybody has tried, this is about the first: what that has said was told to the client, unless it did not wait."""
        if self._first is None:
            assert error is not None
            reason = self._route_reason()
            self._booking.settle(outcome_of(error).value, error_code=_code(error), route_reason=reason)
            return
        exchange, place = self._first
        outcome = None if error is None else outcome_of(error)
        if outcome not in IMPATIENT:
            outcome = exchange.record.outcome
        self._settle(outcome or Outcome.OK, exchange, place, error)

    def _settle(self, outcome: Outcome, exchange: Exchange, place: Place, error: BaseException | None) -> None:
        facts = Facts(
            error_code=_code(error) or exchange.error_code,
            model=exchange.model,
            instance=place.instance.name,
            route_reason=self._route_reason(),
            queued_ms=round(place.queued_seconds * MILLISECONDS, 3),
            first_byte_ms=None if exchange.first_byte_ms is None else round(exchange.first_byte_ms, 3),
        )
        if self._charge is not None:
            millijoules, micrograms = self._charge
            facts |= Facts(energy_millijoules=millijoules, co2_micrograms=micrograms, energy_method=METHOD)
        self._booking.settle(outcome.value, self._usage(exchange), **facts)

    def _usage(self, exchange: Exchange) -> TokenUsage:
        """What the engine told; of an answer that was cut before it could, what was counted, with the prompt as it was estimated if need be.

        Who does not wait for the first word pays the prompt all the same: else a model could be kept at work for nothing.
        """
        usage = exchange.usage
        is_cut = exchange.is_cut_short and not surface_of(self._call.path).is_free
        is_estimated = usage.source is TokenSource.COUNTED or (usage.source is TokenSource.NONE and is_cut)
        return self._booking.with_prompt(usage) if is_estimated else usage

    def _route_reason(self) -> str | None:
        fallback = self._booking.fallback
        return self._call.route_reason if fallback is None else f"fallback: {fallback}"


def _code(error: BaseException | None) -> str | None:
    return error.code if isinstance(error, LlamavisorError) else None
