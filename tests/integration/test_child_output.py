"""What real processes say, and what it costs them (rows 34 to 37)."""

import os
import sys
import time

from supervisor.process.lines import LINE_BYTES_MAX
from tests.fixtures.nursery import GENEROUS_SECONDS, MISBEHAVING, Nursery, finished, until


def wait_for_zombie(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def test_row_34_a_flood_is_dropped_with_a_count_and_the_disk_has_a_cap(nursery: Nursery) -> None:
    """Row 34: 200 MB/s; what is kept is bounded, what is not is counted, and the last words come through."""
    notices: list[str] = []
    nursery.output.on_line = lambda line: notices.append(line.message) if "bytes dropped" in line.message else None
    child = nursery.misbehaving("--flood-mb-per-second", "200", "--flood-seconds", "1")
    await nursery.said("the flood is over")
    assert await child.terminate(5)
    assert notices
    assert nursery.output.dropped_lines > 0
    nursery.output.close()
    nursery.writer.close()
    assert sum(file.stat().st_size for file in (nursery.folder / "logs").iterdir()) <= 3 * 1_048_576


async def test_row_34_a_flood_does_not_block_the_child(nursery: Nursery) -> None:
    """Row 34: it writes 20 MB although nobody could keep them; each write returns (the figure is the benchmark's)."""
    child = nursery.python(
        "import os\nblock = (b'x' * 99 + b'\\n') * 1000\nfor _ in range(200): os.write(1, block)\nprint('written', flush=True)"
    )
    assert (await finished(child.exited)).code == 0
    assert nursery.lines()[-1] == "written"
    assert nursery.output.dropped_bytes > 10_000_000


async def test_last_words_are_had_before_the_exit_is_reported(nursery: Nursery) -> None:
    """More than one read of them is in the pipe when both the words and the end become known in the same turn of the loop."""
    code = "import os, sys\nos.write(2, (b'x' * 99 + b'\\n') * 9000)\nos.write(2, b'the last words\\n')"
    child = nursery.python(code)
    # The loop stands still meanwhile: the child must fit its 900 kB into the pipe.
    wait_for_zombie(child.pid)
    await finished(child.exited)
    assert nursery.tails[0][-1] == "the last words"


async def test_row_35_a_child_nobody_listens_to_is_not_blocked(nursery: Nursery) -> None:
    """Row 35: more than a pipe holds is written while no test code reads; a reader on the loop is all it takes."""
    child = nursery.python("import sys\nfor _ in range(3_000): sys.stderr.write('x' * 1_000 + '\\n')")
    assert (await finished(child.exited)).code == 0


async def test_row_36_a_long_line_without_end_is_chunked(nursery: Nursery) -> None:
    """Row 36."""
    nursery.misbehaving("--long-line-bytes", "70000")
    await until(lambda: sum(line.count("y") for line in nursery.lines()) > 60_000, "most of the line, before its end")
    assert all(len(line) <= LINE_BYTES_MAX for line in nursery.lines())
    await nursery.port()


async def test_row_37_binary_output_is_kept_and_escaped(nursery: Nursery) -> None:
    """Row 37."""
    nursery.misbehaving("--binary-output")
    await nursery.said("red nul")
    line = next(line for line in nursery.lines() if line.startswith("red nul"))
    assert line == "red nul:\\x00 bad:\\xff\\xfe bell:\\x07 html:<script>alert(1)</script> bidi:\\u202e."


async def test_dots_are_signs_of_life(nursery: Nursery) -> None:
    nursery.misbehaving("--dots-without-newline", "10", "--bind-delay-seconds", "1000")
    before = time.monotonic()
    await until(lambda: nursery.output.last_output_monotonic is not None, "a sign of life")
    assert nursery.lines() == []
    assert before - GENEROUS_SECONDS < (nursery.output.last_output_monotonic or 0) <= time.monotonic()


async def test_the_load_progress_that_is_printed_is_read(nursery: Nursery) -> None:
    nursery.spawn(
        sys.executable,
        str(MISBEHAVING),
        "--load-progress",
        "--load-seconds",
        "1",
        load_progress=r"load_progress: (\d+\.\d+) %",
    )
    seen: list[float] = []
    nursery.output.on_line = lambda _line: seen.append(nursery.output.load_progress or 0)
    await nursery.said("model loaded")
    assert nursery.output.load_progress == 1.0
    assert seen == sorted(seen)
    assert any(0 < fraction < 1 for fraction in seen)


async def test_lines_of_a_run_and_its_successor_do_not_mix(nursery: Nursery) -> None:
    first = nursery.misbehaving("--exit-at-once", "--stderr-text", "the first")
    await finished(first.exited)
    await first.terminate(5)
    second = nursery.misbehaving("--exit-at-once", "--stderr-text", "the second")
    await finished(second.exited)
    assert nursery.output.stderr_tail() == ("the second",)
    assert [line.id for line in nursery.output.tail(10)] == [1, 2]
