"""Processes of a benchmark: started here, looked at through /proc, ended here by their id."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")
PATIENCE_SECONDS = 60.0
END_GRACE_SECONDS = 15.0
LOG_LINES_SHOWN = 20


class Processes:
    """Starts programs; leaving the context ends every one that still runs, last first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._started):
            end(process)
        if error is not None:
            self._show_logs()

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        logs_output: bool = False,
    ) -> subprocess.Popen[str]:
        """Start a program whose standard input and output are pipes to us; what it says on standard error goes to `NAME.log`.

        `logs_output`: what it says on standard output goes there too, for nobody would read it.
        """
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.PIPE,
                stdout=log if logs_output else subprocess.PIPE,
                stderr=log,
                env={**clean_environment(), **(env or {})},
                cwd=cwd or ROOT,
                text=True,
                bufsize=1,
            )
        self._started.append(process)
        return process

    def module(self, name: str, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start one of our own helper modules with the present Python."""
        return self.start(name.rpartition(".")[2], [sys.executable, "-m", name, *arguments])

    def _show_logs(self) -> None:
        # The folder is a temporary one: what went wrong is not to be read later.
        for log in sorted(self.folder.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            print("\n".join([f"-- {log.name}", *lines]), file=sys.stderr)


def end(process: subprocess.Popen[str]) -> None:
    """Ask a program to end, see to it that it has."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def clean_environment() -> dict[str, str]:
    """Our environment without settings of Llamavisor, which would be measured instead of the benchmark's own.

    Programs keep their compiled modules, as installed ones do: else each start would compile all of them again, for seconds.
    """
    left_out = ("LLAMAVISOR_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


def tell(process: subprocess.Popen[str], message: object) -> None:
    """Send one line of JSON to a helper."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> Any:
    """The next line of JSON of a helper. RuntimeError when it has ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with {process.wait()} before it answered")
    return json.loads(line)


def wait_until(
    look: Callable[[], T | None],
    what: str,
    *,
    pause_seconds: float = 0.01,
    patience_seconds: float = PATIENCE_SECONDS,
) -> T:
    """Look until there is something to see; RuntimeError when there is not in time."""
    deadline = time.monotonic() + patience_seconds
    while (seen := look()) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {patience_seconds:g} s for {what}")
        time.sleep(pause_seconds)
    return seen


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, user and system."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def rss_bytes(pid: int) -> int:
    """Memory of a process that is resident."""
    return int(psutil.Process(pid).memory_info().rss)


def raise_descriptor_limit() -> int:
    """As many file descriptors as this process may have; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
