"""What the headers of an answer say of its request: its number in the books, and how far the limits are."""

from __future__ import annotations

from supervisor.gateway.accounting.bookkeeper import Booking

RECEIPT_HEADER = "x-llamavisor-request-id"


def booking_headers(booking: Booking) -> dict[str, str]:
    """`x-llamavisor-request-id` for `GET /v1/requests/{id}`, and OpenAI's `x-ratelimit-…` where there are limits."""
    return {RECEIPT_HEADER: booking.request.id, **booking.headers()}
