"""`llamavisor keys`: who may call."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from supervisor.cli.account_options import (
    ConcurrencyOption,
    KeyArgument,
    OtherConcurrencyOption,
    OtherRequestsOption,
    OtherTokensOption,
    ProjectOption,
    RequestsOption,
    TokensOption,
)
from supervisor.cli.completion import complete_project
from supervisor.cli.options import FLAG, DataDirOption, JsonOption, UrlOption, ending

MOST_DAYS = 36_500

KEYS_ENDING = ending(
    "llamavisor keys create --project shop --label website", "llamavisor keys list", "llamavisor keys revoke 3f9c2a"
)
LIST_ENDING = ending("llamavisor keys list  # revoked ones too", "llamavisor keys list --project shop --json")
CREATE_ENDING = ending(
    "llamavisor keys create  # may call models, of the project `default`",
    "llamavisor keys create --project shop --label website --days 90 --requests-per-minute 60",
    "llamavisor keys create --scope read --scope inference > key.txt  # only the key is in the file",
)
CHANGE_ENDING = ending(
    "llamavisor keys change 3f9c2a --days 90  # expires 90 days from now; the rest stays",
    'llamavisor keys change 3f9c2a --label "old website" --concurrency 2',
    "llamavisor keys change 3f9c2a --no-expiry --requests-per-minute default  # as the configuration has it",
)
REVOKE_ENDING = ending("llamavisor keys revoke 3f9c2a  # the id, as `keys list` shows it")


class KeyScope(StrEnum):
    """What a key may do."""

    INFERENCE = "inference"
    READ = "read"
    ADMIN = "admin"


keys = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, epilog=KEYS_ENDING)


@keys.callback()
def keys_group() -> None:
    """Keys: who may call. Only a digest of each is kept."""


@keys.command("list", epilog=LIST_ENDING)
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


@keys.command("create", epilog=CREATE_ENDING)
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
        typer.Option("--days", metavar="N", min=1, max=MOST_DAYS, help="Expires after so many days; left out: never."),
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


@keys.command("change", epilog=CHANGE_ENDING)
def change_key(
    key: KeyArgument,
    label: Annotated[str | None, typer.Option("--label", metavar="TEXT", help="What people call it.")] = None,
    days: Annotated[
        int | None,
        typer.Option("--days", metavar="N", min=1, max=MOST_DAYS, help="Expires so many days from now."),
    ] = None,
    no_expiry: Annotated[bool, typer.Option("--no-expiry", metavar=FLAG, help="Does not expire.")] = False,
    requests_per_minute: OtherRequestsOption = None,
    tokens_per_minute: OtherTokensOption = None,
    concurrency: OtherConcurrencyOption = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Change the label, the end or the limits of a key, at once; what is not named stays, and so does the key itself."""
    from supervisor.cli.books import change_key, key_changes, limit_changes, some
    from supervisor.cli.place import find_server

    limits = limit_changes(requests_per_minute, tokens_per_minute, concurrency)
    wanted = key_changes(label, limits, days=days, no_expiry=no_expiry)
    named = some(wanted, f"llamavisor keys change {key} --days 90")
    change_key(find_server(url, data_dir), key, named, as_json=json_output)


@keys.command("revoke", epilog=REVOKE_ENDING)
def revoke_key(
    key: KeyArgument,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Revoke a key: from now on it opens nothing. Its record stays, for what it used."""
    from supervisor.cli.books import revoke_key
    from supervisor.cli.place import find_server

    revoke_key(find_server(url, data_dir), key, as_json=json_output)
