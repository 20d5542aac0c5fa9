"""Our own child processes: spawned from the loop's thread, noticed by pidfd, their zombies held until nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from supervisor.launch import LaunchSpec
from supervisor.process import reaper
from supervisor.process.attached import ForeignProcess, ReattachedProcess, attach_foreign, reattach
from supervisor.process.exitwatch import watch_exit
from supervisor.process.family import Family
from supervisor.process.handle import ProcessHandle, WatchedProcess
from supervisor.process.ladder import StopLadder
from supervisor.process.output import OutputCapture
from supervisor.process.posix import Identity
from supervisor.process.procfs import IS_LINUX
from supervisor.process.spawning import CannotSpawnError, Command, Tags, cause_of, prepare
from supervisor.process.states import ExitStatus

__all__ = [
    "CannotSpawnError",
    "ChildProcess",
    "ForeignProcess",
    "ProcessHandle",
    "ReattachedProcess",
    "Tags",
    "attach_foreign",
    "reattach",
    "spawn",
]

PRIVATE_UMASK = 0o077
STDIN, STDOUT, STDERR = 0, 1, 2
RESETTABLE_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class ChildProcess(WatchedProcess):
    """A child that we spawned; leader of its own session and process group.

    Its zombie is kept until `terminate` has swept up or `close` is called: while it stays, nobody else can get its number, so the group can
    be signalled safely although its leader is dead.
    """

    is_own_child = True

    def __init__(
        self,
        family: Family,
        spec: LaunchSpec,
        output: OutputCapture,
        on_exit: Callable[[ExitStatus], None],
        stdin_writer: int | None,
    ) -> None:
        super().__init__(family, started_wall=time.time(), stop_signal=spec.stop_signal)
        self._output = output
        self._on_exit = on_exit
        self._stdin_writer = stdin_writer
        reaper.register(family.main.pid)
        self._watch = watch_exit(family.main, self._ended)

    def close(self) -> None:
        """See `ProcessHandle.close`."""
        super().close()
        self._let_go()
        if self._stdin_writer is not None:
            os.close(self._stdin_writer)
            self._stdin_writer = None

    def _ended(self) -> None:
        status = exit_status(self.pid)
        self._resolve(status)
        self._output.drain()
        self._on_exit(status)

    async def _end(self, ladder: StopLadder, grace_seconds: float) -> bool:
        all_gone = self._left_nothing() or await super()._end(ladder, grace_seconds)
        # The exit must be reported before its zombie, which holds the status, is let go.
        if all_gone and self._watch is not None:
            await asyncio.wait([self.exited])
            self._let_go()
        return all_gone

    def _left_nothing(self) -> bool:
        """Whether the main process has ended and nothing of it is left: the usual case, told without a search."""
        with contextlib.suppress(OSError):
            return self.exited.done() and not self.exited.cancelled() and reaper.is_without_orphans()
        return False

    def _let_go(self) -> None:
        """Collect the zombie; one that is not dead yet is left to the reaper of orphans."""
        reaper.release(self.pid)
        reaper.collect(self.pid)


def exit_status(pid: int) -> ExitStatus:
    """How a child that has ended did so; its zombie stays (where `waitid` exists)."""
    if not IS_LINUX:
        return _collected_status(pid)
    result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if result is None:
        return ExitStatus()
    if result.si_code == os.CLD_EXITED:
        return ExitStatus(code=result.si_status)
    return ExitStatus(signal=result.si_status)


def _collected_status(pid: int) -> ExitStatus:
    _, status = os.waitpid(pid, os.WNOHANG)
    if os.WIFSIGNALED(status):
        return ExitStatus(signal=os.WTERMSIG(status))
    return ExitStatus(code=os.WEXITSTATUS(status))


@dataclass(slots=True)
class _Ends:
    """The descriptors of a spawn: what the child gets, and our ends of its pipes."""

    child: dict[int, int]
    stdin_writer: int | None = None
    readers: tuple[int, ...] = ()


def spawn(
    spec: LaunchSpec,
    tags: Tags,
    output: OutputCapture,
    *,
    survive: bool,
    on_exit: Callable[[ExitStatus], None],
) -> ChildProcess:
    """Execute a launch; `on_exit` is called on the loop when the main process has ended, after `exited` is resolved and the pipes are drained.

    A child that shall `survive` us writes to the log file and reads nothing; any other dies with us: by the parent-death signal where
    `setpriv` is installed, and its stdin ends. That signal comes when the *thread* that spawned ends, hence: only on the thread of the
    running loop (RuntimeError elsewhere). Raises CannotSpawnError; nothing is left behind then.
    """
    asyncio.get_running_loop()
    command = prepare(spec, tags, die_with_us=not survive)
    output.begin_run(load_progress=spec.load_progress)
    with contextlib.ExitStack() as on_failure:
        try:
            with contextlib.ExitStack() as always:
                ends = _survivor_ends(output, always) if survive else _piped_ends(always, on_failure)
                pid = _execute(command, ends)
            process = _watch(pid, spec, tags, output, on_exit, ends)
        except OSError as failure:
            raise CannotSpawnError(cause_of(failure, spec.argv[0])) from failure
        on_failure.pop_all()
    for stream, reader in zip(("stdout", "stderr"), ends.readers, strict=False):
        output.attach(reader, "stdout" if stream == "stdout" else "stderr")
    return process


def _watch(
    pid: int,
    spec: LaunchSpec,
    tags: Tags,
    output: OutputCapture,
    on_exit: Callable[[ExitStatus], None],
    ends: _Ends,
) -> ChildProcess:
    """Watch a child just born; when we cannot, it must not live unwatched."""
    try:
        identity = Identity.of(pid)
        if identity is None:
            raise ProcessLookupError(f"process {pid} vanished although nobody waited for it")
        return ChildProcess(Family(identity, tags.marks), spec, output, on_exit, ends.stdin_writer)
    except OSError:
        # Nobody has waited for it, so the number is still its own.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        reaper.release(pid)
        raise


def _piped_ends(always: contextlib.ExitStack, on_failure: contextlib.ExitStack) -> _Ends:
    stdin_reader, stdin_writer = _pipe(always, on_failure, child_reads=True)
    stdout_writer, stdout_reader = _pipe(always, on_failure, child_reads=False)
    stderr_writer, stderr_reader = _pipe(always, on_failure, child_reads=False)
    return _Ends(
        {STDIN: stdin_reader, STDOUT: stdout_writer, STDERR: stderr_writer},
        stdin_writer,
        (stdout_reader, stderr_reader),
    )


def _pipe(always: contextlib.ExitStack, on_failure: contextlib.ExitStack, *, child_reads: bool) -> tuple[int, int]:
    """A pipe as (child's end, our end): the child's is closed here in any case, ours when the spawn fails."""
    reader, writer = map(_above_standard, os.pipe())
    theirs, ours = (reader, writer) if child_reads else (writer, reader)
    always.callback(os.close, theirs)
    on_failure.callback(os.close, ours)
    return theirs, ours


def _above_standard(descriptor: int) -> int:
    """Where one of 0 to 2 is closed (a daemon), a pipe may get its number, and the next redirection would overwrite it."""
    if descriptor > STDERR:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
    finally:
        os.close(descriptor)


def _survivor_ends(output: OutputCapture, always: contextlib.ExitStack) -> _Ends:
    log = _above_standard(output.open_file_for_child())
    always.callback(os.close, log)
    nothing = _above_standard(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    always.callback(os.close, nothing)
    return _Ends({STDIN: nothing, STDOUT: log, STDERR: log})


def _execute(command: Command, ends: _Ends) -> int:
    redirections = [(os.POSIX_SPAWN_DUP2, descriptor, target) for target, descriptor in ends.child.items()]
    with _private_umask():
        return os.posix_spawn(
            command.path,
            command.argv,
            command.environment,
            file_actions=[*redirections, *_closings()],
            setsid=True,
            setsigmask=(),
            setsigdef=RESETTABLE_SIGNALS,
        )


def _closings() -> list[tuple[int, int]]:
    """What we inherited without close-on-exec (from a shell, from a library) must not reach the child: a socket held there blocks its port."""
    inherited = (int(name) for name in os.listdir("/dev/fd"))
    return [
        (os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in inherited if descriptor > STDERR and _leaks(descriptor)
    ]


def _leaks(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


@contextlib.contextmanager
def _private_umask() -> Iterator[None]:
    """posix_spawn cannot set it; for the blink of the spawn it is ours too."""
    before = os.umask(PRIVATE_UMASK)
    try:
        yield
    finally:
        os.umask(before)
