"""The lines of a batch that are still to be answered."""

from __future__ import annotations

import asyncio

from supervisor.gateway.batch.disk import Disk
from supervisor.gateway.batch.folder import LineReader, ResultFiles
from supervisor.gateway.batch.lines import Line, read_line

SLICE_LINES = 64
SLICE_BYTES = 1024**2


class Pending:
    """The lines of a batch that have no result, in order; each is given out once."""

    def __init__(self, endpoint: str, reader: LineReader, results: ResultFiles, disk: Disk) -> None:
        self._endpoint = endpoint
        self._reader = reader
        self._results = results
        self._disk = disk
        self._lines: list[tuple[int, bytes]] = []
        self._reading = asyncio.Lock()

    async def next(self) -> Line | None:
        """The next one; None when there are no more."""
        async with self._reading:
            while not self._lines:
                slice_ = await self._disk(lambda: self._reader.take(SLICE_LINES, SLICE_BYTES))
                if not slice_:
                    return None
                self._lines = [(number, raw) for number, raw in reversed(slice_) if number not in self._results.done]
            number, raw = self._lines.pop()
        return read_line(number, raw, self._endpoint)

    def close(self) -> None:
        """Close the file."""
        self._disk.later(self._reader.close)
