"""How a command ends: exit codes, and the errors that only the command line knows."""

from __future__ import annotations

from enum import IntEnum

from supervisor.errors import LlamavisorError


class ExitCode(IntEnum):
    """What a shell sees; written in the help of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3
    INTERRUPTED = 130


EXIT_CODES_TEXT = "Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 no server answers."


class UsageProblemError(LlamavisorError):
    """The command was not given what it needs; exit code 2."""

    code, status = "usage", 400


class NoServerError(LlamavisorError):
    """Nothing that is a Llamavisor answers at the address; exit code 3."""

    code, status = "no_server", 503


class ConnectionLostError(NoServerError):
    """The server was there, and went away in the middle of an answer; exit code 3."""

    code = "connection_lost"


class RefusedError(LlamavisorError):
    """The server answered with an error; exit code 1. `status` is the HTTP status, `details` what the server added for programs."""

    def __init__(self, message: str, *, status: int, code: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message, code=code, remedy=remedy)
        self.status = status


def exit_code_of(error: LlamavisorError) -> ExitCode:
    """The exit code that tells of `error`."""
    if isinstance(error, NoServerError):
        return ExitCode.NO_SERVER
    return ExitCode.USAGE if isinstance(error, UsageProblemError) else ExitCode.FAILED
