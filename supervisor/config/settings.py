"""The settings of Llamavisor as immutable values.

A `Settings` is always valid: rules that span several keys are checked here too, so that a value built in code obeys them as one
read from a file does. Reading files and the environment is the business of `supervisor.config.loading`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import AnyHttpUrl, Field, model_validator

from supervisor.config.accounting_settings import AccountingSettings
from supervisor.config.batch_settings import BatchSettings, FilesSettings
from supervisor.config.engine_settings import CommandEngine, EmbeddedEngine, EngineSettings, LinejsonEngine
from supervisor.config.fields import (
    BrokenRule,
    Bytes,
    Count,
    CountOrZero,
    Flag,
    InstanceName,
    Lines,
    Port,
    Seconds,
    StrictModel,
    Text,
    Watts,
    refuse,
)
from supervisor.config.gateway_settings import GatewaySettings, fallback_rules
from supervisor.config.observing_settings import CaptureSettings, EnergySettings, TelemetrySettings
from supervisor.config.placement_settings import (
    GroupSettings,
    MemorySettings,
    group_rules,
    meanings,
    name_rules,
    placement_rules,
)
from supervisor.config.routing_settings import RoutingSettings
from supervisor.config.server_settings import ServerSettings, is_loopback
from supervisor.config.storage_settings import StorageSettings
from supervisor.config.supervision import SupervisionOverrides, SupervisionSettings, inconsistencies

DEMO_INSTANCE = "demo"
DEMO_MODEL = "demo"
DEFAULT_ENGINE_HOST = "127.0.0.1"
SOCKET_PATH_LIMIT_BYTES = 107
"""The kernel's `sun_path` has 108 bytes, the last of them NUL."""


class ModelsSettings(StrictModel):
    """Where models are looked for."""

    folders: tuple[Path, ...] = Field((), description="Folders searched for `*.gguf`, with their subfolders.")


class LoggingSettings(StrictModel):
    """The supervisor's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity that is logged.")
    format: Literal["text", "json"] = Field("text", description="Lines for people, or JSON objects for programs.")


class InstanceSettings(StrictModel):
    """One supervised inference server."""

    engine: EngineSettings = Field(
        default_factory=EmbeddedEngine, description="The engine and its flags; the kind alone is enough."
    )
    model: Text | None = Field(
        None,
        description="A GGUF file (a path holds a slash or ends in `.gguf`), the name of a model in `models.folders`, a hub "
        "name for vLLM, or `demo` for the built-in demo model.",
    )
    autostart: Flag = Field(True, description="Start it when the supervisor starts.")
    on_demand: Flag | None = Field(
        None,
        description="Start it when a request needs it, and let it yield to others; left out: if it has no `autostart`, or has `ttl_seconds`.",
    )
    preload: Flag = Field(
        False, description="Start it with the supervisor if there is room for it; `autostart` does not ask."
    )
    ttl_seconds: Seconds | None = Field(None, description="Unload it after so long without a request.")
    pinned: Flag = Field(
        False, description="Never unload it to make room for another; `ttl_seconds` holds nevertheless."
    )
    group: tuple[InstanceName, ...] = Field((), description="Names of `groups` that it belongs to.")
    endpoint: InstanceName | None = Field(
        None,
        description="Name that clients call; instances with the same one are its replicas. Left out: its own name.",
    )
    aliases: tuple[Text, ...] = Field((), description="More names that clients may call it by.")
    warm_spare: CountOrZero = Field(
        0,
        description="Idle replicas of its endpoint that are kept loaded as far as there is room beside everything else.",
    )
    memory_bytes: Bytes | None = Field(
        None, description="Memory that it takes, where you know better than the estimate and what was measured."
    )
    busy_watts: Watts | None = Field(
        None, description="Power that it draws while it works on requests; left out, `energy.busy_watts`."
    )
    required: Flag | None = Field(
        None, description="Whether `/readyz` waits for it; left out: if it has `autostart` and is not `on_demand`."
    )
    adopt: Flag = Field(True, description="Take over a server that already answers at the configured address.")
    survive_supervisor: Flag = Field(False, description="Leave it running when the supervisor ends.")
    url: AnyHttpUrl | None = Field(None, description="Address of a server that already runs; it is adopted.")
    host: Text = Field(DEFAULT_ENGINE_HOST, description="Loopback address that the engine listens on.")
    port: Port | None = Field(None, description="Fixed port of the engine; left out, the supervisor chooses.")
    socket: Path | None = Field(None, description="Fixed Unix socket of the engine (at most 107 bytes of path).")
    env: dict[str, str] = Field(
        default_factory=dict, repr=False, description="Environment of the process, beside the inherited; shown nowhere."
    )
    supervision: SupervisionOverrides = Field(
        default_factory=SupervisionOverrides, description="Figures of this instance that differ from `defaults`."
    )
    max_in_flight: Count | None = Field(
        None,
        description="Requests passed to the engine at once; left out, `gateway.in_flight_per_slot` times its slots.",
    )
    log_file_bytes: Bytes = Field(8 * 1024**2, description="Size at which the instance's log file is rotated.")
    log_files: Count = Field(3, description="Log files kept, the current one included.")
    log_ring_lines: Lines = Field(2000, description="Last lines of output kept in memory.")

    @property
    def is_required(self) -> bool:
        """Whether the server as a whole is ready only when this instance is."""
        return self.autostart and not self.is_on_demand if self.required is None else self.required

    @property
    def is_on_demand(self) -> bool:
        """Whether a request may start it, and another's need may unload it."""
        if self.on_demand is not None:
            return self.on_demand
        return not self.autostart or self.ttl_seconds is not None

    def resolved_supervision(self, defaults: SupervisionSettings) -> SupervisionSettings:
        """Return the figures in force: those of this instance over `defaults`, field by field."""
        return self.supervision.over(defaults)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        refuse(
            [
                *_address_rules(self),
                *_url_rules(self),
                *_engine_rules(self),
                *_environment_rules(self.env),
                *placement_rules(self),
            ]
        )
        return self


class Settings(StrictModel):
    """The whole configuration."""

    server: ServerSettings = Field(default_factory=ServerSettings, description="The web server.")
    models: ModelsSettings = Field(default_factory=ModelsSettings, description="Models on this machine.")
    logging: LoggingSettings = Field(default_factory=LoggingSettings, description="The supervisor's own log.")
    gateway: GatewaySettings = Field(
        default_factory=GatewaySettings, description="Who waits at the door, and for how long."
    )
    storage: StorageSettings = Field(default_factory=StorageSettings, description="What is kept, and where.")
    accounting: AccountingSettings = Field(
        default_factory=AccountingSettings, description="Prices, default limits, and what is held back of budgets."
    )
    telemetry: TelemetrySettings = Field(
        default_factory=TelemetrySettings, description="Metrics, and traces of the requests."
    )
    capture: CaptureSettings = Field(
        default_factory=CaptureSettings, description="Copies of the bodies of requests and answers."
    )
    energy: EnergySettings = Field(
        default_factory=EnergySettings, description="What requests are charged of the energy that is drawn."
    )
    routing: RoutingSettings = Field(
        default_factory=RoutingSettings, description="What the tiers mean, and how the model `auto` is chosen."
    )
    files: FilesSettings = Field(default_factory=FilesSettings, description="Files that are uploaded for batches.")
    batches: BatchSettings = Field(default_factory=BatchSettings, description="Work that nobody waits for.")
    memory: MemorySettings = Field(default_factory=MemorySettings, description="The memory that models may take.")
    groups: dict[InstanceName, GroupSettings] = Field(
        default_factory=dict, description="Groups of instances of which only so many are loaded at a time, by name."
    )
    reload_on_change: Flag = Field(False, description="Read the configuration file again whenever it changes.")
    defaults: SupervisionSettings = Field(
        default_factory=SupervisionSettings, description="Figures of supervision for every instance."
    )
    instances: dict[InstanceName, InstanceSettings] = Field(
        default_factory=lambda: {DEMO_INSTANCE: InstanceSettings(model=DEMO_MODEL)},
        description="The supervised servers by name; the first is the default one. Left out: one, `demo`, which serves the "
        "built-in demo model.",
    )

    def supervision_of(self, name: str) -> SupervisionSettings:
        """Return the figures in force for the instance `name` (KeyError when there is none)."""
        return self.instances[name].resolved_supervision(self.defaults)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        refuse(
            [
                *_clashing_addresses(self),
                *_clashing_figures(self),
                *group_rules(self),
                *name_rules(self),
                *fallback_rules(self.gateway.fallbacks, meanings(self.instances)),
            ]
        )
        return self


def _address_rules(instance: InstanceSettings) -> list[BrokenRule]:
    given = [key for key in ("url", "port", "socket") if getattr(instance, key) is not None]
    broken: list[BrokenRule] = []
    if len(given) > 1:
        named = " and ".join(f"`{key}`" for key in given)
        broken.append((given[1], f"{named} are both given", "keep one of them as the address"))
    has_host = instance.host != DEFAULT_ENGINE_HOST
    if has_host and given and "port" not in given:
        broken.append(("host", f"`host` means nothing beside `{given[0]}`", f"remove `host` or `{given[0]}`"))
    if not is_loopback(instance.host):
        remedy = "engines listen on 127.0.0.1 (they ask for no key); use `url` for a server elsewhere"
        broken.append(("host", "`host` must be a loopback address", remedy))
    if instance.socket is not None and len(os.fsencode(instance.socket)) > SOCKET_PATH_LIMIT_BYTES:
        message = f"`socket` is longer than {SOCKET_PATH_LIMIT_BYTES} bytes, the kernel's limit"
        broken.append(("socket", message, "choose a shorter path, or leave it to the supervisor"))
    return broken


def _url_rules(instance: InstanceSettings) -> list[BrokenRule]:
    if instance.url is None:
        return []
    broken: list[BrokenRule] = []
    if not instance.adopt:
        broken.append(
            ("adopt", "`url` names a running server, and `adopt` is off", "set `adopt` to true, or remove `url`")
        )
    if instance.url.username or instance.url.password:
        broken.append(("url", "`url` holds a user name or password", "remove them from the address"))
    if instance.url.query is not None or instance.url.fragment is not None:
        broken.append(("url", "`url` holds a query or fragment", "give the base address only"))
    return broken


def _engine_rules(instance: InstanceSettings) -> list[BrokenRule]:
    if instance.url is not None:
        return []
    if isinstance(instance.engine, CommandEngine):
        if instance.engine.argv:
            return []
        return [
            (("engine", "argv"), "the engine `command` needs `argv`", "give the program and its arguments, or a `url`")
        ]
    if instance.model is not None or isinstance(instance.engine, LinejsonEngine):
        return []
    remedy = 'set `model` to a GGUF file or "demo", or give the `url` of a running server'
    return [("model", f"the engine `{instance.engine.kind}` needs a `model`", remedy)]


def _environment_rules(env: dict[str, str]) -> list[BrokenRule]:
    remedy = "use a name without `=`"
    impossible = any(not name or "=" in name for name in env)
    return [("env", "`env` holds an impossible name", remedy)] if impossible else []


def _clashing_addresses(settings: Settings) -> list[BrokenRule]:
    server = settings.server
    taken = {("port", str(server.port)): "the server itself"} if server.port else {}
    broken: list[BrokenRule] = []
    for name, instance in settings.instances.items():
        for key in ("port", "socket", "url"):
            value = getattr(instance, key)
            if value is None:
                continue
            holder = taken.setdefault((key, str(value)), f"`{name}`")
            if holder != f"`{name}`":
                message = f"`{key}` of `{name}` is already the address of {holder}"
                broken.append((("instances", name, key), message, "give each its own"))
    return broken


def _clashing_figures(settings: Settings) -> list[BrokenRule]:
    return [
        (("instances", name, "supervision", key), f"with `defaults` taken in, {message}", remedy)
        for name, instance in settings.instances.items()
        for key, message, remedy in inconsistencies(instance.resolved_supervision(settings.defaults))
    ]
