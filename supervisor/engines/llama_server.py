"""The engine `llama-server`: the user's own build of llama.cpp's server."""

from __future__ import annotations

from itertools import pairwise

from supervisor.config.engine_settings import LlamaServerEngine
from supervisor.config.settings import InstanceSettings
from supervisor.engines.base import check_extra_args, model_id_of, require_model
from supervisor.engines.llama_flags import API_KEY_VARIABLE, launch_spec, watch_spec
from supervisor.launch import Address, LaunchSpec

ALIAS_FLAGS = ("-a", "--alias")
OWN_FLAGS = {"-m": "model", "--model": "model", "--host": "host", "--port": "port"}


class LlamaServer:
    """See the module. It listens on a Unix socket unless an address is configured."""

    kind = "llama-server"

    def uses_unix_socket(self, settings: InstanceSettings) -> bool:
        """Always: no port to steal, no browser that could reach it."""
        return True

    def launch_spec(
        self, name: str, settings: InstanceSettings, address: Address, model_path: str | None
    ) -> LaunchSpec:
        """See `Engine.launch_spec`. `extra_args` come last, so that they win, but for what Llamavisor must know itself."""
        model = require_model(name, model_path)
        engine = _flags(settings)
        check_extra_args(name, engine.extra_args, OWN_FLAGS, API_KEY_VARIABLE)
        model_id = _given_alias(engine.extra_args) or model_id_of(settings, model)
        return launch_spec(
            name,
            settings,
            engine,
            address,
            command=(engine.binary,),
            model=model,
            model_id=model_id,
            extra_args=engine.extra_args,
        )

    def watch_spec(self, name: str, settings: InstanceSettings, address: Address) -> LaunchSpec:
        """See `Engine.watch_spec`."""
        return watch_spec(settings, _flags(settings), address)


def _flags(settings: InstanceSettings) -> LlamaServerEngine:
    assert isinstance(settings.engine, LlamaServerEngine)
    return settings.engine


def _given_alias(extra_args: tuple[str, ...]) -> str | None:
    for flag, value in pairwise(extra_args):
        if flag in ALIAS_FLAGS:
            return value.partition(",")[0]
    return None
