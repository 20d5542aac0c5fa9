"""The capture over real pipes, without processes: bounded, never blocking, never silent about a loss (rows 34 to 37)."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from supervisor.clock import SystemClock
from supervisor.process.linefeed import SUBSCRIPTION_LINES
from supervisor.process.output import BUDGET_BYTES, LogLine, LogWriter, OutputCapture, Stream
from tests.fixtures.nursery import until


class Speaker:
    """A capture and the write ends of pipes into it."""

    def __init__(self, folder: Path) -> None:
        self.writer = LogWriter()
        self.capture = OutputCapture(
            "spoken",
            folder / "spoken.log",
            ring_lines=100,
            file_bytes=10_000,
            files=2,
            clock=SystemClock(),
            writer=self.writer,
        )
        self._open: list[int] = []

    def pipe(self, stream: Stream = "stdout") -> int:
        reader, writer = os.pipe()
        self.capture.attach(reader, stream)
        os.set_blocking(writer, False)
        self._open.append(writer)
        return writer

    def hang_up(self, writer: int) -> None:
        self._open.remove(writer)
        os.close(writer)

    def messages(self) -> list[str]:
        return [line.message for line in self.capture.tail(1_000)]

    def close(self) -> None:
        for writer in tuple(self._open):
            self.hang_up(writer)
        self.capture.close()
        self.writer.close()


@pytest_asyncio.fixture
async def speaker(tmp_path: Path) -> AsyncIterator[Speaker]:
    speaker = Speaker(tmp_path)
    yield speaker
    speaker.close()


async def test_lines_of_both_streams_are_numbered_and_stamped(speaker: Speaker) -> None:
    out, err = speaker.pipe("stdout"), speaker.pipe("stderr")
    os.write(out, b"hello\n")
    await until(lambda: len(speaker.messages()) == 1, "the first line")
    os.write(err, b"error: sad\n")
    await until(lambda: len(speaker.messages()) == 2, "the second line")
    first, second = speaker.capture.tail(10)
    assert (first.id, first.stream, first.level, first.message) == (1, "stdout", "info", "hello")
    assert (second.id, second.stream, second.level, second.message) == (2, "stderr", "error", "error: sad")
    assert second.timestamp_ms >= first.timestamp_ms > 1_600_000_000_000
    assert speaker.capture.tail(10, "stderr") == [second]
    assert speaker.capture.tail(1) == [second]
    assert speaker.capture.tail(0) == []


async def test_the_ring_is_bounded(speaker: Speaker) -> None:
    os.write(speaker.pipe(), b"".join(b"%d\n" % number for number in range(500)))
    await until(lambda: "499" in speaker.messages(), "the last line")
    assert len(speaker.messages()) == 100


async def test_dots_without_an_end_of_line_are_signs_of_life(speaker: Speaker) -> None:
    out = speaker.pipe()
    assert speaker.capture.last_output_monotonic is None
    os.write(out, b".")
    await until(lambda: speaker.capture.last_output_monotonic is not None, "a sign of life")
    assert speaker.messages() == []
    speaker.capture.drain()
    assert speaker.messages() == ["."]


async def test_draining_never_waits_though_somebody_holds_the_pipe(speaker: Speaker) -> None:
    out = speaker.pipe("stderr")
    os.write(out, b"last\nwords")
    speaker.capture.drain()
    assert speaker.messages() == ["last", "words"]
    os.write(out, b"not yet over\n")
    await until(lambda: "not yet over" in speaker.messages(), "what came after the drain")


async def test_the_tail_is_of_stderr_and_of_this_run_only(speaker: Speaker) -> None:
    out, err = speaker.pipe("stdout"), speaker.pipe("stderr")
    os.write(out, b"chatter\n")
    os.write(err, b"why it died\n")
    speaker.capture.drain()
    assert speaker.capture.stderr_tail() == ("why it died",)
    speaker.capture.begin_run()
    assert speaker.capture.stderr_tail() == ()
    os.write(speaker.pipe("stdout"), b"only stdout\n")
    speaker.capture.drain()
    assert speaker.capture.stderr_tail() == ("only stdout",)


async def test_the_reason_on_stderr_outlives_a_flood_on_stdout(speaker: Speaker) -> None:
    out, err = speaker.pipe("stdout"), speaker.pipe("stderr")
    os.write(err, b"out of memory\n")
    await until(lambda: speaker.capture.stderr_tail(), "the reason")
    os.write(out, b"chatter\n" * 5_000)
    await until(lambda: len(speaker.capture.tail(200, "stdout")) == 100, "a ring full of chatter")
    assert speaker.capture.stderr_tail() == ("out of memory",)


async def test_a_new_run_closes_what_the_last_one_left_open(speaker: Speaker) -> None:
    out = speaker.pipe()
    speaker.capture.begin_run()
    with pytest.raises(BrokenPipeError):
        os.write(out, b"from the grave\n")


async def test_a_flood_is_dropped_with_a_count_and_the_last_words_stay(speaker: Speaker) -> None:
    out, heard = speaker.pipe(), list[str]()
    speaker.capture.on_line = lambda line: heard.append(line.message)
    line, written = b"x" * 99 + b"\n", 0
    while written < 40 * BUDGET_BYTES:
        try:
            written += os.write(out, line * 100)
        except BlockingIOError:
            await asyncio.sleep(0)
    os.set_blocking(out, True)
    os.write(out, b"\nfatal: the last words\n")
    speaker.hang_up(out)
    await until(lambda: "fatal: the last words" in heard, "the last words")
    capture = speaker.capture
    assert any("bytes dropped" in message and message.startswith("…") for message in heard)
    assert 0 < capture.dropped_bytes < written
    assert capture.dropped_bytes == pytest.approx(100 * capture.dropped_lines, rel=0.02), (
        "a gap may begin or end within a line"
    )


async def test_a_talkative_but_sane_process_loses_nothing(speaker: Speaker) -> None:
    out = speaker.pipe()
    for number in range(200):
        os.write(out, b"%d %s\n" % (number, b"y" * 500))
        await asyncio.sleep(0.001)
    await until(lambda: any(message.startswith("199 ") for message in speaker.messages()), "the last line")
    assert speaker.capture.dropped_bytes == 0


async def test_subscribers_get_every_line_and_those_that_lag_know_it(speaker: Speaker) -> None:
    quick, slow = speaker.capture.subscribe(), speaker.capture.subscribe()
    received: list[LogLine] = []

    async def follow() -> None:
        async for line in quick:
            received.append(line)  # noqa: PERF401 - what came before the end must be seen while it goes on

    task = asyncio.create_task(follow(), name="follow")
    out = speaker.pipe()
    total = SUBSCRIPTION_LINES + 50
    for number in range(total):
        os.write(out, b"%d\n" % number)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(received) == total, "every line")
    quick.close()
    await task
    assert [line.message for line in received] == [str(number) for number in range(total)]
    assert slow.dropped == 50
    slow.close()
    assert len([line async for line in slow]) == SUBSCRIPTION_LINES


async def test_each_line_is_handed_to_the_listener_and_progress_is_read(speaker: Speaker) -> None:
    heard: list[str] = []
    speaker.capture.on_line = lambda line: heard.append(line.message)
    speaker.capture.begin_run(load_progress=r"loaded: (\d+(?:\.\d+)?) %")
    out = speaker.pipe("stderr")
    assert speaker.capture.load_progress is None
    os.write(out, b"loaded: 12.5 %\nother\n")
    await until(lambda: heard == ["loaded: 12.5 %", "other"], "both lines")
    assert speaker.capture.load_progress == 0.125
    speaker.capture.begin_run()
    assert speaker.capture.load_progress is None


async def test_lines_reach_the_file_with_time_and_stream(speaker: Speaker, tmp_path: Path) -> None:
    os.write(speaker.pipe("stderr"), b"caf\xc3\xa9 \x00\n")
    await until(lambda: len(speaker.messages()) == 1, "the line")
    speaker.close()
    stamp, stream, message = (tmp_path / "spoken.log").read_text().rstrip("\n").split(" ", 2)
    assert stamp.endswith("+00:00")
    assert (stream, message) == ("stderr", "café \\x00")


async def test_a_file_that_cannot_be_written_is_flagged_and_lines_are_kept(tmp_path: Path) -> None:
    (tmp_path / "spoken.log").mkdir()
    speaker = Speaker(tmp_path)
    os.write(speaker.pipe(), b"heard all the same\n")
    await until(lambda: speaker.capture.write_error is not None, "the flag")
    assert speaker.messages() == ["heard all the same"]
    assert speaker.capture.write_errors == 1
    assert "spoken.log" in str(speaker.capture.write_error)
    speaker.close()


async def test_closing_is_idempotent_and_leaves_no_descriptor(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/fd"))
    speaker = Speaker(tmp_path)
    os.write(speaker.pipe(), b"line\n")
    os.write(speaker.pipe("stderr"), b"line\n")
    await until(lambda: len(speaker.messages()) == 2, "both lines")
    speaker.close()
    speaker.capture.close()
    assert set(os.listdir("/dev/fd")) == before


async def test_a_process_that_survives_needs_a_file() -> None:
    writer = LogWriter()
    capture = OutputCapture("x", None, ring_lines=5, file_bytes=1, files=1, clock=SystemClock(), writer=writer)
    with pytest.raises(ValueError, match="no log file"):
        capture.open_file_for_child()
    capture.follow_file()
    capture.close()
    writer.close()
