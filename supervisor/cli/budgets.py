"""`llamavisor budgets` and `usage`: how much may be used, and how much was."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from supervisor.cli.account_options import KeyOption, Period, PeriodOption, ProjectArgument
from supervisor.cli.completion import complete_project
from supervisor.cli.options import DataDirOption, JsonOption, UrlOption, ending
from supervisor.cli.outcome import UsageProblemError

BUDGETS_ENDING = ending(
    "llamavisor budgets set shop --period month --money 20", "llamavisor budgets list  # and how they stand"
)
LIST_ENDING = ending("llamavisor budgets list", "llamavisor budgets list --json")
SET_ENDING = ending(
    "llamavisor budgets set shop --period month --money 20.50",
    "llamavisor budgets set shop --period day --tokens 1000000 --key 3f9c2a  # of one key of the project",
)
REMOVE_ENDING = ending("llamavisor budgets remove shop --period month --unit money")
USAGE_ENDING = ending(
    "llamavisor usage  # this month, of the project that the key belongs to",
    "llamavisor usage --project shop --period day",
)


class Unit(StrEnum):
    """What a budget counts."""

    MONEY = "money"
    TOKENS = "tokens"


budgets = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, epilog=BUDGETS_ENDING)


@budgets.callback()
def budgets_group() -> None:
    """Budgets: how much a project, or one key of it, may use in a day, a week or a month."""


@budgets.command("list", epilog=LIST_ENDING)
def list_budgets(json_output: JsonOption = False, url: UrlOption = None, data_dir: DataDirOption = None) -> None:
    """List the budgets, with what is spent, held back for running requests, and left."""
    from supervisor.cli.books import show_budgets
    from supervisor.cli.place import find_server

    show_budgets(find_server(url, data_dir), as_json=json_output)


@budgets.command("set", epilog=SET_ENDING)
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


@budgets.command("remove", epilog=REMOVE_ENDING)
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
