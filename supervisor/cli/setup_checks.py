"""What `doctor` looks at because the configuration says so: data folder, port, engines, models."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from supervisor.cli.findings import Finding, fail, ok, warn
from supervisor.cli.formatting import size
from supervisor.cli.machine_checks import memory_bytes
from supervisor.cli.place import ADDRESS_FILE
from supervisor.config import CommandEngine, InstanceSettings, LlamaServerEngine, ServerSettings, Settings, VllmEngine
from supervisor.errors import LlamavisorError
from supervisor.fleet.models import model_argument
from supervisor.launch import Address
from supervisor.models.discovery import read_model_file
from supervisor.models.gguf_source import GgufError
from supervisor.process.sockets import describe_process, listening_owner

DISK_WANTED_BYTES = 1_000_000_000
LOCK_FILE = "supervisor.lock"


def data_folder_findings(folder: Path) -> Iterator[Finding]:
    """Whether the data folder can be used, and whether somebody uses it. Nothing is created."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        yield fail(
            "data folder", f"{existing} is not a folder", "Choose another with --data-dir or LLAMAVISOR_DATA_DIR."
        )
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        yield fail("data folder", f"{existing} may not be written", "Mend its permissions, or choose another folder.")
        return
    yield ok("data folder", f"{folder}{'' if existing == folder else ' (will be created)'}, {_lock_state(folder)}")
    free = shutil.disk_usage(existing).free
    if free < DISK_WANTED_BYTES:
        yield warn("disk", f"only {size(free)} are free at {existing}", "Make room: logs and data grow there.")


def _lock_state(folder: Path) -> str:
    try:
        with (folder / LOCK_FILE).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = (folder / LOCK_FILE).read_text("ascii", "replace").strip()
        return f"in use by the supervisor with pid {holder or 'unknown'}"
    except OSError:
        return "free"
    return "free"


def port_finding(server: ServerSettings, folder: Path) -> Finding:
    """Whether the server's port is free, ours, or somebody else's."""
    where = f"{server.host}:{server.port}"
    running = _running(folder)
    if running is not None:
        return ok("port", f"Llamavisor is at {running['url']} (pid {running['pid']})")
    if server.port == 0:
        return ok("port", "any free one is taken")
    pid = listening_owner(Address(host=server.host, port=server.port))
    if pid is None and _can_listen(server):
        return ok("port", f"{where} is free")
    holder = describe_process(pid) if pid is not None else "a program that we may not see"
    return fail("port", f"{where} is taken by {holder}", "End that program, or set `server.port`.")


def _running(folder: Path) -> dict[str, Any] | None:
    """What the server of this data folder told of itself; None when it is not there any more."""
    try:
        told: dict[str, Any] = json.loads((folder / ADDRESS_FILE).read_text("utf-8"))
        port = urlsplit(told["url"]).port or 0
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return told if listening_owner(Address(port=port)) == told["pid"] else None


def _can_listen(server: ServerSettings) -> bool:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError:
        return False
    return True


def instance_findings(settings: Settings) -> Iterator[Finding]:
    """Whether each instance's program and model are there, and whether the models fit into memory."""
    needed = 0
    for name, instance in settings.instances.items():
        if instance.url is not None:
            yield ok(name, f"adopts what runs at {instance.url}")
            continue
        program = _program_finding(name, instance)
        if program is not None:
            yield program
        finding, model_bytes = _model_finding(name, instance, settings.models.folders)
        needed += model_bytes if instance.autostart else 0
        yield finding
    yield _memory_finding(needed)


def _program_finding(name: str, instance: InstanceSettings) -> Finding | None:
    match instance.engine:
        case LlamaServerEngine(binary=binary) | VllmEngine(binary=binary):
            wanted, key = binary, "engine.binary"
        case CommandEngine(argv=argv):
            wanted, key = argv[0], "engine.argv"
        case _:
            return None
    search_path = instance.env.get("PATH", os.environ.get("PATH", os.defpath))
    found = shutil.which(wanted, path=search_path)
    if found is not None:
        return ok(name, f"{instance.engine.kind}: {found}")
    if Path(wanted).exists():
        return fail(name, f"{wanted} may not be executed", f"Make it executable: chmod +x {wanted}")
    remedy = f"Install it, or give its full path in `instances.{name}.{key}`."
    return fail(name, f"the program {wanted} is not there", remedy)


def _model_finding(name: str, instance: InstanceSettings, folders: tuple[Path, ...]) -> tuple[Finding, int]:
    """What is to be said of the model, and its bytes (0 when it is no file of ours)."""
    try:
        model = model_argument(instance, folders)
        path = Path(model) if model is not None and model.endswith(".gguf") else None
        if path is None or not path.is_absolute():
            return ok(name, f"model {model}" if model is not None else "no model is configured for the command"), 0
        file = read_model_file(path)
    except (LlamavisorError, GgufError) as error:
        remedy = getattr(error, "remedy", None) or f"Check `instances.{name}.model`."
        return fail(name, getattr(error, "message", str(error)), remedy), 0
    if file.kind != "model":
        message = f"{path} is no model but a {file.kind}"
        return fail(name, message, "Name the model's own file in the configuration."), 0
    if not file.header.has_chat_template:
        message = f"{file.name} has no chat template"
        return warn(name, message, "Chat may answer nonsense; use a model that was tuned for chat."), file.size_bytes
    return ok(name, f"model {file.name}, {size(file.size_bytes)}"), file.size_bytes


def _memory_finding(needed_bytes: int) -> Finding:
    total, available = memory_bytes()
    there = f"{size(available)} of {size(total)} are available"
    if needed_bytes > total:
        message = f"the models that are started take {size(needed_bytes)}; {there}"
        return fail("memory", message, "Use smaller models, or set `autostart` to false for some.")
    if needed_bytes > available:
        message = f"the models that are started take {size(needed_bytes)}; {there}"
        return warn("memory", message, "End other programs, or put layers on a GPU (`engine.gpu_layers`).")
    return ok("memory", there)
