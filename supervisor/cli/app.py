"""The command line as a whole: which commands there are, and how the program ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.main

from supervisor.cli import (
    budgets,
    chat,
    completion,
    config,
    control,
    doctor,
    keys,
    logs,
    models,
    projects,
    requests,
    serve,
)
from supervisor.cli.misuse import usage_problem
from supervisor.cli.options import FLAG, ending
from supervisor.cli.outcome import ExitCode, exit_code_of
from supervisor.errors import LlamavisorError

PROGRAM = "llamavisor"
RUNNING = "The running server"
ACCOUNTS = "Who uses it, and how much"
MACHINE = "This machine"
USING = "Using it"

ROOT_ENDING = ending(
    "llamavisor serve  # start; then open http://127.0.0.1:3000",
    "llamavisor status  # what is running, live",
    'llamavisor chat "What is the capital of France?"  # ask once',
    "llamavisor doctor  # what this machine lacks",
)

app = typer.Typer(
    name=PROGRAM,
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback(epilog=ROOT_ENDING)
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar=FLAG, callback=_show_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Llamavisor keeps LLM inference servers alive, shows their live state, and puts one OpenAI-compatible door in front of them."""


app.command(epilog=serve.SERVE_ENDING, rich_help_panel=USING)(serve.serve)
app.command(epilog=chat.CHAT_ENDING, rich_help_panel=USING)(chat.chat)
app.command(epilog=models.MODELS_ENDING, rich_help_panel=USING)(models.models)
app.command(epilog=control.STATUS_ENDING, rich_help_panel=RUNNING)(control.status)
app.command(epilog=control.START_ENDING, rich_help_panel=RUNNING)(control.start)
app.command(epilog=control.STOP_ENDING, rich_help_panel=RUNNING)(control.stop)
app.command(epilog=control.RESTART_ENDING, rich_help_panel=RUNNING)(control.restart)
app.command(epilog=logs.LOGS_ENDING, rich_help_panel=RUNNING)(logs.logs)
app.command(name="reload", epilog=control.RELOAD_ENDING, rich_help_panel=RUNNING)(control.reload_configuration)
app.command(epilog=control.SHUTDOWN_ENDING, rich_help_panel=RUNNING)(control.shutdown)
app.add_typer(projects.projects, name="projects", rich_help_panel=ACCOUNTS)
app.add_typer(keys.keys, name="keys", rich_help_panel=ACCOUNTS)
app.add_typer(budgets.budgets, name="budgets", rich_help_panel=ACCOUNTS)
app.command(epilog=budgets.USAGE_ENDING, rich_help_panel=ACCOUNTS)(budgets.usage)
app.add_typer(requests.requests, name="requests", rich_help_panel=ACCOUNTS)
app.add_typer(config.app, name="config", rich_help_panel=MACHINE)
app.command(epilog=doctor.DOCTOR_ENDING, rich_help_panel=MACHINE)(doctor.doctor)
app.command(epilog=completion.COMPLETION_ENDING, rich_help_panel=MACHINE)(completion.completion)


def command() -> Any:
    """The whole command line: call it to run it; `commands` and `params` tell what it holds."""
    group: Any = typer.main.get_command(app)
    for param in group.params:
        # The command `completion` prints the script; what writes into a person's dotfiles is not advertised.
        param.hidden = param.hidden or param.name in {"install_completion", "show_completion"}
    return group


def run(arguments: Sequence[str] | None) -> int:
    """Run one command line and give its exit code; expected errors end with a message, never a traceback."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        ended = command()(words, prog_name=PROGRAM, standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FAILED if end.code else ExitCode.OK
    except typer.Abort:
        # The input ended where an answer was wanted.
        return ExitCode.FAILED
    except typer.TyperException as error:
        # Of a group without a command, the library has printed the help, and has nothing more to say.
        return _fail(usage_problem(error), words) if error.format_message() else ExitCode.USAGE
    except LlamavisorError as error:
        return _fail(error, words)
    return ended if isinstance(ended, int) else ExitCode.OK


def _fail(error: LlamavisorError, words: Sequence[str]) -> ExitCode:
    from supervisor.cli.output import complain

    options = words[: words.index("--")] if "--" in words else words
    complain(error, as_json="--json" in options)
    return exit_code_of(error)
