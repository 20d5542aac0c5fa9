"""What a reload has to do: the difference of two configurations, as a value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from supervisor.config.settings import InstanceSettings, Settings

PROCESS_FIELDS = ("engine", "model", "survive_supervisor", "url", "host", "port", "socket", "env")
"""What an instance's process is started with: a change is a restart. Every other field can change beneath a running process."""

LIVE_SERVER_KEYS = frozenset(
    f"server.{name}"
    for name in (
        "max_body_bytes",
        "head_deadline_seconds",
        "body_deadline_seconds",
        "shutdown_grace_seconds",
        "upstream_idle_seconds",
    )
)
"""Those that are read anew for each request, or when they are due."""


@dataclass(frozen=True, slots=True)
class SettingsDiff:
    """The difference, in names and keys.

    `added`, `removed`, `changed` (the process must be restarted), `retuned` (only figures of supervision, log settings or
    autostart and the like changed: no restart) and `unchanged` are names of instances, and hold each exactly once.
    `server_changed` are keys that only a restart of the supervisor brings into force, `live_changed` keys that need none
    (`instances` among them: their order changed, and with it the default instance).
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    retuned: tuple[str, ...]
    unchanged: tuple[str, ...]
    server_changed: tuple[str, ...]
    live_changed: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the two configurations mean the same."""
        return not (
            self.added or self.removed or self.changed or self.retuned or self.server_changed or self.live_changed
        )


def diff_settings(old: Settings, new: Settings) -> SettingsDiff:
    """Compare two configurations. Pure; figures of supervision are compared as they are in force, `defaults` taken in."""
    kept = [name for name in new.instances if name in old.instances]
    changed = [name for name in kept if _process_differs(old.instances[name], new.instances[name])]
    server = tuple(_differing_keys("server", old.server, new.server))
    retuned = [name for name in kept if name not in changed and _tuning_differs(old, new, name)]
    return SettingsDiff(
        added=tuple(name for name in new.instances if name not in old.instances),
        removed=tuple(name for name in old.instances if name not in new.instances),
        changed=tuple(changed),
        retuned=tuple(retuned),
        unchanged=tuple(name for name in kept if name not in changed and name not in retuned),
        server_changed=tuple(key for key in server if key not in LIVE_SERVER_KEYS),
        live_changed=(*(key for key in server if key in LIVE_SERVER_KEYS), *_live_changes(old, new)),
    )


def _process_differs(old: InstanceSettings, new: InstanceSettings) -> bool:
    return any(getattr(old, name) != getattr(new, name) for name in PROCESS_FIELDS)


def _tuning_differs(old: Settings, new: Settings, name: str) -> bool:
    apart = {*PROCESS_FIELDS, "supervision"}
    fields = [field for field in InstanceSettings.model_fields if field not in apart]
    before, after = old.instances[name], new.instances[name]
    return old.supervision_of(name) != new.supervision_of(name) or any(
        getattr(before, field) != getattr(after, field) for field in fields
    )


def _differing_keys(section: str, old: BaseModel, new: BaseModel) -> Iterator[str]:
    for name in type(new).model_fields:
        if getattr(old, name) != getattr(new, name):
            yield f"{section}.{name}"


def _live_changes(old: Settings, new: Settings) -> Iterator[str]:
    yield from _differing_keys("models", old.models, new.models)
    yield from _differing_keys("logging", old.logging, new.logging)
    yield from _differing_keys("accounting", old.accounting, new.accounting)
    yield from _differing_keys("gateway", old.gateway, new.gateway)
    yield from _differing_keys("routing", old.routing, new.routing)
    yield from _differing_keys("files", old.files, new.files)
    yield from _differing_keys("batches", old.batches, new.batches)
    yield from _differing_keys("memory", old.memory, new.memory)
    if old.groups != new.groups:
        yield "groups"
    if old.reload_on_change != new.reload_on_change:
        yield "reload_on_change"
    if [name for name in old.instances if name in new.instances] != [
        name for name in new.instances if name in old.instances
    ]:
        yield "instances"
