"""What Typer says of a wrong command line, in our words: what is wrong, and what helps."""

from __future__ import annotations

import re
from typing import Any

import typer

from supervisor.cli.outcome import UsageProblemError

# Of these the library tells nothing but its sentence.
_NO_COMMAND = re.compile(r"No such command '([^']*)'")
_SUGGESTED = re.compile(r"Did you mean '([^']*)'")
_TOO_MUCH = re.compile(r"unexpected extra arguments? \((.*)\)|unexpected extra argument\(s\) \((.*)\)", re.DOTALL)
_WANTED = re.compile(r"Input should be (.*?)(?:, unable to .*|\.)?\Z", re.DOTALL)
_NOTHING_CHOSEN = "Missing command."
_QUOTED = re.compile(r"'([^']*)'")


def usage_problem(error: typer.TyperException) -> UsageProblemError:
    """The same error as one of ours; `param` is the option or argument at fault, as it is written."""
    known: Any = error
    context, param = getattr(known, "ctx", None), getattr(known, "param", None)
    command = "The command" if context is None else f"`{context.command_path}`"
    written = getattr(known, "option_name", None) if param is None else _written(param)
    message, remedy = _words(known, command, written)
    helps = "Its `--help`" if context is None else f"`{context.command_path} --help`"
    return UsageProblemError(message, param=written, remedy=remedy or f"{helps} says how it is used.")


def _words(known: Any, command: str, written: str | None) -> tuple[str, str | None]:
    """What is wrong, and what helps, if that is more than a look at the help."""
    said = known.format_message()
    if hasattr(known, "possibilities"):
        return f"{command} has no option `{written}`.", _meant(known.possibilities or [])
    if hasattr(known, "param_type"):
        return f"{command} needs `{written}`.", None
    if hasattr(known, "param"):
        return _wrong_value(f"`{written}`", known.message), None
    if (missing := _NO_COMMAND.search(said)) is not None:
        return f"{command} has no command `{missing[1]}`.", _meant(_SUGGESTED.findall(said))
    if (extra := _TOO_MUCH.search(said)) is not None:
        return f"{command} takes no more arguments, and got `{extra[1] or extra[2]}`.", None
    if said == _NOTHING_CHOSEN:
        return f"{command} needs a command.", None
    return _quoted(said), None


def _written(param: Any) -> str:
    """An argument as the help writes it, an option by its long name."""
    is_argument = param.param_type_name == "argument"
    return str(param.metavar if is_argument else max(param.opts, key=len))


def _wrong_value(what: str, said: str) -> str:
    wanted = _WANTED.match(said)
    if wanted is not None:
        return f"{what} must be {_quoted(wanted[1])}."
    return f"{what} is wrong: {_quoted(said.removeprefix('Value error, ').rstrip('.'))}."


def _quoted(said: str) -> str:
    return _QUOTED.sub(r"`\1`", said)


def _meant(names: list[str]) -> str | None:
    return f"Did you mean `{names[0]}`?" if names else None
