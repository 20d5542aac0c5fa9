"""The engine `embedded`: llama.cpp from the PyPI wheel, in a child process of our own, so that a native crash cannot take us along."""

from __future__ import annotations

import sys
from pathlib import Path

from supervisor.config.engine_settings import EmbeddedEngine
from supervisor.config.settings import InstanceSettings
from supervisor.engines.base import model_id_of, require_model
from supervisor.engines.llama_flags import launch_spec, watch_spec
from supervisor.launch import Address, LaunchSpec

SERVER_FILE = Path(__file__).with_name("embedded_server.py")
DIE_WITH_PARENT = "LLAMAVISOR_DIE_WITH_PARENT"


class Embedded:
    """See the module. The server is run by the path of its file, so that it starts from any folder, installed or not."""

    kind = "embedded"

    def uses_unix_socket(self, settings: InstanceSettings) -> bool:
        """Always: no port to steal, no browser that could reach it, so no key either."""
        return True

    def launch_spec(
        self, name: str, settings: InstanceSettings, address: Address, model_path: str | None
    ) -> LaunchSpec:
        """See `Engine.launch_spec`."""
        model = require_model(name, model_path)
        engine = _flags(settings)
        model_id = model_id_of(settings, model)
        # `-P` keeps the server's folder off the import path: modules there are named like others'.
        command = (sys.executable, "-P", str(SERVER_FILE))
        survival = {} if settings.survive_supervisor else {DIE_WITH_PARENT: "1"}
        return launch_spec(
            name, settings, engine, address, command=command, model=model, model_id=model_id, env=survival
        )

    def watch_spec(self, name: str, settings: InstanceSettings, address: Address) -> LaunchSpec:
        """See `Engine.watch_spec`."""
        return watch_spec(settings, _flags(settings), address)


def _flags(settings: InstanceSettings) -> EmbeddedEngine:
    assert isinstance(settings.engine, EmbeddedEngine)
    return settings.engine
