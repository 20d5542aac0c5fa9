"""The engine `linejson`: a tokenizer process and a model process that speaks JSON lines, behind a server of ours that speaks the OpenAI API."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from supervisor.config.engine_settings import LinejsonEngine
from supervisor.config.settings import InstanceSettings
from supervisor.engines.base import model_id_of, refuse
from supervisor.engines.command import substitute
from supervisor.launch import Address, FailurePattern, LaunchSpec, ProbeSpec

MODULE = "supervisor.engines.linejson_server"
# Put in by the server itself, which finds the places.
LISTENING = {"SOCKET": "${SOCKET}", "PORT": "${PORT}"}
PROBE = ProbeSpec(slots_path="/slots", parts_path="/parts")
FAILURES = (
    FailurePattern(
        r"error: cannot start: ",
        "missing_binary",
        permanent=True,
        remedy="Check the programs in `engine.tokenizer_argv` and `engine.model_argv`.",
    ),
    # What the server says last, when one of the pair has ended.
    FailurePattern(r"^the (?:model|tokenizer) process was killed by signal ", "signal", last=True),
    FailurePattern(r"^the (?:model|tokenizer) process ended with exit code ", "exit_code", last=True),
)


class Linejson:
    """See the module. `${MODEL}` is put into both argument lists here, `${SOCKET}` and `${PORT}` by the server."""

    kind = "linejson"

    def uses_unix_socket(self, settings: InstanceSettings) -> bool:
        """Always."""
        return True

    def launch_spec(
        self, name: str, settings: InstanceSettings, address: Address, model_path: str | None
    ) -> LaunchSpec:
        """See `Engine.launch_spec`."""
        engine = _engine(settings)
        values: dict[str, str | None] = {**LISTENING, "MODEL": model_path}
        pair = {
            key: [substitute(name, f"engine.{key}", argument, values) for argument in argv]
            for key, argv in (("tokenizer_argv", engine.tokenizer_argv), ("model_argv", engine.model_argv))
        }
        for key, argv in pair.items():
            if not any(place in argument for place in LISTENING.values() for argument in argv):
                remedy = f"Use ${{SOCKET}} or ${{PORT}} in `{key}`."
                raise refuse(name, f"engine.{key}", "The process is not told where to listen.", remedy)
        told = {
            **pair,
            "ready_markers": engine.ready_markers,
            "health_path": engine.health_path,
            "parallel": engine.parallel,
        }
        where = ["--host", str(address.socket_path)] if address.socket_path is not None else ["--host", address.host]
        where += [] if address.socket_path is not None else ["--port", str(address.port)]
        model_id = model_id_of(settings, model_path) if model_path is not None else name
        return LaunchSpec(
            engine=self.kind,
            address=address,
            argv=(sys.executable, "-m", MODULE, *where, "--model-id", model_id, "--pair", json.dumps(told)),
            env=settings.env,
            working_directory=engine.working_directory,
            model_id=model_id,
            model_file=Path(model_path) if model_path and model_path.endswith(".gguf") else None,
            probe=PROBE,
            failures=FAILURES,
        )

    def watch_spec(self, name: str, settings: InstanceSettings, address: Address) -> LaunchSpec:
        """See `Engine.watch_spec`."""
        return LaunchSpec(
            engine=self.kind, address=address, model_id=settings.model, address_is_ours=False, probe=PROBE
        )


def _engine(settings: InstanceSettings) -> LinejsonEngine:
    assert isinstance(settings.engine, LinejsonEngine)
    return settings.engine
