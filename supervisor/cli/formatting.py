"""Figures as people read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

MINUTE_SECONDS = 60
HOUR_SECONDS = 3_600
DAY_SECONDS = 86_400
THOUSAND = 1_000
MICROS = 1_000_000


def duration(seconds: float) -> str:
    """`12 s`, `3 min 05 s`, `2 h 07 min`, `4 d 03 h`; what is below 0 counts as 0."""
    whole = max(0, int(seconds))
    if whole < MINUTE_SECONDS:
        return f"{whole} s"
    if whole < HOUR_SECONDS:
        return f"{whole // MINUTE_SECONDS} min {whole % MINUTE_SECONDS:02d} s"
    if whole < DAY_SECONDS:
        return f"{whole // HOUR_SECONDS} h {whole % HOUR_SECONDS // MINUTE_SECONDS:02d} min"
    return f"{whole // DAY_SECONDS} d {whole % DAY_SECONDS // HOUR_SECONDS:02d} h"


def size(count: float) -> str:
    """Bytes, in powers of 1,000: `512 B`, `1.1 MB`, `4.7 GB`."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"), space=" ")


def quantity(count: float | None) -> str:
    """A number of things: `950`, `8.0B`; `–` when it is not known."""
    return "–" if count is None else _scaled(count, ("", "K", "M", "B", "T"), space="")


def money(micros: int | None) -> str:
    """Micro-units as the decimal number that they are, with two digits after the point at least: `0.10`, `1,234.000001`; `–` when not known."""
    if micros is None:
        return "–"
    whole, _, fraction = f"{Decimal(micros) / MICROS:,.6f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def price(micros: int, currency: str, unpriced: int) -> str:
    """`1.50 EUR`, with ` + ?` where some of the requests have no price; `–` where that is all that is known."""
    if unpriced and not micros:
        return "–"
    return f"{money(micros)} {currency}{' + ?' if unpriced else ''}"


def moment(iso: str | None) -> str:
    """`2026-01-02 15:04Z` of a time in ISO 8601 and UTC; `–` when there is none."""
    return "–" if iso is None else f"{iso[:10]} {iso[11:16]}Z"


def waiting_words(waiting: Mapping[str, Any]) -> str:
    """`number 2 in line, about 12 s`; `number 1 in line, the model is starting, 60 % loaded`: what a request waits for."""
    words = f"number {waiting['position']} in line"
    if waiting["state"] == "ready":
        seconds = waiting["estimate_seconds"]
        return f"{words}, about {duration(seconds)}" if seconds >= 1 else words
    reason, progress = waiting.get("reason"), waiting["progress"]
    if reason is not None:
        return f"{words}, the model is not loaded yet: {reason}"
    loaded = "" if progress is None else f", {progress:.0%} loaded".replace("%", " %")
    return f"{words}, the model is {waiting['state']}{loaded}"


def _scaled(count: float, units: tuple[str, ...], *, space: str) -> str:
    scaled, step = float(count), 0
    while scaled >= THOUSAND - 0.05 and step < len(units) - 1:
        scaled /= THOUSAND
        step += 1
    figure = f"{scaled:.0f}" if step == 0 else f"{scaled:.1f}"
    return f"{figure}{space}{units[step]}" if units[step] else figure
