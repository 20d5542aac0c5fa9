"""Settings of the books: what tokens cost, the limits that hold where nothing else is said, and what to hold back for a request.

Budgets, keys, and limits of single keys and projects are no settings: they are kept in the database, and change while the server runs.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from supervisor.config.fields import Count, StrictModel, Tokens

MICROS_PER_UNIT = 1_000_000
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]+)?\Z")
_DECIMALS = 6


def _exact(value: object) -> Decimal:
    """The decimal number that was written: of a binary fraction the shortest decimal that means it."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    text = f"{Decimal(str(value)):f}" if is_number and _is_finite(value) else value
    if not isinstance(text, str) or not _DECIMAL.match(text):
        raise PydanticCustomError("price", "must be a number from 0 to 999999999, or the same as text")
    number = Decimal(text)
    if number != round(number, _DECIMALS):
        raise PydanticCustomError("price", "has more than six digits after the point")
    return number


def _is_finite(value: Any) -> bool:
    return Decimal(str(value)).is_finite()


_PRICE_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 999_999_999, "x-unit": "currency a million tokens"},
        {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?$"},
    ]
}
PricePerMillion = Annotated[Decimal, BeforeValidator(_exact), WithJsonSchema(_PRICE_SCHEMA)]
ModelName = Annotated[str, Field(min_length=1, max_length=200)]
Currency = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,8}$")]
Percentile = Annotated[int, Field(strict=True, ge=1, le=100, json_schema_extra={"x-unit": "percent"})]


class PriceSettings(StrictModel):
    """What a million tokens of one model cost. Text is as good as a number: `"0.15"`."""

    input: PricePerMillion = Field(description="A million tokens of prompts, cached ones too.")
    output: PricePerMillion = Field(description="A million tokens of answers.")

    @property
    def input_micros(self) -> int:
        """Micro-units a million prompt tokens, exact."""
        return int(self.input * MICROS_PER_UNIT)

    @property
    def output_micros(self) -> int:
        """Micro-units a million completion tokens, exact."""
        return int(self.output * MICROS_PER_UNIT)


class LimitSettings(StrictModel):
    """Limits of each key, or of each project as a whole; left out, there is none."""

    requests_per_minute: Count | None = Field(
        None, description="Requests that flow in each minute; so many may come at once."
    )
    tokens_per_minute: Tokens | None = Field(
        None, description="Tokens of prompts and answers that flow in each minute; so many may be used at once."
    )
    concurrency: Count | None = Field(None, description="Requests on their way at a time, those that wait included.")


class LimitsSettings(StrictModel):
    """The limits where a key or a project has none of its own."""

    key: LimitSettings = Field(default_factory=LimitSettings, description="Limits of each key.")
    project: LimitSettings = Field(
        default_factory=LimitSettings, description="Limits of each project, all its keys together."
    )


class ReservationSettings(StrictModel):
    """What is held back of a budget until a request's real usage is known. It is learned; these figures are where it starts."""

    completion_tokens: Tokens = Field(
        512, description="Tokens of an answer, as long as too few have been seen; never more than the request allows."
    )
    bytes_per_token: Annotated[Count, Field(json_schema_extra={"x-unit": "bytes"})] = Field(
        4, description="Bytes of a request's body that make a token of its prompt, as long as too few have been seen."
    )
    most_prompt_tokens: Tokens = Field(
        32_768, description="Most tokens assumed of a prompt: pictures are many bytes and few tokens."
    )
    percentile: Percentile = Field(90, description="How many of a hundred past answers the estimate covers.")


class AccountingSettings(StrictModel):
    """What tokens cost, default limits, and reservations."""

    currency: Currency = Field("USD", description="Name of the currency of prices and budgets.")
    prices: dict[ModelName, PriceSettings] = Field(
        default_factory=dict,
        description="Prices by the name of an endpoint, an instance or a model, the first of these that has one. What has no price costs "
        "nothing known: projects with a budget in money cannot use it.",
    )
    limits: LimitsSettings = Field(
        default_factory=LimitsSettings, description="Limits of keys and projects that have none of their own."
    )
    reservation: ReservationSettings = Field(
        default_factory=ReservationSettings,
        description="What is held back of a budget until a request's real usage is known.",
    )
