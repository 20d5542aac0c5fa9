"""What a process says: read without ever blocking it, kept in a bounded ring and in capped files, handed to whoever listens.

Nobody has to read for the process to go on: a reader on the loop empties its pipes, and a flood beyond the budget is dropped with a count.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from supervisor.clock import Clock, Timer
from supervisor.process.linefeed import LineSubscription
from supervisor.process.lines import LineAssembler, LogLine, Stream, guess_level, to_text
from supervisor.process.logfile import LogWriter, RotatingFile, open_log
from supervisor.process.survivorlog import SurvivorLog

__all__ = ["LineSubscription", "LogLine", "LogWriter", "OutputCapture", "Stream"]

PIPE_BYTES = 1_048_576
# One read a callback, so that a flood from one process leaves the loop to the others: little when its lines are taken in, much when dropped.
READ_BYTES = 32_768
DROP_BYTES = 262_144
BUDGET_BYTES = 131_072
BUDGET_WINDOW_SECONDS = 0.1
LAST_WORDS_BYTES = 16_384
DRAIN_BYTES_MAX = 4 * PIPE_BYTES
RING_CHARACTERS_MAX = 4_194_304
TAIL_LINES = 12
STDERR_LINES = 200
MILLISECONDS = 1_000
PERCENT = 100


class _Source:
    """The read end of one pipe, and where its lines stand."""

    def __init__(self, descriptor: int, stream: Stream) -> None:
        self.descriptor = descriptor
        self.stream = stream
        self.assembler = LineAssembler()
        self.used_bytes = 0
        self.dropped_bytes = 0
        self.dropped_lines = 0
        self.last_words = b""


class OutputCapture:
    """The output of one instance over all its processes' lives. Every method is called on the loop.

    `ring_lines` lines are kept in memory, and `file_bytes` × `files` bytes at `log_path` (None: no file). `on_line` is called with each
    line, for progress and ready markers. `last_output_monotonic` is when anything last came, a dot without an end of line included; None
    before. `load_progress` is the fraction (0 to 1) that the present process has printed last; None before. `dropped_bytes` and
    `dropped_lines` count what a flood lost, over the instance's life.
    """

    def __init__(
        self,
        instance: str,
        log_path: Path | None,
        *,
        ring_lines: int,
        file_bytes: int,
        files: int,
        clock: Clock,
        writer: LogWriter,
    ) -> None:
        self.instance = instance
        self.log_path = log_path
        self.on_line: Callable[[LogLine], None] | None = None
        self.last_output_monotonic: float | None = None
        self.load_progress: float | None = None
        self.dropped_bytes = 0
        self.dropped_lines = 0
        self._clock = clock
        self._writer = writer
        self._file = RotatingFile(log_path, file_bytes=file_bytes, files=files) if log_path is not None else None
        self._survivor: SurvivorLog | None = None
        self._limits = (file_bytes, files)
        self._ring: deque[LogLine] = deque()
        self._ring_lines = ring_lines
        self._ring_characters = 0
        # Apart from the ring: what stdout has to say at the end must not push the reason out.
        self._errors: deque[str] = deque(maxlen=STDERR_LINES)
        self._newest_id = 0
        self._run_began_after = 0
        self._sources: dict[int, _Source] = {}
        self._subscriptions: set[LineSubscription] = set()
        self._window: Timer | None = None
        self._load_pattern: re.Pattern[str] | None = None

    @property
    def write_error(self) -> str | None:
        """Why lines are not reaching the log file at present; None when they are. Serving goes on either way."""
        return self._file.error if self._file is not None else None

    @property
    def write_errors(self) -> int:
        """How many writes to the log file have failed."""
        return self._file.errors if self._file is not None else 0

    def begin_run(self, *, load_progress: str | None = None) -> None:
        """A new process is about to speak: `stderr_tail` forgets the last one, and what it left open is closed.

        `load_progress`: a regular expression whose first group is the loaded percentage in a line (`LaunchSpec.load_progress`).
        """
        for source in tuple(self._sources.values()):
            self._finish(source)
        self._survivor = None
        self._run_began_after = self._newest_id
        self._errors.clear()
        self._load_pattern = re.compile(load_progress) if load_progress else None
        self.load_progress = None

    def retune(self, *, ring_lines: int, file_bytes: int, files: int) -> None:
        """Take other limits; what is beyond them goes with the next line, the next rotation."""
        self._ring_lines = ring_lines
        self._limits = (file_bytes, files)
        if self._file is not None:
            self._file.retune(file_bytes=file_bytes, files=files)
        if self._survivor is not None:
            self._survivor.retune(file_bytes=file_bytes, files=files)

    def attach(self, descriptor: int, stream: Stream) -> None:
        """Read a pipe from now on; the descriptor is ours from here and closed at its end."""
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        source = self._sources[descriptor] = _Source(descriptor, stream)
        asyncio.get_running_loop().add_reader(descriptor, self._on_readable, source)

    def tail(self, count: int, stream: Stream | None = None) -> list[LogLine]:
        """The newest lines, oldest first, of one stream or both."""
        lines = [line for line in self._ring if stream is None or line.stream == stream]
        return lines[-count:] if count > 0 else []

    def stderr_tail(self, count: int = TAIL_LINES) -> tuple[str, ...]:
        """The last words of the present (or last) process, at most `STDERR_LINES`: its stderr, or its stdout when stderr said nothing."""
        spoken = (
            [line.message for line in self._ring if line.id > self._run_began_after]
            if not self._errors
            else self._errors
        )
        return tuple(spoken)[-count:]

    def subscribe(self) -> LineSubscription:
        """A new reader, from now on."""
        subscription = LineSubscription(self.unsubscribe)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: LineSubscription) -> None:
        """Forget a reader; see `LineSubscription.close`."""
        self._subscriptions.discard(subscription)

    def open_file_for_child(self) -> int:
        """A descriptor of the log file for a process that shall outlive us, and start to follow it; the caller closes it after the spawn.

        Raises OSError when the file cannot be made, ValueError when there is no log file.
        """
        if self.log_path is None:
            raise ValueError(
                f"instance {self.instance} has no log file, which a process that survives the supervisor must write to"
            )
        descriptor = open_log(self.log_path)
        self._survivor = SurvivorLog(self.log_path, *self._limits, offset=os.fstat(descriptor).st_size)
        return descriptor

    def follow_file(self) -> None:
        """Follow the log file of a process that outlived an earlier supervisor, from its last few kilobytes on."""
        if self.log_path is not None:
            self._survivor = SurvivorLog(self.log_path, *self._limits, offset=None)
            self.poll_file()

    def poll_file(self) -> None:
        """Take in what a followed process has appended since the last call, and keep its file under the cap; nothing when none is followed."""
        if self._survivor is None:
            return
        lines, lost_bytes = self._survivor.poll()
        self.dropped_bytes += lost_bytes
        if lines:
            self.last_output_monotonic = self._clock.monotonic()
            self._take_in("stdout", lines)

    def drain(self) -> None:
        """Take in what is left in the pipes, the last words after an exit included. Never waits, even if a grandchild holds a pipe open."""
        if self._window is not None:
            self._window.cancel()
            self._end_window()
        for source in tuple(self._sources.values()):
            drained = 0
            while drained < DRAIN_BYTES_MAX and (count := self._on_readable(source)):
                drained += count
            self._report_loss(source)
            self._take_in(source.stream, source.assembler.flush())
        self.poll_file()

    def close(self) -> None:
        """Drain, close every pipe and the file, end every subscription; idempotent."""
        self.drain()
        for source in tuple(self._sources.values()):
            self._finish(source)
        if self._window is not None:
            self._window.cancel()
            self._window = None
        if self._file is not None:
            self._writer.release(self._file)
        for subscription in tuple(self._subscriptions):
            subscription.close()

    def _on_readable(self, source: _Source) -> int:
        """One read; the bytes that there were."""
        over_budget = source.dropped_bytes > 0 or source.used_bytes >= BUDGET_BYTES
        try:
            data = os.read(source.descriptor, DROP_BYTES if over_budget else READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self._finish(source)
            return 0
        self.last_output_monotonic = self._clock.monotonic()
        if self._window is None:
            self._window = self._clock.call_later(BUDGET_WINDOW_SECONDS, self._end_window)
        if over_budget:
            self._drop(source, data)
        else:
            source.used_bytes += len(data)
            self._take_in(source.stream, source.assembler.feed(data))
        return len(data)

    def _drop(self, source: _Source, data: bytes) -> None:
        source.dropped_bytes += len(data)
        source.dropped_lines += data.count(b"\n")
        # A process that dies in the middle of its flood says why at the end of it.
        source.last_words = (
            (source.last_words + data)[-LAST_WORDS_BYTES:] if len(data) < LAST_WORDS_BYTES else data[-LAST_WORDS_BYTES:]
        )

    def _end_window(self) -> None:
        self._window = None
        for source in self._sources.values():
            source.used_bytes = 0
            self._report_loss(source)

    def _report_loss(self, source: _Source) -> None:
        """End a gap: the cut line before it, its size, and the newest whole lines of it."""
        if not source.dropped_bytes:
            return
        _, _, kept = source.last_words.partition(b"\n")
        lost_bytes = source.dropped_bytes - len(kept)
        lost_lines = max(0, source.dropped_lines - kept.count(b"\n"))
        source.dropped_bytes = source.dropped_lines = 0
        source.last_words = b""
        self.dropped_bytes += lost_bytes
        self.dropped_lines += lost_lines
        notice = f"… {lost_lines:,} lines / {lost_bytes:,} bytes dropped: more output than can be kept".encode()
        self._take_in(source.stream, [*source.assembler.flush(), notice, *source.assembler.feed(kept)])

    def _take_in(self, stream: Stream, lines: list[bytes]) -> None:
        if not lines:
            return
        now = self._clock.wall()
        stamp = int(now * MILLISECONDS)
        messages = [to_text(line) for line in lines]
        self._persist(now, stream, messages)
        for message in messages:
            self._newest_id += 1
            line = LogLine(self._newest_id, stream, guess_level(message), message, stamp)
            self._keep(line)
            self._note_progress(message)
            if self.on_line is not None:
                self.on_line(line)
            for subscription in tuple(self._subscriptions):
                subscription.offer(line)

    def _note_progress(self, message: str) -> None:
        match = self._load_pattern.search(message) if self._load_pattern is not None else None
        if match is not None:
            with contextlib.suppress(ValueError, IndexError):
                self.load_progress = min(1.0, max(0.0, float(match.group(1)) / PERCENT))

    def _keep(self, line: LogLine) -> None:
        self._ring.append(line)
        if line.stream == "stderr":
            self._errors.append(line.message)
        self._ring_characters += len(line.message)
        while len(self._ring) > self._ring_lines or self._ring_characters > RING_CHARACTERS_MAX:
            self._ring_characters -= len(self._ring.popleft().message)

    def _persist(self, now: float, stream: Stream, messages: list[str]) -> None:
        if self._file is None or self._survivor is not None:
            return
        head = f"{datetime.fromtimestamp(now, UTC).isoformat(timespec='milliseconds')} {stream} "
        text = "".join(f"{head}{message}\n" for message in messages)
        self._writer.write(self._file, text.encode("utf-8", "backslashreplace"))

    def _finish(self, source: _Source) -> None:
        if self._sources.pop(source.descriptor, None) is None:
            return
        asyncio.get_running_loop().remove_reader(source.descriptor)
        os.close(source.descriptor)
        self._report_loss(source)
        self._take_in(source.stream, source.assembler.flush())
