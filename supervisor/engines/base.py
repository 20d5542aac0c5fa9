"""What an engine is: a kind of inference server and how to run and watch it, as pure functions of settings and address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from supervisor.config.settings import InstanceSettings
from supervisor.errors import InvalidConfigurationError
from supervisor.launch import Address, LaunchSpec

KEY_FLAG = "--api-key"


class Engine(Protocol):
    """One engine. Its methods are pure: no file is looked at, no process asked; what cannot be run is refused by the process layer.

    All raise `InvalidConfigurationError`, with the key at fault, for settings that cannot be turned into a command line.
    """

    @property
    def kind(self) -> str:
        """The name of the engine in the configuration."""

    def uses_unix_socket(self, settings: InstanceSettings) -> bool:
        """Whether an address that we choose should be a Unix socket; else a loopback port."""

    def launch_spec(
        self, name: str, settings: InstanceSettings, address: Address, model_path: str | None
    ) -> LaunchSpec:
        """The spec that starts the server of instance `name` at `address`. `model_path`: the resolved file, or the hub's name."""

    def watch_spec(self, name: str, settings: InstanceSettings, address: Address) -> LaunchSpec:
        """The spec of a server that somebody else runs at `address`: no argv, otherwise watched as an own one."""


def is_address_ours(settings: InstanceSettings) -> bool:
    """Whether the address is of our choice, so that whoever else answers there is a stranger."""
    return settings.url is None and settings.port is None and settings.socket is None


def model_id_of(settings: InstanceSettings, model_path: str) -> str:
    """The model's name in the API: the configured name, or the file's without folder and suffix (a path is nobody's business)."""
    configured = settings.model or model_path
    return Path(configured).stem if "/" in configured or configured.endswith(".gguf") else configured


def refuse(name: str, key: str, message: str, remedy: str) -> InvalidConfigurationError:
    """The error for settings of instance `name` that cannot be run; `key` is relative to the instance."""
    return InvalidConfigurationError(message, param=f"instances.{name}.{key}", remedy=remedy)


def require_model(name: str, model_path: str | None) -> str:
    """The model's path, or the refusal to start without one."""
    if model_path is None:
        raise refuse(name, "model", f"The instance {name!r} has no model to start with.", "Set `model`.")
    return model_path


def check_extra_args(name: str, extra_args: tuple[str, ...], own_flags: Mapping[str, str], key_variable: str) -> None:
    """Refuse raw arguments that say what Llamavisor must know itself (`own_flags`: flag → setting), or that show a key to every user."""
    for argument in extra_args:
        flag = argument.partition("=")[0]
        if flag == KEY_FLAG:
            remedy = f"Put the key into `env` as {key_variable}."
            raise refuse(name, "engine.extra_args", f"{KEY_FLAG} shows the key to every user of the machine.", remedy)
        if flag in own_flags:
            remedy = f"Set `{own_flags[flag]}` of the instance instead."
            raise refuse(name, "engine.extra_args", f"{flag} is set by Llamavisor.", remedy)


def require_tcp(name: str, address: Address, kind: str) -> Address:
    """The address, refused when it is a Unix socket."""
    if address.socket_path is not None:
        remedy = "Use `port`, or leave the address to Llamavisor."
        raise refuse(name, "socket", f"The engine {kind} cannot listen on a Unix socket.", remedy)
    return address
