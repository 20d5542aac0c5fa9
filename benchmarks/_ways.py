"""The ways to an engine that the gateway benchmark compares: direct, nginx, a bare aiohttp proxy, LiteLLM's proxy, Llamavisor."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

from benchmarks._compiler import build_mock_engine
from benchmarks._house import mock, open_house
from benchmarks._nginx import Server, find_nginx, nginx_version, start_nginx
from benchmarks._processes import ROOT, Processes, hear, wait_until

DIRECT, NGINX, BARE, LITELLM, OURS = "direct", "nginx", "bare aiohttp", "LiteLLM", "Llamavisor"
WAYS = (DIRECT, NGINX, BARE, LITELLM, OURS)
BURST, PACED, DEMO = "burst", "paced", "demo"
BURST_EVENTS = 64
PACED_EVENTS = 32
PACE_US = 5_000
SLOTS = 2
LITELLM_PATIENCE_SECONDS = 240.0
LITELLM_PROGRAM = ROOT / ".venv-litellm" / "bin" / "litellm"


@dataclass(frozen=True, slots=True)
class Kind:
    """What is asked for: of which instance, streamed or whole."""

    instance: str
    stream: bool


@dataclass(frozen=True, slots=True)
class Way:
    """Where requests of each kind go in, with which key, and the processes whose processor time and memory count (direct: none).

    `version` of a program that is none of our own packages.
    """

    addresses: Mapping[Kind, str]
    pids: tuple[int, ...] = ()
    key: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Engines:
    """The running engines: the address of each instance, and the processes of all of them."""

    addresses: Mapping[str, str]
    pids: tuple[int, ...]

    def kinds(self) -> list[Kind]:
        """What they can be asked for."""
        return [Kind(instance, stream) for instance in self.addresses for stream in (False, True)]


def start(
    processes: Processes, names: Sequence[str], instances: Set[str], *, everything_on: bool
) -> tuple[dict[str, Way], Engines]:
    """Llamavisor with those instances, and those other ways to the same instances that are named and can be had."""
    ours, engines = start_ours(processes, instances, everything_on=everything_on)
    ways = {DIRECT: Way({kind: engines.addresses[kind.instance] for kind in engines.kinds()})}
    if NGINX in names and (nginx := start_nginx_way(processes, engines)) is not None:
        ways[NGINX] = nginx
    if BARE in names:
        ways[BARE] = start_bare(processes, engines)
    if LITELLM in names and LITELLM_PROGRAM.exists():
        ways[LITELLM] = start_litellm(processes, engines)
    if OURS in names:
        ways[OURS] = ours
    return ways, engines


def start_ours(processes: Processes, names: Set[str], *, everything_on: bool) -> tuple[Way, Engines]:
    """`llamavisor serve`, with those of two mock engines and the demo model."""
    program = build_mock_engine(processes.folder)
    instances = {
        BURST: mock(program, processes.folder, BURST_EVENTS),
        PACED: mock(program, processes.folder, PACED_EVENTS, PACE_US),
        # A port, because LiteLLM cannot reach a Unix socket.
        DEMO: {
            "engine": {"kind": "embedded", "parallel": SLOTS},
            "model": "demo",
            "port": free_port(),
            # Asked past the door by sixty-four at once, it answers no probe, and would be taken for dead.
            "supervision": {"liveness_misses": 1_000},
        },
    }
    chosen = {name: instances[name] for name in instances if name in names}
    house = open_house(processes, chosen, everything_on=everything_on)
    engines = Engines(house.engines, tuple(house.engine_pids.values()))
    return Way(dict.fromkeys(engines.kinds(), house.address), (house.pid,), house.key), engines


def start_nginx_way(processes: Processes, engines: Engines) -> Way | None:
    """nginx at its best: it keeps its connections to the engine, but for streams of the real one, which closes them without a word."""
    program = find_nginx(processes.folder)
    if program is None:
        return None
    ports = {kind: free_port() for kind in engines.kinds()}
    servers = [
        Server(f"{kind.instance}_{kind.stream:d}", port, engines.addresses[kind.instance], kind != Kind(DEMO, True))
        for kind, port in ports.items()
    ]
    pids = start_nginx(program, servers, processes)
    addresses = {kind: f"127.0.0.1:{port}" for kind, port in ports.items()}
    return Way(addresses, tuple(pids), version=nginx_version(program))


def start_bare(processes: Processes, engines: Engines) -> Way:
    """A bare proxy to each engine; those that have nothing to do cost nothing."""
    told = {
        name: hear(processes.module("benchmarks._bare_proxy", address)) for name, address in engines.addresses.items()
    }
    addresses = {kind: f"127.0.0.1:{told[kind.instance]['port']}" for kind in engines.kinds()}
    return Way(addresses, tuple(each["pid"] for each in told.values()))


def start_litellm(processes: Processes, engines: Engines) -> Way:
    """LiteLLM's proxy as its documentation starts it: one worker, a master key, no database, and nothing that it would send out."""
    configuration, port, key = processes.folder / "litellm.yaml", free_port(), f"sk-{secrets.token_hex(32)}"
    configuration.write_text(json.dumps(litellm_configuration(engines)))
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MASTER_KEY": key,
    }
    argv: list[str | Path] = [LITELLM_PROGRAM, "--config", configuration, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--num_workers", "1", "--telemetry", "False"]
    process = processes.start("litellm", argv, env=environment, cwd=processes.folder, logs_output=True)

    def answers() -> bool | None:
        if process.poll() is not None:
            raise RuntimeError(f"LiteLLM ended: {(processes.folder / 'litellm.log').read_text()[-2000:]}")
        return is_there(f"http://127.0.0.1:{port}/health/liveliness") or None

    # The first start after the installation compiles every module.
    wait_until(answers, "LiteLLM to answer", pause_seconds=0.2, patience_seconds=LITELLM_PATIENCE_SECONDS)
    return Way(dict.fromkeys(engines.kinds(), f"127.0.0.1:{port}"), family(process.pid), key, litellm_version())


def litellm_configuration(engines: Engines) -> dict[str, Any]:
    """Each instance is a model behind an OpenAI-compatible address."""
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{name}", "api_base": f"http://{address}/v1", "api_key": "none"},
            }
            for name, address in engines.addresses.items()
        ],
        "litellm_settings": {"telemetry": False},
    }


def is_there(url: str) -> bool:
    """Whether it answers with 200."""
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def family(pid: int) -> tuple[int, ...]:
    """A process and all its descendants."""
    return (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))


def free_port() -> int:
    """A port of loopback that nobody has, for programs that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def litellm_version() -> str:
    """The version that is installed in its environment."""
    code = "from importlib.metadata import version; print(version('litellm'))"
    python = str(LITELLM_PROGRAM.with_name("python"))
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
