"""Import of the flat settings that an earlier system kept (`llamavisor config import FILE`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.config.engine_settings import LlamaFlags
from supervisor.config.loading import validate_tree
from supervisor.config.problems import ConfigError, Problem
from supervisor.config.server_settings import is_loopback
from supervisor.config.settings import DEFAULT_ENGINE_HOST, DEMO_MODEL
from supervisor.config.suggestions import remedy_for

LEGACY_INSTANCE = "main"
LEFT_TO_THE_ENGINE = -1
PLACE_KEYS = ("llama_server_host", "llama_server_port", "llama_server_path", "llama_model_path", "basePath")
FLAG_KEYS = tuple(name for name in LlamaFlags.model_fields if name not in ("parallel", "pooling"))
LEGACY_KEYS = (*PLACE_KEYS, *FLAG_KEYS)

_SWITCHES = ("flash_attn", "verbose", "embedding")
_WORDS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_SOURCE = "legacy settings"


@dataclass(frozen=True, slots=True)
class LegacyImport:
    """`config` is a valid configuration of today as plain values; `warnings` say what was guessed or left out."""

    config: dict[str, Any]
    warnings: tuple[str, ...]


def import_legacy(flat: Mapping[str, object]) -> LegacyImport:
    """Turn flat settings into a configuration with one instance, `main`; −1, null and "" mean "leave it to the engine".

    Raises ConfigError (`config_invalid`) naming the flat key: unknown keys with the nearest known one, values out of range.
    """
    unknown = [
        Problem(key, f"unknown key `{key}`", remedy_for(key, LEGACY_KEYS)) for key in flat if key not in LEGACY_KEYS
    ]
    if unknown:
        raise ConfigError("config_invalid", unknown, source=_SOURCE)
    given = {key: value for key, value in flat.items() if not _left_out(value)}
    warnings: list[str] = []
    instance = {"engine": _engine(given, warnings), "model": _model(given, warnings), **_address(given, warnings)}
    config: dict[str, Any] = {"instances": {LEGACY_INSTANCE: instance}}
    if "basePath" in given:
        config = {"models": {"folders": [given["basePath"]]}, **config}
    _check(config)
    return LegacyImport(config, tuple(warnings))


def _left_out(value: object) -> bool:
    is_flag = isinstance(value, bool)
    return value is None or (not is_flag and value in (LEFT_TO_THE_ENGINE, str(LEFT_TO_THE_ENGINE), ""))


def _engine(given: Mapping[str, object], warnings: list[str]) -> dict[str, object]:
    flags = {key: _as_meant(key, given[key]) for key in FLAG_KEYS if key in given}
    if "llama_server_path" in given:
        return {"kind": "llama-server", "binary": given["llama_server_path"], **flags}
    warnings.append("`llama_server_path` is not given: the embedded engine, which takes the same flags, is used")
    return {"kind": "embedded", **flags}


def _model(given: Mapping[str, object], warnings: list[str]) -> object:
    if "llama_model_path" in given:
        return given["llama_model_path"]
    warnings.append(
        f"`llama_model_path` is not given: the built-in demo model stands in; set `instances.{LEGACY_INSTANCE}.model`"
    )
    return DEMO_MODEL


def _address(given: Mapping[str, object], warnings: list[str]) -> dict[str, object]:
    address: dict[str, object] = {}
    host = given.get("llama_server_host", DEFAULT_ENGINE_HOST)
    if isinstance(host, str) and not is_loopback(host):
        warnings.append(
            f"`llama_server_host` is not kept: engines listen on {DEFAULT_ENGINE_HOST}, for they ask for no key; "
            "clients go through `server.host` and `server.port`, and `url` names a server on another machine"
        )
    elif host != DEFAULT_ENGINE_HOST:
        address["host"] = host
    port = _as_meant("llama_server_port", given.get("llama_server_port", 0))
    if port != 0:
        address["port"] = port
    elif "host" in address:
        warnings.append("`llama_server_host` is not kept: without a port the supervisor chooses the address")
        del address["host"]
    return address


def _as_meant(key: str, value: object) -> object:
    """Read a number or switch that was stored as text, or a switch that was stored as 0 or 1."""
    if key in _SWITCHES and not isinstance(value, bool):
        return _WORDS.get(str(value).lower(), value)
    if not isinstance(value, str) or key.startswith("cache_type"):
        return value
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


def _check(config: Mapping[str, object]) -> None:
    """Validate, and tell problems under the flat keys that the reader of the message knows."""
    try:
        validate_tree(config)
    except ConfigError as error:
        renamed = {"binary": "llama_server_path", "model": "llama_model_path", "folders": "basePath"}
        renamed |= {"host": "llama_server_host", "port": "llama_server_port"}
        problems = []
        for problem in error.problems:
            last = problem.key.split("[")[0].rsplit(".", 1)[-1]
            key = renamed.get(last, last)
            problems.append(Problem(key, problem.message.replace(f"`{problem.key}`", f"`{key}`"), problem.remedy))
        raise ConfigError("config_invalid", problems, source=_SOURCE) from None
