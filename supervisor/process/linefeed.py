"""A live reader of an instance's lines, bounded whatever its pace."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from supervisor.process.lines import LogLine

SUBSCRIPTION_LINES = 1_000


class LineSubscription:
    """One reader of the lines, from now on. Iterate it; `close` ends the iteration. A reader that falls behind loses the oldest: `dropped`."""

    def __init__(self, leave: Callable[[LineSubscription], None], *, length: int = SUBSCRIPTION_LINES) -> None:
        self.dropped = 0
        self._leave = leave
        self._lines: deque[LogLine] = deque(maxlen=length)
        self._wake = asyncio.Event()
        self._closed = False

    def offer(self, line: LogLine) -> None:
        """Take a line in; called by the capture, on the loop."""
        self.dropped += len(self._lines) == self._lines.maxlen
        self._lines.append(line)
        self._wake.set()

    def close(self) -> None:
        """End the iteration and leave; idempotent."""
        self._closed = True
        self._wake.set()
        self._leave(self)

    async def __aiter__(self) -> AsyncIterator[LogLine]:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._lines:
                yield self._lines.popleft()
            if self._closed:
                return
