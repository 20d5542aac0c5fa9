"""What the line asks of whoever loads and unloads models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from supervisor.errors import LlamavisorError
from supervisor.fleet.placement.schedule import Lack


class Loads(Protocol):
    """Has instances ready for those who wait, as far as that is possible."""

    def want(self, instance: str, on_failure: Callable[[LlamavisorError], None]) -> Callable[[], None]:
        """Somebody waits until `instance` is ready; the answer withdraws the wish. `on_failure` is called, at most once, when it will not be."""

    def waits_for(self, instance: str) -> Lack | None:
        """What the load of a wanted instance waits for; None when it does not."""

    def used(self, instance: str) -> None:
        """A request to it has begun, or ended."""
