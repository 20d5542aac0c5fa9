"""What the line asks of whoever loads and unloads models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from supervisor.errors import LlamavisorError


class Loads(Protocol):
    """Starts instances because somebody waits for them."""

    def want(self, instance: str, on_failure: Callable[[LlamavisorError], None]) -> Callable[[], None] | None:
        """Ask that `instance` become ready. `on_failure` is called, at most once, when it will not; the answer takes the wish back.

        None: nobody loads it on demand.
        """


class NoLoads:
    """Nobody loads anything: what does not run is not available."""

    def want(self, instance: str, on_failure: Callable[[LlamavisorError], None]) -> Callable[[], None] | None:
        """See `Loads.want`."""
        return None
