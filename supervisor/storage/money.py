"""What tokens cost. Integers only: money that was rounded twice does not add up."""

from __future__ import annotations

from supervisor.storage.records import Price, TokenUsage

TOKENS_PER_PRICE = 1_000_000


def cost_micros(usage: TokenUsage, price: Price) -> int:
    """The cost in micro-units: the exact sum of both parts, rounded once, half up. Cached tokens cost what others do."""
    exact = usage.prompt_tokens * price.input_micros + usage.completion_tokens * price.output_micros
    return (2 * exact + TOKENS_PER_PRICE) // (2 * TOKENS_PER_PRICE)
