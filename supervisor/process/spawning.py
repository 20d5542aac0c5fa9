"""What is executed for a launch, and with what around it: the binary checked, wrappers, environment. Nothing is started here."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from supervisor.errors import LlamavisorError
from supervisor.launch import LaunchSpec
from supervisor.process.states import Cause, Reason

RUN_ID = "LLAMAVISOR_RUN_ID"
INSTANCE = "LLAMAVISOR_INSTANCE"
SPEC = "LLAMAVISOR_SPEC"
ADDRESS = "LLAMAVISOR_ADDRESS"
# Ours alone: a child that writes to the notify socket would speak to systemd in our name, and our settings may hold our keys.
PRIVATE_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
PRIVATE_PREFIX = "LLAMAVISOR_"
SHEBANG = b"#!"
SHEBANG_BYTES = 256


class CannotSpawnError(LlamavisorError):
    """No process came to be. `cause` says why, and whether trying again makes sense."""

    code, status = "spawn_failed", 503

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message, code=str(cause.reason), remedy=cause.remedy)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Tags:
    """What a child is known by, for ever: put into its environment, so that the truth about survivors is in the process table.

    `run_id` names the data folder, `instance` the instance, `spec_digest` what was launched.
    """

    run_id: str
    instance: str
    spec_digest: str

    @property
    def marks(self) -> tuple[str, ...]:
        """The environment entries that every process of the instance carries."""
        return (f"{RUN_ID}={self.run_id}", f"{INSTANCE}={self.instance}")


@dataclass(frozen=True, slots=True)
class Command:
    """Ready to execute: `path` is absolute, `argv[0]` included."""

    path: str
    argv: list[str]
    environment: dict[str, str]


def prepare(spec: LaunchSpec, tags: Tags, *, die_with_us: bool) -> Command:
    """The command of a launch. Raises CannotSpawnError when it cannot work, so that a missing binary is no crash loop."""
    environment = child_environment(spec, tags)
    executable = find_executable(spec, environment)
    argv = [executable, *spec.argv[1:]]
    if spec.working_directory is not None:
        argv = _in_folder(spec.working_directory, argv)
    setpriv = _tool("setpriv") if die_with_us else None
    if setpriv is not None:
        # posix_spawn cannot set the parent-death signal, and a function run between fork and exec would mean to fork.
        argv = [setpriv, "--pdeathsig", "KILL", "--", *argv]
    return Command(argv[0], argv, environment)


def child_environment(spec: LaunchSpec, tags: Tags) -> dict[str, str]:
    """Our environment without what is ours alone, with the launch's own, with the tags."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in PRIVATE_VARIABLES and not name.startswith(PRIVATE_PREFIX)
    }
    own = {RUN_ID: tags.run_id, INSTANCE: tags.instance, SPEC: tags.spec_digest, ADDRESS: str(spec.address)}
    return {**inherited, **spec.env, **own}


def find_executable(spec: LaunchSpec, environment: dict[str, str]) -> str:
    """The absolute path of a launch's binary, there and executable. Raises CannotSpawnError (`missing_binary`, `not_executable`)."""
    name = spec.argv[0]
    if "/" not in name:
        found = shutil.which(name, path=environment.get("PATH", os.defpath))
        if found is None:
            raise _missing(
                f"{name} is not on the PATH", f"Install it, or configure the full path of {name} as `engine.binary`."
            )
        return found
    path = (spec.working_directory or Path()) / name
    if not path.exists():
        raise _missing(f"{path} does not exist", "Correct `engine.binary`, or build or install the engine there.")
    if path.is_dir() or not os.access(path, os.X_OK):
        message = f"{path} is a folder" if path.is_dir() else f"{path} is not executable"
        raise CannotSpawnError(
            Cause(Reason.NOT_EXECUTABLE, message, remedy=f"Name a program, or run: chmod +x {path}", permanent=True)
        )
    _check_interpreter(path)
    return os.path.abspath(path)


def _check_interpreter(path: Path) -> None:
    """A script whose interpreter is gone fails with the words "no such file", about a file that is there."""
    try:
        with path.open("rb") as file:
            head = file.read(SHEBANG_BYTES)
    except OSError:
        return
    words = head.splitlines()[0][len(SHEBANG) :].split() if head.startswith(SHEBANG) else []
    if words and not os.path.exists(words[0]):
        raise _missing(f"{path} needs {os.fsdecode(words[0])}, which does not exist", "Install that interpreter.")


def _missing(message: str, remedy: str) -> CannotSpawnError:
    return CannotSpawnError(Cause(Reason.MISSING_BINARY, message, remedy=remedy, permanent=True))


def _in_folder(folder: Path, argv: list[str]) -> list[str]:
    """posix_spawn cannot change the folder, and ours belongs to every thread: `env` does it on the way."""
    tool = _tool("env")
    if not folder.is_dir():
        problem, remedy = f"the working directory {folder} does not exist", "Make it, or correct `working_directory`."
    elif tool is None or "=" in argv[0]:
        # `env` would take it for a variable.
        problem, remedy = f"{argv[0]} cannot be started in a folder of its own", "Leave out `working_directory`."
    else:
        return [tool, "-C", str(folder), "--", *argv]
    raise CannotSpawnError(Cause(Reason.SPAWN_FAILED, problem, remedy=remedy, permanent=True))


@cache
def _tool(name: str) -> str | None:
    return shutil.which(name)


def cause_of(failure: OSError, what: str) -> Cause:
    """Why the kernel would not spawn, in words. Only what the next try may find otherwise is not permanent."""
    reason, permanent, remedy = _SPAWN_FAILURES.get(failure.errno or 0, (Reason.SPAWN_FAILED, False, None))
    return Cause(reason, f"cannot start {what}: {failure.strerror}", remedy=remedy, permanent=permanent)


_SPAWN_FAILURES: dict[int, tuple[Reason, bool, str | None]] = {
    errno.ENOENT: (Reason.MISSING_BINARY, True, "Correct `engine.binary`, or install the engine."),
    errno.EACCES: (
        Reason.NOT_EXECUTABLE,
        True,
        "Give it the permission to execute, on a file system mounted without `noexec`.",
    ),
    errno.ENOEXEC: (
        Reason.NOT_EXECUTABLE,
        True,
        "It is not a program for this machine: install the build for this architecture.",
    ),
    errno.E2BIG: (Reason.BAD_FLAGS, True, "Its command line and environment are too long."),
    errno.EAGAIN: (
        Reason.SPAWN_FAILED,
        False,
        "The limit on processes is reached: see `ulimit -u`, or TasksMax of the service.",
    ),
    errno.EMFILE: (Reason.SPAWN_FAILED, False, "This process is out of file descriptors: raise `ulimit -n`."),
    errno.ENFILE: (Reason.SPAWN_FAILED, False, "The machine is out of file descriptors."),
    errno.ENOMEM: (Reason.SPAWN_FAILED, False, "The machine is out of memory."),
}
