"""`llamavisor projects`, `keys`, `budgets`, `usage`: who uses the running server, how much, and how much they may."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from supervisor.cli.completion import complete_key, complete_project
from supervisor.cli.options import DataDirOption, JsonOption, UrlOption, ending
from supervisor.cli.outcome import UsageProblemError

PROJECTS_ENDING = ending("llamavisor projects add shop", "llamavisor projects list")
PROJECTS_LIST_ENDING = ending("llamavisor projects list --json | jq -r '.projects[].name'")
PROJECTS_ADD_ENDING = ending(
    "llamavisor projects add shop",
    "llamavisor projects add shop --requests-per-minute 600 --concurrency 16  # all its keys together",
)
KEYS_ENDING = ending(
    "llamavisor keys create --project shop --label website", "llamavisor keys list", "llamavisor keys revoke 3f9c2a"
)
KEYS_LIST_ENDING = ending("llamavisor keys list  # revoked ones too", "llamavisor keys list --project shop --json")
KEYS_CREATE_ENDING = ending(
    "llamavisor keys create  # may call models, of the project `default`",
    "llamavisor keys create --project shop --label website --days 90 --requests-per-minute 60",
    "llamavisor keys create --scope read --scope inference > key.txt  # only the key is in the file",
)
KEYS_REVOKE_ENDING = ending("llamavisor keys revoke 3f9c2a  # the id, as `keys list` shows it")
BUDGETS_ENDING = ending(
    "llamavisor budgets set shop --period month --money 20", "llamavisor budgets list  # and how they stand"
)
BUDGETS_LIST_ENDING = ending("llamavisor budgets list", "llamavisor budgets list --json")
BUDGETS_SET_ENDING = ending(
    "llamavisor budgets set shop --period month --money 20.50",
    "llamavisor budgets set shop --period day --tokens 1000000 --key 3f9c2a  # of one key of the project",
)
BUDGETS_REMOVE_ENDING = ending("llamavisor budgets remove shop --period month --unit money")
USAGE_ENDING = ending(
    "llamavisor usage  # this month, of the project that the key belongs to",
    "llamavisor usage --project shop --period day",
)


class Period(StrEnum):
    """The stretches of the calendar that budgets and totals are of."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Unit(StrEnum):
    """What a budget counts."""

    MONEY = "money"
    TOKENS = "tokens"


class KeyScope(StrEnum):
    """What a key may do."""

    INFERENCE = "inference"
    READ = "read"
    ADMIN = "admin"


projects = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, epilog=PROJECTS_ENDING)
keys = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, epilog=KEYS_ENDING)
budgets = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, epilog=BUDGETS_ENDING)

ProjectArgument = Annotated[
    str, typer.Argument(metavar="PROJECT", help="Name of the project.", autocompletion=complete_project)
]
ProjectOption = Annotated[
    str | None,
    typer.Option("--project", metavar="NAME", help="Only of this project.", autocompletion=complete_project),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="ID",
        help="Only for this key of the project; left out: the whole.",
        autocompletion=complete_key,
    ),
]
PeriodOption = Annotated[
    Period, typer.Option("--period", metavar="PERIOD", help="day, week or month, by the calendar in UTC.")
]
RequestsOption = Annotated[
    int | None,
    typer.Option("--requests-per-minute", metavar="N", min=1, help="Most requests a minute; left out: the default."),
]
TokensOption = Annotated[
    int | None,
    typer.Option("--tokens-per-minute", metavar="N", min=1, help="Most tokens a minute; left out: the default."),
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option("--concurrency", metavar="N", min=1, help="Most requests at a time; left out: the default."),
]


@projects.callback()
def projects_group() -> None:
    """Projects: who pays. Their keys prove it, their budgets bound it."""


@projects.command("list", epilog=PROJECTS_LIST_ENDING)
def list_projects(json_output: JsonOption = False, url: UrlOption = None, data_dir: DataDirOption = None) -> None:
    """List the projects, with what each has used this month."""
    from supervisor.cli.books import show_projects
    from supervisor.cli.place import find_server

    show_projects(find_server(url, data_dir), as_json=json_output)


@projects.command("add", epilog=PROJECTS_ADD_ENDING)
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


@keys.callback()
def keys_group() -> None:
    """Keys: who may call. Only a digest of each is kept."""


@keys.command("list", epilog=KEYS_LIST_ENDING)
def list_keys(
    project: ProjectOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """List the keys, revoked and expired ones too; never their secrets."""
    from supervisor.cli.books import show_keys
    from supervisor.cli.place import find_server

    show_keys(find_server(url, data_dir), project, as_json=json_output)


@keys.command("create", epilog=KEYS_CREATE_ENDING)
def create_key(
    project: Annotated[
        str,
        typer.Option("--project", metavar="NAME", help="The project that pays.", autocompletion=complete_project),
    ] = "default",
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="What people call it.")] = "",
    scope: Annotated[
        list[KeyScope] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="inference (call models; the default), read (see everything), admin; several times.",
        ),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option("--days", metavar="N", min=1, max=36_500, help="Expires after so many days; left out: never."),
    ] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Make a key, and print it: this once, for only its digest is kept."""
    from supervisor.cli.books import create_key, expiry, limits
    from supervisor.cli.place import find_server

    wanted = {
        "project": project,
        "label": label,
        "scopes": [each.value for each in scope or (KeyScope.INFERENCE,)],
        "limits": limits(requests_per_minute, tokens_per_minute, concurrency),
        **expiry(days),
    }
    create_key(find_server(url, data_dir), wanted, as_json=json_output)


@keys.command("revoke", epilog=KEYS_REVOKE_ENDING)
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of the key.", autocompletion=complete_key)],
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Revoke a key: from now on it opens nothing. Its record stays, for what it used."""
    from supervisor.cli.books import revoke_key
    from supervisor.cli.place import find_server

    revoke_key(find_server(url, data_dir), key, as_json=json_output)


@budgets.callback()
def budgets_group() -> None:
    """Budgets: how much a project, or one key of it, may use in a day, a week or a month."""


@budgets.command("list", epilog=BUDGETS_LIST_ENDING)
def list_budgets(json_output: JsonOption = False, url: UrlOption = None, data_dir: DataDirOption = None) -> None:
    """List the budgets, with what is spent, held back for running requests, and left."""
    from supervisor.cli.books import show_budgets
    from supervisor.cli.place import find_server

    show_budgets(find_server(url, data_dir), as_json=json_output)


@budgets.command("set", epilog=BUDGETS_SET_ENDING)
def set_budget(
    project: ProjectArgument,
    period: PeriodOption,
    money: Annotated[
        str | None, typer.Option("--money", metavar="AMOUNT", help="In the configuration's `accounting.currency`.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", metavar="N", min=0, help="Tokens of prompts and answers.")
    ] = None,
    key: KeyOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Set a budget in money or in tokens, over the one of the same project, key, period and unit. Zero allows nothing at all."""
    from supervisor.cli.books import micros, set_budget
    from supervisor.cli.place import find_server

    if (money is None) == (tokens is None):
        raise UsageProblemError("One of --money and --tokens must be given.", param="money")
    unit, amount = ("tokens", tokens) if money is None else ("micros", micros(money))
    wanted = {"project": project, "period": period.value, "unit": unit, "amount": amount}
    set_budget(find_server(url, data_dir), wanted | ({} if key is None else {"key_id": key}), as_json=json_output)


@budgets.command("remove", epilog=BUDGETS_REMOVE_ENDING)
def remove_budget(
    project: ProjectArgument,
    period: PeriodOption,
    unit: Annotated[Unit, typer.Option("--unit", metavar="UNIT", help="money or tokens.")],
    key: KeyOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Remove a budget. What was spent stays in the books."""
    from supervisor.cli.books import remove_budget
    from supervisor.cli.place import find_server

    counted = "micros" if unit is Unit.MONEY else "tokens"
    wanted = {"project": project, "period": period.value, "unit": counted}
    remove_budget(find_server(url, data_dir), wanted | ({} if key is None else {"key_id": key}), as_json=json_output)


def usage(
    period: PeriodOption = Period.MONTH,
    project: Annotated[
        str | None,
        typer.Option(
            "--project", metavar="NAME", help="The project; left out: that of the key.", autocompletion=complete_project
        ),
    ] = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show what a project used in the present day, week or month: tokens and cost by model, and what is left of its budgets, the tightest first."""
    from supervisor.cli.books import show_usage
    from supervisor.cli.place import find_server

    show_usage(find_server(url, data_dir), period.value, project, as_json=json_output)
