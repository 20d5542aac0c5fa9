"""What tokens cost, in integers only: the one place where a price is applied."""

from __future__ import annotations

from supervisor.storage.records import Price, TokenUsage

MICROS_PER_UNIT = 1_000_000
TOKENS_PER_PRICE = 1_000_000
"""A `Price` is for so many tokens."""


def cost_micros(usage: TokenUsage, price: Price) -> int:
    """The cost in micro-units: the exact sum over prompt and completion, rounded once, half up. Cached tokens cost what prompt tokens cost.

    It depends on nothing but tokens and price, so that a request costs the same streamed, not streamed, in a batch, or cut.
    """
    return tokens_micros(usage.prompt_tokens, usage.completion_tokens, price)


def tokens_micros(prompt_tokens: int, completion_tokens: int, price: Price) -> int:
    """See `cost_micros`; for tokens that are only expected."""
    exact = prompt_tokens * price.input_micros + completion_tokens * price.output_micros
    return (exact + TOKENS_PER_PRICE // 2) // TOKENS_PER_PRICE


def decimal_text(micros: int) -> str:
    """Micro-units as units of the currency in exact decimal digits: at least two after the point, at most six."""
    whole, part = divmod(abs(micros), MICROS_PER_UNIT)
    digits = f"{part:06}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{whole}.{digits}"
