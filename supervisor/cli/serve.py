"""`llamavisor serve`: its flags, its banner, and how it tells that it cannot."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from supervisor.cli.options import FLAG, ConfigOption, DataDirOption, ending
from supervisor.errors import LlamavisorError

if TYPE_CHECKING:
    from supervisor.config import LoadedSettings, ServerSettings
    from supervisor.core import Supervisor

SERVE_ENDING = ending(
    "llamavisor serve  # the demo model, at http://127.0.0.1:3000",
    "llamavisor serve --config my.yaml --open  # your own models; the page opens in the browser",
    "llamavisor serve --port 0 --data-dir /tmp/lv  # any free port, data kept apart",
)


def serve(
    host: Annotated[str | None, typer.Option(metavar="HOST", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", help="Port to listen on; 0 takes any free one.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    open_browser: Annotated[
        bool, typer.Option("--open", metavar=FLAG, help="Open the status page in a browser.")
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", metavar=FLAG, help="Allow plain HTTP on an address that others can reach."),
    ] = False,
) -> None:
    """Run the supervisor and its web server, in the foreground.

    Ends on Ctrl-C or TERM: running answers may finish, then the engines are stopped; a second signal ends everything at once. HUP reads
    the configuration again. Flags win over the environment (`LLAMAVISOR_SERVER__PORT`), which wins over the file.
    """
    overrides = {"server.host": host, "server.port": port, "server.insecure": True if insecure else None}
    raise typer.Exit(_serve(config, data_dir, overrides, open_browser=open_browser))


def _serve(config: Path | None, data_dir: Path | None, overrides: Mapping[str, object], *, open_browser: bool) -> int:
    import os

    from supervisor.config import check_servable, load_settings

    def load() -> LoadedSettings:
        return load_settings(config, environ=os.environ, overrides=overrides)

    loaded = load()
    refusal = check_servable(loaded.settings)
    if refusal is not None:
        raise refusal
    # The server itself takes a second to import: not before it is known that there is one to start.
    from supervisor.cli.logs_setup import set_up_logging
    from supervisor.cli.serving import ServePlan, Server
    from supervisor.data_folder import default_data_folder
    from supervisor.loop import run

    set_up_logging(loaded.settings.logging)
    folder = data_dir.expanduser() if data_dir is not None else default_data_folder()
    plan = ServePlan(loaded, folder, load, _announcer(loaded), open_browser)
    try:
        return run(Server(plan).run())
    except OSError as error:
        explained = _cannot_listen(loaded.settings.server, error)
        if explained is None:
            raise
        raise explained from error


def _announcer(loaded: LoadedSettings) -> Callable[[Supervisor, str], None]:
    if loaded.settings.logging.format == "json":
        # Lines for programs: a banner among them would be noise.
        return _log_address
    return _show_banner


def _log_address(_supervisor: Supervisor, url: str) -> None:
    import logging

    logging.getLogger(__name__).info("Llamavisor is at %s", url)


def _show_banner(supervisor: Supervisor, url: str) -> None:
    from rich.text import Text

    from supervisor.cli.output import stdout

    source = supervisor.loaded.source_path
    console = stdout()
    console.print(Text.assemble("\nLlamavisor is at ", (url, "bold cyan underline")), soft_wrap=True)
    for label, text in (
        ("instances", ", ".join(supervisor.fleet.names()) or "none configured"),
        ("configuration", str(source) if source is not None else "none found: the built-in demo model is served"),
        ("data", str(supervisor.data_folder)),
        (
            "next",
            f"open the address in a browser, or in another terminal: {_own_command()} status, {_own_command()} chat",
        ),
        ("end", "Ctrl-C"),
    ):
        console.print(Text.assemble((f"  {label:<14}", "dim"), text), soft_wrap=True)
    console.print()


def _own_command() -> str:
    """How to call us from another terminal: by name where the shell finds it, else by path."""
    import shutil
    import sys

    if shutil.which("llamavisor"):
        return "llamavisor"
    beside = Path(sys.executable).with_name("llamavisor")
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def _cannot_listen(server: ServerSettings, error: OSError) -> LlamavisorError | None:
    """Why the server got no address, with the holder's name; None when that is not what went wrong."""
    import socket
    import ssl

    where = f"{server.host}:{server.port}"
    if error.errno == errno.EADDRINUSE:
        return LlamavisorError(
            f"{where} is taken{_holder(server)}.",
            code="port_in_use",
            remedy="End that program, or take another port with --port (0 takes any free one).",
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        remedy = "Listen on 127.0.0.1, or on an address that `ip address` lists."
        return LlamavisorError(f"{server.host} is no address of this machine.", code="address_unknown", remedy=remedy)
    if error.errno == errno.EACCES:
        remedy = "Ports below 1024 need a privilege; take another with --port."
        return LlamavisorError(f"Listening on {where} is not permitted.", code="port_forbidden", remedy=remedy)
    if server.tls is not None and isinstance(error, ssl.SSLError | FileNotFoundError | PermissionError):
        remedy = "Check `server.tls.certificate` and `server.tls.key`: two PEM files that belong together."
        return LlamavisorError(
            f"The certificate cannot be used: {error.strerror or error}.", code="bad_tls", remedy=remedy
        )
    return None


def _holder(server: ServerSettings) -> str:
    from supervisor.launch import Address
    from supervisor.process.sockets import describe_process, listening_owner

    pid = listening_owner(Address(host=server.host, port=server.port))
    return f" by {describe_process(pid)}" if pid is not None else ", by a program that we may not see"
