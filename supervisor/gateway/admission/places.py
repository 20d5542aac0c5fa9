"""A place: the right of one request to be at an instance."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from supervisor.gateway.admission.pool import Pool, Replica

MILLISECONDS = 1_000


class Place:
    """See the module. Leave it when the request has ended, whatever its end: `with place:` does.

    While it is held, the request counts in `instance.requests_active`: nobody else need count it, and an instance that is about to be
    unloaded is busy from the grant on. `queued_ms` is how long the request waited.
    """

    __slots__ = ("_left", "_pool", "_replica", "begun_at", "generation", "instance", "queued_ms")

    def __init__(
        self, pool: Pool, replica: Replica, begun_at: float, waited_seconds: float, left: Callable[..., None]
    ) -> None:
        self.instance = replica.instance
        self.generation = replica.generation
        self.begun_at = begun_at
        self.queued_ms = waited_seconds * MILLISECONDS
        self._pool = pool
        self._replica = replica
        self._left: Callable[..., None] | None = left

    def succeeded(self) -> None:
        """The instance served the request: whatever it failed at before is forgotten."""
        if self._is_of_present_process():
            self._replica.succeeded()

    def failed(self) -> None:
        """The instance did not serve the request: it died, broke the connection, or was silent for too long."""
        if self._is_of_present_process():
            self._replica.failed()

    def leave(self) -> None:
        """Give the place to who is next; idempotent."""
        left, self._left = self._left, None
        if left is not None:
            left(self, self._pool, self._replica)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def _is_of_present_process(self) -> bool:
        return self._replica.instance is self.instance and self._replica.generation == self.generation
