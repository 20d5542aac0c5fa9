"""`llamavisor requests`: those that were let in, those that are on their way, the receipt of one, and how to end one."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisor.cli.account_options import ProjectOption
from supervisor.cli.completion import complete_running
from supervisor.cli.options import DataDirOption, JsonOption, UrlOption, ending

REQUESTS_ENDING = ending(
    "llamavisor requests list  # the newest",
    "llamavisor requests running",
    "llamavisor requests show req_3f9c2a…",
    "llamavisor requests cancel req_3f9c2a…",
)
LIST_ENDING = ending(
    "llamavisor requests list  # the newest",
    "llamavisor requests list --project shop --outcome engine_died --limit 100",
    "llamavisor requests list --json | jq '.requests[].cost.micros'",
)
RUNNING_ENDING = ending(
    "llamavisor requests running  # who waits, who is served, and how many tokens came",
    "watch -n 1 llamavisor requests running",
)
SHOW_ENDING = ending(
    "llamavisor requests show req_3f9c2a…  # as `x-llamavisor-request-id` of its answer tells",
    "llamavisor requests show my-own-id  # what the client sent as X-Request-Id: the newest of that name",
)
CANCEL_ENDING = ending("llamavisor requests cancel req_3f9c2a…  # the id, as `requests running` shows it")

requests = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, epilog=REQUESTS_ENDING)


@requests.callback()
def requests_group() -> None:
    """Requests: who paid, what for, how each ended, what it used; and those that are on their way."""


@requests.command("list", epilog=LIST_ENDING)
def list_requests(
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=500, help="So many of the newest.")
    ] = 20,
    project: ProjectOption = None,
    outcome: Annotated[
        str | None, typer.Option("--outcome", metavar="WORD", help="Only those that ended so: ok, client_gone, cut, …")
    ] = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """List the requests that were let in, newest first: who paid, what for, how each ended, what it used."""
    from supervisor.cli.place import find_server
    from supervisor.cli.receipts import show_requests

    wanted = {"limit": limit, "project": project, "outcome": outcome}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    show_requests(find_server(url, data_dir), chosen, as_json=json_output)


@requests.command("running", epilog=RUNNING_ENDING)
def running_requests(json_output: JsonOption = False, url: UrlOption = None, data_dir: DataDirOption = None) -> None:
    """List the requests that are on their way, oldest first: waiting (and where in the line), at the engine, or streaming."""
    from supervisor.cli.place import find_server
    from supervisor.cli.receipts import show_running

    show_running(find_server(url, data_dir), as_json=json_output)


@requests.command("show", epilog=SHOW_ENDING)
def show_request(
    request: Annotated[str, typer.Argument(metavar="ID", help="The request's id, or the client's own.")],
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show the receipt of a request: tokens and where the count comes from, cost, energy, route, timings."""
    from supervisor.cli.place import find_server
    from supervisor.cli.receipts import show_receipt

    show_receipt(find_server(url, data_dir), request, as_json=json_output)


@requests.command("cancel", epilog=CANCEL_ENDING)
def cancel_request(
    request: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a running request.", autocompletion=complete_running)
    ],
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """End a request that is on its way, at the engine too. Its client is told so; what it used is booked."""
    from supervisor.cli.place import find_server
    from supervisor.cli.receipts import cancel_request

    cancel_request(find_server(url, data_dir), request, as_json=json_output)
