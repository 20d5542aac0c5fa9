"""Log files: private, capped, and no obstacle when the disk is (row 33)."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.process import logfile
from supervisor.process.logfile import LogWriter, RotatingFile
from supervisor.process.survivorlog import LOOK_BACK_BYTES, POLL_BYTES, SurvivorLog

LINE = b"a line of a log that is forty bytes long\n"


def disk_use(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_files_and_folder_are_private(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "logs" / "a.log", file_bytes=1_000, files=2)
    file.write(LINE)
    file.close()
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "logs" / "a.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("files", [1, 2, 4])
def test_disk_use_has_a_hard_cap_and_the_newest_lines_stay(tmp_path: Path, files: int) -> None:
    file = RotatingFile(tmp_path / "a.log", file_bytes=1_000, files=files)
    for number in range(500):
        file.write(LINE + b"%d\n" % number)
        assert disk_use(tmp_path) <= 1_000 * files
    file.close()
    assert len(list(tmp_path.iterdir())) == files
    assert (tmp_path / "a.log").read_bytes().endswith(b"\n499\n")


def test_a_smaller_cap_takes_effect_on_what_is_there(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a.log", file_bytes=1_000, files=5)
    for _ in range(500):
        file.write(LINE)
    file.retune(file_bytes=500, files=2)
    for _ in range(50):
        file.write(LINE)
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert (tmp_path / "a.log").stat().st_size <= 500


def test_a_block_larger_than_a_file_is_capped_too(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a.log", file_bytes=1_000, files=3)
    file.write(LINE * 1_000)
    file.close()
    assert disk_use(tmp_path) <= 3_000


def test_a_symbolic_link_in_the_place_of_the_log_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"untouched")
    (tmp_path / "a.log").symlink_to(target)
    file = RotatingFile(tmp_path / "a.log", file_bytes=1_000, files=2)
    file.write(LINE)
    assert file.error is not None
    assert target.read_bytes() == b"untouched"


def test_a_full_disk_is_flagged_and_leaves_no_half_line(tmp_path: Path) -> None:
    """A limit on file size stands for the disk: the write that does not fit is cut short by the kernel."""
    code = f"""
import resource
from pathlib import Path
from supervisor.process.logfile import RotatingFile
resource.setrlimit(resource.RLIMIT_FSIZE, (100, {resource.RLIM_INFINITY}))
file = RotatingFile(Path({str(tmp_path / "a.log")!r}), file_bytes=10_000, files=2)
for _ in range(5):
    file.write({LINE!r})
assert file.error and file.errors == 3, (file.error, file.errors)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, {resource.RLIM_INFINITY}))
file.write({LINE!r})
assert file.error is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    assert (tmp_path / "a.log").read_bytes() == LINE * 3


def test_the_writer_writes_everything_before_it_ends(tmp_path: Path) -> None:
    writer, file = LogWriter(), RotatingFile(tmp_path / "a.log", file_bytes=1_000_000, files=2)
    assert all(writer.write(file, LINE) for _ in range(1_000))
    writer.release(file)
    writer.close()
    assert (tmp_path / "a.log").read_bytes() == LINE * 1_000
    assert not writer.write(file, LINE), "a closed writer takes nothing"


def test_what_waits_for_a_slow_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named pipe that nobody reads is a disk that hangs."""
    import os

    monkeypatch.setattr(logfile, "CLOSE_DEADLINE_SECONDS", 0.05)
    os.mkfifo(tmp_path / "a.log")
    reader = os.open(tmp_path / "a.log", os.O_RDONLY | os.O_NONBLOCK)
    writer, file = LogWriter(), RotatingFile(tmp_path / "a.log", file_bytes=1 << 30, files=2)
    block = b"x" * 1_000_000
    taken = [writer.write(file, block) for _ in range(20)]
    assert taken[0]
    assert not taken[-1]
    assert writer.dropped_bytes > 0
    writer.close()
    os.close(reader)


class TestSurvivorLog:
    """Of a process that writes its file itself."""

    def test_new_lines_are_read_once(self, tmp_path: Path) -> None:
        path = tmp_path / "a.log"
        path.write_bytes(b"old\n")
        log = SurvivorLog(path, 10_000, 2, offset=4)
        with path.open("ab") as child:
            child.write(b"new\nhalf")
            child.flush()
            assert log.poll() == ([b"new"], 0)
            child.write(b" a line\n")
            child.flush()
            assert log.poll() == ([b"half a line"], 0)
            assert log.poll() == ([], 0)

    def test_a_survivor_is_taken_back_with_its_last_words(self, tmp_path: Path) -> None:
        path = tmp_path / "a.log"
        path.write_bytes(b"x" * LOOK_BACK_BYTES + b"\nlast words\n")
        lines, _ = SurvivorLog(path, 10_000_000, 2, offset=None).poll()
        assert lines[-1] == b"last words"

    def test_the_file_is_capped_while_the_process_holds_it_open(self, tmp_path: Path) -> None:
        path = tmp_path / "a.log"
        log = SurvivorLog(path, 1_000, 3, offset=0)
        with path.open("ab") as child:
            for _ in range(50):
                child.write(LINE * 10)
                child.flush()
                log.poll()
                assert disk_use(tmp_path) <= 3 * (1_000 + 10 * len(LINE))
            child.write(b"still heard\n")
            child.flush()
            assert log.poll()[0][-1] == b"still heard"

    def test_a_flood_is_skipped_with_a_count(self, tmp_path: Path) -> None:
        path = tmp_path / "a.log"
        log = SurvivorLog(path, 1 << 30, 2, offset=0)
        path.write_bytes(b"y" * (POLL_BYTES + 500) + b"\nend\n")
        lines, lost_bytes = log.poll()
        assert lost_bytes == 505
        assert lines[-1] == b"end"

    def test_no_file_is_no_lines(self, tmp_path: Path) -> None:
        assert SurvivorLog(tmp_path / "none.log", 1_000, 2, offset=None).poll() == ([], 0)
