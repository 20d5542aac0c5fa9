"""A Llamavisor to measure: its configuration with everything on that a request passes, its key, its engines."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from benchmarks._processes import Processes, hear, wait_until

PROJECT = "benchmark"
# Never reached, but counted and compared for each request.
FAR_LIMIT = 1_000_000_000
FAR_BUDGETS = {"micros": 10**15, "tokens": 10**15}
PRICE = {"input": "0.15", "output": "0.60"}
ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class House:
    """A Llamavisor that runs and is ready. `key` opens its inference routes (None: no key is needed), `engines` and `engine_pids` are by instance."""

    process: subprocess.Popen[str]
    pid: int
    address: str
    key: str | None
    engines: Mapping[str, str]
    engine_pids: Mapping[str, int]


def our_configuration(instances: Mapping[str, Any], server_key: str, *, everything_on: bool) -> dict[str, Any]:
    """Keys, limits, prices and budgets; or, with everything off, a server that is open to all and has no price."""
    if not everything_on:
        return {"server": {"port": 0}, "instances": instances}
    limits = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "concurrency"), FAR_LIMIT)
    accounting = {"prices": dict.fromkeys(instances, PRICE), "limits": {"key": limits, "project": limits}}
    return {"server": {"port": 0, "api_key": server_key}, "accounting": accounting, "instances": instances}


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration file, and what is needed to start what it describes. `server_key` is None when everything is off."""

    configuration: Path
    data_folder: Path
    instances: frozenset[str]
    server_key: str | None


def plan_house(folder: Path, instances: Mapping[str, Any], *, everything_on: bool = True) -> Plan:
    """Write the configuration into `folder`; the data will be there too."""
    configuration, server_key = folder / "llamavisor.json", secrets.token_hex(16)
    configuration.touch(mode=0o600)
    configuration.write_text(json.dumps(our_configuration(instances, server_key, everything_on=everything_on)))
    return Plan(configuration, folder / "data", frozenset(instances), server_key if everything_on else None)


def launch(processes: Processes, plan: Plan) -> subprocess.Popen[str]:
    """`llamavisor serve`, not waited for."""
    return processes.module("benchmarks._supervised", plan.configuration, plan.data_folder)


def await_house(process: subprocess.Popen[str], plan: Plan, key: str | None) -> House:
    """The house, once all its instances are ready."""
    told = hear(process)
    lines = ready_lines(process, plan.instances)
    engines = {name: line["address"].removeprefix("http://") for name, line in lines.items()}
    pids = {name: line["pid"] for name, line in lines.items()}
    return House(process, told["pid"], told["url"].removeprefix("http://"), key, engines, pids)


def open_house(processes: Processes, instances: Mapping[str, Any], *, everything_on: bool = True) -> House:
    """`llamavisor serve` with those instances, waited for until all are ready, and a key of a project with limits and budgets."""
    plan = plan_house(processes.folder, instances, everything_on=everything_on)
    house = await_house(launch(processes, plan), plan, None)
    return house if plan.server_key is None else replace(house, key=issue_key(house.address, plan.server_key))


def ready_lines(ours: subprocess.Popen[str], names: Set[str]) -> dict[str, Any]:
    """What `benchmarks._supervised` said of each instance when it was ready, once all are."""
    lines: dict[str, Any] = {}

    def look() -> bool | None:
        line = hear(ours)
        if line["state"] == "ready":
            lines[line["instance"]] = line
        return set(lines) == names or None

    wait_until(look, "the instances to be ready")
    return lines


def issue_key(address: str, server_key: str) -> str:
    """A project, its budgets, and a key of it that may call models."""
    ask(address, server_key, "POST", "/admin/projects", {"name": PROJECT})
    for unit, amount in FAR_BUDGETS.items():
        budget = {"project": PROJECT, "period": "month", "unit": unit, "amount": amount}
        ask(address, server_key, "PUT", "/admin/budgets", budget)
    issued = ask(address, server_key, "POST", "/admin/keys", {"project": PROJECT, "label": "benchmark"})
    return str(issued["key"])


def ask(address: str, key: str, method: str, path: str, body: object = None) -> Any:
    """One request with the key; the JSON of the answer. OSError when it is none of 2xx."""
    request = Request(
        f"http://{address}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=ANSWER_SECONDS) as response:
        return json.load(response)


def mock(program: Path, folder: Path, events: int, pace_us: int = 0) -> dict[str, Any]:
    """Settings of an instance that is the mock engine."""
    argv = [str(program), str(folder / "births"), "${PORT}", str(events), str(pace_us)]
    return {"engine": {"kind": "command", "argv": argv}}
