"""`llamavisor config`: check, show, schema, import, path."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from supervisor.cli.options import FLAG, ConfigOption, JsonOption, ending
from supervisor.cli.outcome import ExitCode, UsageProblemError

if TYPE_CHECKING:
    from supervisor.config import ConfigError, LoadedSettings

CONFIG_ENDING = ending(
    "llamavisor config check my.yaml  # every problem with its line and remedy",
    "llamavisor config show --set  # what is in force that is not a default, and what set it",
    "llamavisor config import old-settings.json --output config.json",
)
CHECK_ENDING = ending(
    "llamavisor config check  # the file that `serve` would read", "llamavisor config check my.toml --json"
)
SHOW_ENDING = ending("llamavisor config show", "llamavisor config show --json | jq .instances")
SCHEMA_ENDING = ending("llamavisor config schema > config.schema.json")
IMPORT_ENDING = ending(
    "llamavisor config import old.json  # print the new configuration",
    "llamavisor config import old.json --output config.json",
)
PATH_ENDING = ending("$EDITOR $(llamavisor config path)")
OUTPUT_SUFFIX = ".json"

app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True, epilog=CONFIG_ENDING)


@app.callback()
def configuration() -> None:
    """Look at the configuration: check it, show what is in force, print its schema, import an old one."""


@app.command(epilog=CHECK_ENDING)
def check(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The file; left out: as --config.")] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Check a configuration as `serve` would read it, variables of the environment included; all problems are told at once."""
    from supervisor.config import ConfigError, check_servable, load_settings

    if file is not None and config is not None:
        raise UsageProblemError("FILE and --config are both given.", remedy="Keep one of them.")
    try:
        loaded = load_settings(file or config, environ=os.environ)
        refusal = check_servable(loaded.settings)
    except ConfigError as error:
        loaded, refusal = None, error
    _tell_check(loaded, refusal, as_json=json_output)
    if refusal is not None:
        raise typer.Exit(ExitCode.FAILED)


def _tell_check(loaded: LoadedSettings | None, refusal: ConfigError | None, *, as_json: bool) -> None:
    from supervisor.cli.output import complain, print_json, stdout

    source = str(loaded.source_path) if loaded and loaded.source_path else refusal.source if refusal else None
    if as_json:
        problems = [problem.as_dict() for problem in refusal.problems] if refusal is not None else []
        code = refusal.code if refusal is not None else None
        print_json({"ok": refusal is None, "file": source, "code": code, "problems": problems})
    elif refusal is not None:
        complain(refusal)
    else:
        where = source or "There is no file: the defaults"
        names = ", ".join(loaded.settings.instances) if loaded is not None else ""
        stdout().print(f"{where}: ok. Instances: {names or 'none'}.", soft_wrap=True)


@app.command(epilog=SHOW_ENDING)
def show(
    config: ConfigOption = None,
    only_set: Annotated[bool, typer.Option("--set", metavar=FLAG, help="Leave out what is at its default.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Show the settings in force and what set each of them; keys and other secrets are masked."""
    from rich.text import Text

    from supervisor.cli.origins import explained_settings
    from supervisor.cli.output import print_json, printable, stdout
    from supervisor.config import load_settings, redacted

    loaded = load_settings(config, environ=os.environ)
    if json_output and not only_set:
        print_json(redacted(loaded.settings))
        return
    rows = [row for row in explained_settings(loaded, os.environ) if row.origin is not None or not only_set]
    if json_output:
        print_json([{"key": row.key, "value": row.value, "origin": row.origin} for row in rows])
        return
    for row in rows:
        value = printable(json.dumps(row.value, ensure_ascii=False))
        origin = f"  # {row.origin or 'default'}"
        stdout().print(Text.assemble((row.key, "bold"), f" = {value}", (origin, "dim")), soft_wrap=True)


@app.command(epilog=SCHEMA_ENDING)
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors and checkers."""
    from supervisor.cli.output import print_json
    from supervisor.config import settings_schema

    print_json(settings_schema())


@app.command(name="import", epilog=IMPORT_ENDING)
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The flat settings of the earlier system.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this .json file; left out: print.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", metavar=FLAG, help="Replace the file if it is there.")] = False,
) -> None:
    """Turn the flat settings of an earlier system into a configuration of today; what was guessed is said."""
    from supervisor.cli.output import print_json, stdout, warn
    from supervisor.config import import_legacy
    from supervisor.config.loading import read_document

    if output is not None and output.suffix.lower() != OUTPUT_SUFFIX:
        raise UsageProblemError(f"{output} is no {OUTPUT_SUFFIX} file.", remedy="The import writes JSON; name it so.")
    imported = import_legacy(read_document(file.absolute()).tree)
    for warning in imported.warnings:
        warn(warning)
    if output is None:
        print_json(imported.config)
    else:
        _write(output, imported.config, replace=force)
        stdout().print(f"Written: {output}. Check it with `llamavisor config check {output}`.", soft_wrap=True)


def _write(path: Path, tree: dict[str, Any], *, replace: bool) -> None:
    """Write whole or not at all; a file that is there is only replaced when that was asked for."""
    from supervisor.data_folder import replace_file
    from supervisor.errors import LlamavisorError

    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    try:
        if replace:
            replace_file(path, text)
            return
        finished = path.with_name(f".{path.name}.new")
        replace_file(finished, text)
        try:
            # Unlike a check beforehand, a link fails if the file has come into being meanwhile.
            path.hardlink_to(finished)
        finally:
            finished.unlink()
    except FileExistsError:
        message = f"{path} is there already."
        raise LlamavisorError(message, code="file_exists", remedy="Name another, or replace it with --force.") from None
    except OSError as error:
        raise LlamavisorError(f"{path} cannot be written: {error.strerror or error}.", code="not_written") from error


@app.command(epilog=PATH_ENDING)
def path(config: ConfigOption = None) -> None:
    """Print the path of the file that is read; exit code 1 when there is none."""
    from supervisor.config import find_config
    from supervisor.errors import LlamavisorError

    found = find_config(config, environ=os.environ)
    if found is None:
        message = "There is no configuration file: the defaults are in force."
        raise LlamavisorError(
            message, code="config_not_found", remedy="Create ./config.json, or name one with --config."
        )
    typer.echo(str(found))
