"""`llamavisor projects`: who pays."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisor.cli.account_options import (
    ConcurrencyOption,
    OtherConcurrencyOption,
    OtherRequestsOption,
    OtherTokensOption,
    ProjectArgument,
    RequestsOption,
    TokensOption,
)
from supervisor.cli.options import DataDirOption, JsonOption, UrlOption, ending

PROJECTS_ENDING = ending("llamavisor projects add shop", "llamavisor projects list")
LIST_ENDING = ending("llamavisor projects list --json | jq -r '.projects[].name'")
ADD_ENDING = ending(
    "llamavisor projects add shop",
    "llamavisor projects add shop --requests-per-minute 600 --concurrency 16  # all its keys together",
)
CHANGE_ENDING = ending(
    "llamavisor projects change shop --concurrency 32  # the other limits stay",
    "llamavisor projects change shop --requests-per-minute default  # as the configuration has it",
)
REMOVE_ENDING = ending("llamavisor projects remove shop  # once all its keys are revoked")

projects = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, epilog=PROJECTS_ENDING)


@projects.callback()
def projects_group() -> None:
    """Projects: who pays. Their keys prove it, their budgets bound it."""


@projects.command("list", epilog=LIST_ENDING)
def list_projects(json_output: JsonOption = False, url: UrlOption = None, data_dir: DataDirOption = None) -> None:
    """List the projects, with what each has used this month."""
    from supervisor.cli.books import show_projects
    from supervisor.cli.place import find_server

    show_projects(find_server(url, data_dir), as_json=json_output)


@projects.command("add", epilog=ADD_ENDING)
def add_project(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Lower-case letters, digits, dots, hyphens, underscores.")
    ],
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Add a project; its limits hold for all its keys together."""
    from supervisor.cli.books import add_project, limits
    from supervisor.cli.place import find_server

    wanted = limits(requests_per_minute, tokens_per_minute, concurrency)
    add_project(find_server(url, data_dir), {"name": name, "limits": wanted}, as_json=json_output)


@projects.command("change", epilog=CHANGE_ENDING)
def change_project(
    project: ProjectArgument,
    requests_per_minute: OtherRequestsOption = None,
    tokens_per_minute: OtherTokensOption = None,
    concurrency: OtherConcurrencyOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Change limits of a project, at once; those that are not named stay."""
    from supervisor.cli.books import change_project, limit_changes, some
    from supervisor.cli.place import find_server

    limits = limit_changes(requests_per_minute, tokens_per_minute, concurrency)
    wanted = some(limits, f"llamavisor projects change {project} --concurrency 4")
    change_project(find_server(url, data_dir), project, wanted, as_json=json_output)


@projects.command("remove", epilog=REMOVE_ENDING)
def remove_project(
    project: ProjectArgument,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Remove a project that has no valid key, and its budgets. What it used stays in the books."""
    from supervisor.cli.books import remove_project
    from supervisor.cli.place import find_server

    remove_project(find_server(url, data_dir), project, as_json=json_output)
