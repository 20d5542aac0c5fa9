"""The clock that decisions use: monotonic, injectable, so that they are tested without waiting and a jump of the wall clock changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is due later; `cancel` is idempotent and harmless after the call."""

    def cancel(self) -> None:
        """Forget the call."""


class Clock(Protocol):
    """Time as the supervisor sees it."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back, never jumps. Every duration is a difference of these."""

    def wall(self) -> float:
        """Unix seconds, for people and for stamps only: no decision rests on it."""

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` after `delay_seconds` of monotonic time."""

    async def sleep(self, delay_seconds: float) -> None:
        """Wait `delay_seconds` of monotonic time."""


class SystemClock:
    """The real clock, over the running event loop. See `Clock`."""

    # As they are: a method around each would double what it costs, and requests ask often.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_later`."""
        return asyncio.get_running_loop().call_later(delay_seconds, callback)

    async def sleep(self, delay_seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(delay_seconds)
