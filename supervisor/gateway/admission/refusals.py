"""What is said to those who get no place. Pure."""

from __future__ import annotations

from supervisor.errors import NotAvailableError, QueueFullError
from supervisor.gateway.admission.pool import Pool
from supervisor.gateway.resolve import RETRY_LATER_SECONDS, RETRY_SOON_SECONDS, why_not_ready
from supervisor.process.states import State

LONGEST_RETRY_AFTER_SECONDS = 60.0


def no_room(pool: Pool, *, was_in: bool) -> QueueFullError:
    """The queue is full: of a newcomer, or of one who was in it and had to yield."""
    what = (
        "This request yielded its place in the queue to somebody who holds less of it"
        if was_in
        else "The queue is full"
    )
    return QueueFullError(
        f"{what}: {pool.queue.size} requests wait for {pool.name}.",
        param="model",
        remedy="Send fewer requests at once, or raise `gateway.queue_limit`.",
        retry_after_seconds=retry_after_seconds(pool),
    )


def too_late(pool: Pool, waited_seconds: float, now_wall: float) -> NotAvailableError:
    """Time is up: because nobody is ready, which is said as if it were asked now, or because nobody had room."""
    hope = None if pool.is_open else pool.best_hope()
    if hope is not None and hope.instance.state is not State.READY:
        return why_not_ready(hope.instance.snapshot(), now_wall)
    return NotAvailableError(
        f"No place at {pool.name} became free within {waited_seconds:g} s.",
        code="queue_timeout",
        param="model",
        retry_after_seconds=retry_after_seconds(pool),
    )


def removed() -> NotAvailableError:
    """A reload took away what was waited for; the name may mean something else now."""
    return NotAvailableError(
        "What serves this model was removed from the configuration, or replaced.",
        code="instance_removed",
        param="model",
        retry_after_seconds=RETRY_SOON_SECONDS,
    )


def shutting_down() -> NotAvailableError:
    """Nobody is let in any more."""
    return NotAvailableError("The server is shutting down.", code="shutting_down")


def retry_after_seconds(pool: Pool) -> float:
    """When those who wait now will have been served, within reason."""
    seconds = pool.pace.wait_seconds(pool.queue.size, pool.places)
    if seconds is None:
        return RETRY_LATER_SECONDS
    return min(LONGEST_RETRY_AFTER_SECONDS, max(RETRY_SOON_SECONDS, seconds))
