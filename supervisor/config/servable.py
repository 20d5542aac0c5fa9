"""Whether a configuration that is right in itself can be served here: as safe as it must be, and with all that it needs installed."""

from __future__ import annotations

from importlib.util import find_spec

from supervisor.config.problems import ConfigError, Problem
from supervisor.config.server_settings import check_exposure
from supervisor.config.settings import Settings


def check_servable(settings: Settings) -> ConfigError | None:
    """Why `serve` would refuse it: codes `exposed_bind` and `extra_missing`, with every remedy; None when it would not."""
    exposed = check_exposure(settings.server)
    problems = [*(exposed.problems if exposed is not None else ()), *_missing_extras(settings)]
    return ConfigError(exposed.code if exposed is not None else "extra_missing", problems) if problems else None


def _missing_extras(settings: Settings) -> list[Problem]:
    wanted = (
        (settings.telemetry.endpoint, "telemetry.endpoint", "otel", "opentelemetry.exporter.otlp.proto.http"),
        (settings.storage.url, "storage.url", "postgres", "psycopg"),
    )
    return [
        Problem(
            key,
            f"`{key}` needs the extra `{extra}`, which is not installed",
            f"install it (pip install 'llamavisor[{extra}]'), or remove `{key}`",
        )
        for value, key, extra, module in wanted
        if value is not None and not _is_installed(module)
    ]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # A package above it is not there either.
        return False
