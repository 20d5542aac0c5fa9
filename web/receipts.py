"""What the headers of an answer say of its request: its number in the books, and how far the limits are."""

from __future__ import annotations

from supervisor.gateway.accounting.bookkeeper import Booking

RECEIPT_HEADER = "x-llamavisor-request-id"
FALLBACK_HEADER = "x-llamavisor-fallback"


def booking_headers(booking: Booking) -> dict[str, str]:
    """`x-llamavisor-request-id` for `GET /v1/requests/{id}`; OpenAI's `x-ratelimit-…` where there are limits; `x-llamavisor-fallback: MODEL; CODE`
    when another model has answered than the one that was asked for, and why."""
    headers = {RECEIPT_HEADER: booking.request.id, **booking.headers()}
    if booking.fallback is not None:
        headers[FALLBACK_HEADER] = booking.fallback
    return headers
