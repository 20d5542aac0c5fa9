"""The engine `command`: any program that serves HTTP. It is watched through its health path; what it decodes, nobody can tell."""

from __future__ import annotations

import re
from pathlib import Path

from supervisor.config.engine_settings import CommandEngine
from supervisor.config.settings import InstanceSettings
from supervisor.engines.base import is_address_ours, refuse
from supervisor.launch import Address, LaunchSpec, ProbeSpec

SOCKET_PLACEHOLDER = "${SOCKET}"
LISTEN_PLACEHOLDERS = ("${PORT}", SOCKET_PLACEHOLDER)
KNOWN_NAMES = ("PORT", "HOST", "SOCKET", "MODEL")
PLACEHOLDER = re.compile(r"(?P<literal>\$)?\$\{(?P<name>[^{}]*)\}")


class Command:
    """See the module. `${PORT}`, `${HOST}`, `${SOCKET}` and `${MODEL}` are put into `argv` and `env`; `$${PORT}` stands for itself."""

    kind = "command"

    def uses_unix_socket(self, settings: InstanceSettings) -> bool:
        """When the command says where to put one."""
        return any(SOCKET_PLACEHOLDER in text for text in _texts(settings))

    def launch_spec(
        self, name: str, settings: InstanceSettings, address: Address, model_path: str | None
    ) -> LaunchSpec:
        """See `Engine.launch_spec`."""
        engine = _engine(settings)
        if not engine.argv:
            raise refuse(name, "engine.argv", "There is no command to start.", "Set `argv`.")
        ours = is_address_ours(settings)
        if ours and not any(placeholder in text for placeholder in LISTEN_PLACEHOLDERS for text in _texts(settings)):
            remedy = "Use ${PORT} or ${SOCKET} in `argv` or `env`, or set the `port` that it listens on."
            raise refuse(name, "engine.argv", "The command is not told where to listen.", remedy)
        values = _values(address, model_path)
        return LaunchSpec(
            engine=self.kind,
            address=address,
            argv=tuple(substitute(name, "engine.argv", argument, values) for argument in engine.argv),
            env={key: substitute(name, f"env.{key}", value, values) for key, value in settings.env.items()},
            working_directory=engine.working_directory,
            model_id=settings.model,
            model_file=Path(model_path) if model_path and model_path.endswith(".gguf") else None,
            address_is_ours=ours,
            probe=_probe_spec(engine),
        )

    def watch_spec(self, name: str, settings: InstanceSettings, address: Address) -> LaunchSpec:
        """See `Engine.watch_spec`."""
        probe = _probe_spec(_engine(settings))
        return LaunchSpec(
            engine=self.kind, address=address, model_id=settings.model, address_is_ours=False, probe=probe
        )


def substitute(name: str, key: str, text: str, values: dict[str, str | None]) -> str:
    """Put `values` into the placeholders of `text`. Names that are unknown, or have no value here, are refused with what would help."""

    def value_of(match: re.Match[str]) -> str:
        if match["literal"]:
            return match[0][1:]
        placeholder = match["name"]
        if placeholder not in values:
            known = ", ".join(f"${{{each}}}" for each in KNOWN_NAMES)
            remedy = f"Known are {known}; write $${{{placeholder}}} for the text itself."
            raise refuse(name, key, f"There is no placeholder ${{{placeholder}}}.", remedy)
        value = values[placeholder]
        if value is None:
            raise refuse(name, key, f"${{{placeholder}}} has no value here.", _REMEDIES[placeholder])
        return value

    return PLACEHOLDER.sub(value_of, text)


_REMEDIES = {
    "MODEL": "Set `model`.",
    "SOCKET": "The instance listens on a port: use ${PORT}, or set `socket`.",
    "PORT": "The instance listens on a Unix socket: use ${SOCKET}, or set `port`.",
    "HOST": "The instance listens on a Unix socket: use ${SOCKET}, or set `port`.",
}


def _texts(settings: InstanceSettings) -> tuple[str, ...]:
    return (*_engine(settings).argv, *settings.env.values())


def _values(address: Address, model_path: str | None) -> dict[str, str | None]:
    on_tcp = address.socket_path is None
    return {
        "PORT": str(address.port) if on_tcp else None,
        "HOST": address.host if on_tcp else None,
        "SOCKET": None if on_tcp else str(address.socket_path),
        "MODEL": model_path,
    }


def _probe_spec(engine: CommandEngine) -> ProbeSpec:
    return ProbeSpec(health_path=engine.health_path, openai=engine.openai)


def _engine(settings: InstanceSettings) -> CommandEngine:
    assert isinstance(settings.engine, CommandEngine)
    return settings.engine
