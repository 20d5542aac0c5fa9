"""Settings of what is loaded when: on-demand start, unloading, groups that exclude one another, memory; and their rules across keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from supervisor.config.fields import BrokenRule, Bytes, Count, Flag, Seconds, StrictModel, refuse

if TYPE_CHECKING:
    from supervisor.config.settings import InstanceSettings, Settings

DEFAULT_RESERVE_BYTES = 256 * 1024**2
DEFAULT_PATIENCE_SECONDS = 10.0


class GroupSettings(StrictModel):
    """Instances that share something of which there is not enough for all of them at once."""

    exclusive: Flag | None = Field(
        None,
        description="At most one member is loaded at a time. Left out: yes, unless `max_loaded` says otherwise.",
    )
    max_loaded: Count | None = Field(None, description="Most members that are loaded at a time.")

    @property
    def limit(self) -> int | None:
        """Most members loaded at a time; None: as many as there are."""
        exclusive = self.max_loaded is None if self.exclusive is None else self.exclusive
        return 1 if exclusive else self.max_loaded

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.exclusive and self.max_loaded is not None and self.max_loaded > 1:
            message = "`exclusive` allows one member, `max_loaded` several"
            refuse([("max_loaded", message, "keep one of the two")])
        return self


class MemorySettings(StrictModel):
    """The memory that models may take, and who yields when there is not enough."""

    limit_bytes: Bytes | None = Field(
        None, description="Most that all models take together. Left out: what the machine (or its control group) has."
    )
    reserve_bytes: Bytes = Field(
        DEFAULT_RESERVE_BYTES, description="Kept free of the memory that the machine has left, for everything else."
    )
    patience_seconds: Seconds = Field(
        DEFAULT_PATIENCE_SECONDS,
        description="Time for which a model that is wanted waits for busy ones in its way. Then these take no new requests "
        "until it had its turn.",
    )


def placement_rules(instance: InstanceSettings) -> list[BrokenRule]:
    """What contradicts itself within one instance."""
    if instance.ttl_seconds is None or instance.is_on_demand:
        return []
    message = "`ttl_seconds` would unload an instance that no request can start again"
    return [("ttl_seconds", message, "set `on_demand` to true, or remove `ttl_seconds`")]


def group_rules(settings: Settings) -> list[BrokenRule]:
    """Groups that are not there, and groups that could never be obeyed."""
    broken: list[BrokenRule] = []
    always: Counter[str] = Counter()
    for name, instance in settings.instances.items():
        for group in dict.fromkeys(instance.group):
            if group not in settings.groups:
                message = f"`group` of `{name}` names `{group}`, which is no group"
                broken.append((("instances", name, "group"), message, "add it to `groups`, or correct the name"))
            always[group] += instance.autostart
    for group, members in settings.groups.items():
        limit = members.limit
        if limit is not None and always[group] > limit:
            message = f"`autostart` starts {always[group]} members of the group `{group}`, which allows {limit}"
            broken.append((("groups", group), message, "set `autostart` to false for the others"))
    return broken


def name_rules(settings: Settings) -> list[BrokenRule]:
    """Names that would mean two things: replicas share their endpoint and its aliases, everybody else's names are their own."""
    owners = {name: endpoint_of(name, instance) for name, instance in settings.instances.items()}
    broken: list[BrokenRule] = []
    for name, instance in settings.instances.items():
        endpoint = endpoint_of(name, instance)
        given = [("endpoint", instance.endpoint)] if instance.endpoint is not None else []
        for key, word in [*given, *(("aliases", alias) for alias in instance.aliases)]:
            if owners.setdefault(word, endpoint) != endpoint:
                message = f"`{key}` of `{name}` holds `{word}`, which already means something else"
                broken.append((("instances", name, key), message, "choose a name that nothing else has"))
    return broken


def endpoint_of(name: str, instance: InstanceSettings) -> str:
    """The name under which an instance is one of several replicas: its `endpoint`, else its own."""
    return instance.endpoint if instance.endpoint is not None else name


def meanings(instances: Mapping[str, InstanceSettings]) -> dict[str, str]:
    """What each name in the configuration means: an endpoint, by its own name or an alias; else the one instance of that name."""
    aliases = {alias: endpoint_of(name, own) for name, own in instances.items() for alias in own.aliases}
    endpoints = {endpoint_of(name, own) for name, own in instances.items()}
    return aliases | {name: name for name in (*instances, *endpoints)}
