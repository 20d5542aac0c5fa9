"""`LaunchSpec`: all that the process layer must know to run and watch an inference server, as data.

Engines make it (purely), `process/` carries it out and knows no engine.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a Unix socket, or host and port (of a TCP server, plain HTTP or HTTPS)."""

    socket_path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    https: bool = False
    prefix: str = ""

    @property
    def base_url(self) -> str:
        """What to put before a path for an HTTP client (over a Unix socket the host part is a placeholder)."""
        if self.socket_path is not None:
            return "http://localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.https else 'http'}://{host}:{self.port}{self.prefix}"

    def __str__(self) -> str:
        return f"unix:{self.socket_path}" if self.socket_path is not None else self.base_url


@dataclass(frozen=True, slots=True)
class Signature:
    """How a server of this engine is told from a stranger when adopted: a GET on `path` answers 200 and JSON with all of `keys` at top level."""

    path: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CounterSpec:
    """Counters that show life, read from a Prometheus text page.

    `advancing`: each grows when tokens are decoded or prompts processed. `busy`: gauges whose sum is the number of active requests.
    """

    path: str
    advancing: tuple[str, ...]
    busy: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Canary:
    """A request for one token, sent when it is in doubt whether the engine still decodes. `body` is JSON text."""

    path: str
    body: str


@dataclass(frozen=True, slots=True)
class FailurePattern:
    """What a line of output says about why the process died.

    `pattern` is a regular expression searched in each line; `reason` the machine code; `permanent`: no retry helps; `remedy` for the person.
    `last`: it only counts where no other does, one that holds for any program included.
    """

    pattern: str
    reason: str
    permanent: bool = False
    remedy: str | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """How to ask a server how it is. `models_paths` are asked in order. `openai`: it has the OpenAI routes.

    `parts_path` tells the process ids of those that a server consists of, by name.
    """

    health_path: str = "/health"
    models_paths: tuple[str, ...] = ("/api/models", "/v1/models", "/models")
    signature: Signature | None = None
    counters: CounterSpec | None = None
    canary: Canary | None = None
    slots_path: str | None = None
    parts_path: str | None = None
    openai: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One inference server: what to execute and how to watch it.

    `argv` is empty when the instance only adopts (a configured `url`). `env` is added to the supervisor's environment, never shown.
    `model_file` is the file whose reading shows load progress. `address_is_ours`: we chose the address for our own child, so whoever else
    answers there is a stranger. `load_progress` is a regular expression whose first group is the loaded percentage (0–100) in an output line.
    """

    engine: str
    address: Address
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_directory: Path | None = None
    model_id: str | None = None
    model_file: Path | None = None
    address_is_ours: bool = True
    probe: ProbeSpec = field(default_factory=ProbeSpec)
    failures: tuple[FailurePattern, ...] = ()
    load_progress: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
