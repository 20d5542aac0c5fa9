"""The requests that are on their way now: seen from outside, and ended before their time by who may do so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from supervisor.errors import RequestCancelledError
from supervisor.gateway.admission.admission import Waiting
from supervisor.storage.records import AcceptedRequest, TokenUsage


class Stage(StrEnum):
    """How far a request is.

    `waiting`: for its turn, or for the model. `sent`: the engine works on it, and nothing of the answer has come. `streaming`: the answer comes.
    """

    WAITING = "waiting"
    SENT = "sent"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class InFlightRequest:
    """One request as it is now. `waiting` is what it was told last of its turn; `usage` holds the tokens that were counted so far."""

    request: AcceptedRequest
    stage: Stage
    seconds: float
    instance: str | None
    waiting: Waiting | None
    usage: TokenUsage


class OnItsWay(Protocol):
    """A request that can be looked at, and ended."""

    @property
    def id(self) -> str:
        """Of its record."""

    def look(self) -> InFlightRequest:
        """How it is now."""

    def cancel(self) -> None:
        """End it before its time; its client is told so."""


class InFlight:
    """Every request from its booking to its end. One entry in a dictionary is all that a request pays for it."""

    def __init__(self) -> None:
        self._passages: dict[str, OnItsWay] = {}

    def __len__(self) -> int:
        return len(self._passages)

    def add(self, passage: OnItsWay) -> None:
        """It is booked; pair it with `remove`."""
        self._passages[passage.id] = passage

    def remove(self, passage: OnItsWay) -> None:
        """It has ended."""
        self._passages.pop(passage.id, None)

    def requests(self) -> list[InFlightRequest]:
        """All of them, oldest first."""
        return [passage.look() for passage in self._passages.values()]

    def find(self, request_id: str) -> InFlightRequest | None:
        """The one of that id; None when it has ended, or never was."""
        passage = self._passages.get(request_id)
        return None if passage is None else passage.look()

    def cancel(self, request_id: str) -> bool:
        """End it, at the engine too: its client is told `cancelled`. False when there is none of that id. Who may do so is for the caller to know."""
        passage = self._passages.get(request_id)
        if passage is None:
            return False
        passage.cancel()
        return True


def cancelled() -> RequestCancelledError:
    """What the client of a cancelled request is told."""
    return RequestCancelledError(
        "The request was cancelled by who looks after this server, or with the key that sent it."
    )
