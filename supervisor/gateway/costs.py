"""What a request costs, as far as the surfaces need to know. Money is in integer micro-units; only on the wire is it a number with a point."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.storage.records import TokenUsage

MICROS = 1_000_000
PriceOf = Callable[[TokenUsage, str | None], int | None]
"""The micro-units that tokens cost of what was asked for as `model` (None: the default); None when it has no price."""


def unpriced(usage: TokenUsage, model: str | None) -> int | None:
    """Nothing has a price."""
    return None


def cost_number(micros: int | None) -> float | None:
    """The amount in whole units, as answers carry it; null when nobody knows."""
    return None if micros is None else micros / MICROS
