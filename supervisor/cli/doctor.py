"""`llamavisor doctor`: looks at the machine and the configuration, and says what to mend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from supervisor.cli.options import ConfigOption, DataDirOption, JsonOption, ending
from supervisor.cli.outcome import ExitCode

if TYPE_CHECKING:
    from supervisor.cli.findings import Finding

DOCTOR_ENDING = ending(
    "llamavisor doctor  # before the first start, or when something is odd",
    "llamavisor doctor --config my.yaml --json | jq '.findings[] | select(.level != \"ok\")'",
)
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(config: ConfigOption = None, data_dir: DataDirOption = None, json_output: JsonOption = False) -> None:
    """Look at the machine and the configuration and say what to mend; exit code 1 when something cannot work.

    Nothing is changed, and nothing is asked of the network.
    """
    from supervisor.cli.output import print_json

    findings = list(_findings(config, data_dir))
    failed = any(finding.level == "fail" for finding in findings)
    if json_output:
        print_json({"ok": not failed, "findings": [finding.to_wire() for finding in findings]})
    else:
        _show(findings)
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _findings(config: Path | None, data_dir: Path | None) -> Iterator[Finding]:
    from supervisor.cli.findings import fail, ok
    from supervisor.cli.machine_checks import engine_library, machine_findings
    from supervisor.cli.setup_checks import data_folder_findings, instance_findings, port_finding
    from supervisor.config import ConfigError, check_servable, load_settings
    from supervisor.data_folder import default_data_folder

    yield from machine_findings()
    folder = (data_dir.expanduser() if data_dir is not None else default_data_folder()).absolute()
    yield from data_folder_findings(folder)
    try:
        loaded = load_settings(config, environ=os.environ)
        refusal = check_servable(loaded.settings)
    except ConfigError as error:
        for problem in error.problems:
            yield fail("configuration", f"{error.source or 'environment'}: {problem.message}", f"{problem.remedy}.")
        return
    source = loaded.source_path
    yield ok("configuration", str(source) if source is not None else "no file: the built-in demo model is served")
    for problem in refusal.problems if refusal is not None else ():
        yield fail("configuration", problem.message, f"{problem.remedy}.")
    yield port_finding(loaded.settings.server, folder)
    if any(one.engine.kind == "embedded" and one.url is None for one in loaded.settings.instances.values()):
        yield engine_library()
    yield from instance_findings(loaded.settings)


def _show(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from supervisor.cli.output import printable, stdout

    table = Table("", "what", "finding", box=None, pad_edge=False, header_style="bold")
    for finding in findings:
        message = Text(printable(finding.message))
        if finding.remedy is not None:
            message.append(f"\n→ {printable(finding.remedy)}", "italic")
        table.add_row(Text(finding.level, STYLES[finding.level]), finding.subject, message)
    console = stdout()
    console.print(table)
    counts = {level: sum(finding.level == level for finding in findings) for level in STYLES}
    console.print(f"\n{counts['ok']} ok, {counts['warn']} to improve, {counts['fail']} to mend")
