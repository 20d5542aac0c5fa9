"""What the commands on projects, keys, budgets and usage have in common: their arguments and options. Light, as `options`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from supervisor.cli.completion import complete_key, complete_project


class Period(StrEnum):
    """The stretches of the calendar that budgets and totals are of."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


ProjectArgument = Annotated[
    str, typer.Argument(metavar="PROJECT", help="Name of the project.", autocompletion=complete_project)
]
KeyArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the key.", autocompletion=complete_key)]
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
OtherRequestsOption = Annotated[
    str | None,
    typer.Option("--requests-per-minute", metavar="N|default", help="Most requests a minute; left out: as it was."),
]
OtherTokensOption = Annotated[
    str | None,
    typer.Option("--tokens-per-minute", metavar="N|default", help="Most tokens a minute; left out: as it was."),
]
OtherConcurrencyOption = Annotated[
    str | None,
    typer.Option("--concurrency", metavar="N|default", help="Most requests at a time; left out: as it was."),
]
