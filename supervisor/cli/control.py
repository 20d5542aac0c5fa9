"""Commands that look after the running server: status, start, stop, restart, reload, shutdown."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisor.cli.completion import complete_instance
from supervisor.cli.options import FLAG, DataDirOption, JsonOption, UrlOption, ending

STATUS_ENDING = ending(
    "llamavisor status  # a live table until Ctrl-C; into a pipe, once",
    "llamavisor status --json  # the whole picture for a program",
)
START_ENDING = ending(
    "llamavisor start chat  # and wait until it is ready",
    "llamavisor start chat --no-wait  # only ask for it",
)
STOP_ENDING = ending(
    "llamavisor stop chat  # and wait until its processes are gone",
    "llamavisor stop chat --kill  # end an adopted server too, instead of letting go of it",
)
RESTART_ENDING = ending("llamavisor restart chat --timeout 120  # give up waiting after two minutes")
RELOAD_ENDING = ending("llamavisor reload  # after an edit of config.json: what did not change keeps running")
SHUTDOWN_ENDING = ending(
    "llamavisor shutdown  # running answers may finish first",
    "llamavisor shutdown --all  # also the instances that survive the supervisor, and what it left behind",
)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the instance.", autocompletion=complete_instance)
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", metavar=FLAG, help="Wait for the outcome.")]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=0, help="Longest wait; left out: as long as it takes."),
]


def status(
    once: Annotated[
        bool, typer.Option("--once", metavar=FLAG, help="Print the table once, also on a terminal.")
    ] = False,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show every instance, live: state, model, process, uptime, retries, and why it is not ready."""
    from supervisor.cli.place import find_server
    from supervisor.cli.watching import show_status

    show_status(find_server(url, data_dir), once=once, as_json=json_output)


def start(
    name: NameArgument,
    wait: WaitOption = True,
    timeout: TimeoutOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Start an instance, and wait until it is ready or has failed."""
    from supervisor.cli.place import find_server
    from supervisor.cli.steering import Wish, steer

    wish = Wish("start", name, wait=wait, timeout_seconds=timeout)
    steer(find_server(url, data_dir), wish, as_json=json_output)


def stop(
    name: NameArgument,
    kill: Annotated[
        bool, typer.Option("--kill", metavar=FLAG, help="End an adopted server too, instead of letting go of it.")
    ] = False,
    wait: WaitOption = True,
    timeout: TimeoutOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Stop an instance: it gets a moment to finish, then every process of it is ended."""
    from supervisor.cli.place import find_server
    from supervisor.cli.steering import Wish, steer

    wish = Wish("stop", name, wait=wait, timeout_seconds=timeout, kill=kill)
    steer(find_server(url, data_dir), wish, as_json=json_output)


def restart(
    name: NameArgument,
    wait: WaitOption = True,
    timeout: TimeoutOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Stop an instance and start it again, as one request."""
    from supervisor.cli.place import find_server
    from supervisor.cli.steering import Wish, steer

    wish = Wish("restart", name, wait=wait, timeout_seconds=timeout)
    steer(find_server(url, data_dir), wish, as_json=json_output)


def reload_configuration(
    json_output: JsonOption = False, url: UrlOption = None, data_dir: DataDirOption = None
) -> None:
    """Have the server read its configuration again, and apply it by difference.

    Instances whose settings did not change keep running. A bad file is refused as a whole.
    """
    from supervisor.cli.place import find_server
    from supervisor.cli.steering import reload_server

    reload_server(find_server(url, data_dir), as_json=json_output)


def shutdown(
    everything: Annotated[
        bool,
        typer.Option("--all", metavar=FLAG, help="Also end what survives the supervisor, and what it has left behind."),
    ] = False,
    wait: WaitOption = True,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Shut the server down: running answers may finish, then the engines are stopped.

    With --all and no server running, the processes that it left behind on the data folder are found and ended.
    """
    from supervisor.cli.shutdown import shut_down

    shut_down(url, data_dir, everything=everything, wait=wait)
