"""Settings as plain values: complete for writing a file, masked for showing."""

from __future__ import annotations

import re
from typing import Any

from supervisor.config.engine_settings import CommandEngine, LlamaServerEngine, VllmEngine
from supervisor.config.settings import InstanceSettings, Settings

MASK = "********"
_SECRET_FLAG = re.compile(r"(?i)-{1,2}[a-z0-9_-]*(key|token|secret|password)(?P<joined>=.*)?\Z", re.DOTALL)


def settings_tree(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values that load to the same settings, secrets in clear; what is not set is left out."""
    tree = settings.model_dump(mode="json", exclude_none=True)
    if settings.server.api_key is not None:
        tree["server"]["api_key"] = settings.server.api_key.get_secret_value()
    return tree


def redacted(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values to show: the server's key, values of `env` and arguments that follow a flag like `--api-key` are masked."""
    tree = settings_tree(settings)
    if settings.server.api_key is not None:
        tree["server"]["api_key"] = MASK
    for name, instance in settings.instances.items():
        _mask_instance(tree["instances"][name], instance)
    return tree


def _mask_instance(tree: dict[str, Any], instance: InstanceSettings) -> None:
    tree["env"] = dict.fromkeys(instance.env, MASK)
    if isinstance(instance.engine, CommandEngine):
        tree["engine"]["argv"] = masked_arguments(instance.engine.argv)
    elif isinstance(instance.engine, LlamaServerEngine | VllmEngine):
        tree["engine"]["extra_args"] = masked_arguments(instance.engine.extra_args)


def masked_arguments(arguments: tuple[str, ...]) -> list[str]:
    """Mask the values of flags whose name speaks of a key, token, secret or password."""
    shown: list[str] = []
    value_is_secret = False
    for argument in arguments:
        flag = _SECRET_FLAG.match(argument)
        if flag and flag["joined"]:
            shown.append(f"{argument.split('=', 1)[0]}={MASK}")
        else:
            shown.append(MASK if value_is_secret else argument)
        value_is_secret = flag is not None and not flag["joined"]
    return shown
