"""Values for people, as the templates write them; `static/src/format.ts` writes the same in the browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from supervisor.storage.money import decimal_text
from web.fields import iso

UNKNOWN = "–"
MILLISECONDS = 1_000
SECONDS_PER_MINUTE = 60


def integer(value: int | None) -> str:
    """`12,345`; a dash when it is not known."""
    return UNKNOWN if value is None else f"{value:,}"


def money(micros: int | None, currency: str = "") -> str:
    """`1,234.50 USD` of micro-units: all digits that count, two at least; a dash when it is not known."""
    if micros is None:
        return UNKNOWN
    sign = "-" if micros < 0 else ""
    whole, point, part = decimal_text(abs(micros)).partition(".")
    return f"{sign}{int(whole):,}{point}{part} {currency}".rstrip()


def moment(at: str | int | None, *, seconds: bool = False) -> str:
    """A point in time, ISO 8601 or Unix milliseconds, as an element whose text the browser turns into the reader's own time; nothing for None.

    To the minute, or to the second.
    """
    text = iso(at) if isinstance(at, int) else at
    if text is None:
        return ""
    shown = f"{text[: 19 if seconds else 16].replace('T', ' ')} UTC"
    return Markup('<time datetime="{}"{}>{}</time>').format(text, Markup(" data-seconds" if seconds else ""), shown)


def milliseconds(value: float | None) -> str:
    """`12 ms`, `3.4 s`, `2 min 5 s`; a dash when it is not known."""
    if value is None:
        return UNKNOWN
    if value < MILLISECONDS:
        return f"{value:.0f} ms"
    seconds = value / MILLISECONDS
    if seconds < SECONDS_PER_MINUTE:
        return f"{seconds:.1f} s"
    return f"{int(seconds // SECONDS_PER_MINUTE)} min {int(seconds % SECONDS_PER_MINUTE)} s"


FILTERS: Mapping[str, Callable[..., Any]] = {
    "integer": integer,
    "money": money,
    "moment": moment,
    "milliseconds": milliseconds,
}
