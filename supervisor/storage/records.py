"""The records that are kept, as immutable values. Money is in integer micro-units of the configured currency, time in Unix milliseconds.

They are tuples: two are made for each request, and a frozen dataclass costs five times as much.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Scope(StrEnum):
    """What a key may do.

    `inference`: call models, and see what its own project used. `read`: see everything, change nothing. `admin`: everything.
    """

    INFERENCE = "inference"
    READ = "read"
    ADMIN = "admin"


class TokenSource(StrEnum):
    """Where the token counts of a record come from.

    `engine`: its own figures. `counted`: events of an answer that was cut before the engine told, its prompt estimated if need be.
    `none`: nothing was generated, or nobody knows.
    """

    ENGINE = "engine"
    COUNTED = "counted"
    NONE = "none"


class TokenUsage(NamedTuple):
    """The tokens of one request. `cached_tokens` are those of the prompt that the engine did not have to read again (part of `prompt_tokens`)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    source: TokenSource = TokenSource.NONE

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


class Price(NamedTuple):
    """Micro-units a million tokens, of the prompt and of the completion."""

    input_micros: int
    output_micros: int


class AcceptedRequest(NamedTuple):
    """A request that was let in: who pays, and for what. Written before anything is sent to an engine.

    `id` is ours and unique; `client_request_id` what the client calls it (`X-Request-Id`), if anything. `endpoint` is what was asked for: one name
    for all that mean the same endpoint, or the id of a model; `surface` the route's kind (`chat`, `completions`, `embeddings`, …), `reserved_micros`
    what is held back of the budgets until it is settled.
    """

    id: str
    project: str
    key_id: str | None
    endpoint: str
    surface: str
    stream: bool
    accepted_at_ms: int
    client_request_id: str | None = None
    batch_id: str | None = None
    price: Price | None = None
    reserved_micros: int = 0
    reserved_tokens: int = 0


class Settlement(NamedTuple):
    """How an accepted request ended. `outcome` as `supervisor.gateway.traffic.Outcome`, or `interrupted` when the supervisor was killed meanwhile.

    `cost_micros` is None when the model has no price. Times are milliseconds since the request was accepted; None when it never came so far.
    """

    id: str
    outcome: str
    usage: TokenUsage
    cost_micros: int | None
    settled_at_ms: int
    error_code: str | None = None
    model: str | None = None
    instance: str | None = None
    revision: int | None = None
    route_reason: str | None = None
    queued_ms: float | None = None
    first_byte_ms: float | None = None
    total_ms: float | None = None
    energy_millijoules: int | None = None
    co2_micrograms: int | None = None
    energy_method: str | None = None


class UsageRecord(NamedTuple):
    """One request in the books: accepted, and settled (None: it is still on its way)."""

    request: AcceptedRequest
    settlement: Settlement | None
