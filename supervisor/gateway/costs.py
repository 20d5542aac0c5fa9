"""Money on its way to a client: inside it is in integer micro-units, and only on the wire is it a number with a point."""

from __future__ import annotations

MICROS = 1_000_000


def cost_number(micros: int | None) -> float | None:
    """The amount in whole units, as answers carry it; null when nobody knows."""
    return None if micros is None else micros / MICROS
