"""`llamavisor serve` in a process of a benchmark's own, that also says when each state was published.

    python -m benchmarks._supervised CONFIG DATA_FOLDER

Prints one line of JSON for the address (`{"url", "pid"}`), and one for each state that an instance enters:
`{"instance", "state", "ns", "pid", "address"}`, `ns` by CLOCK_MONOTONIC, right after the event was published.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from supervisor.cli.serving import ServePlan, Server
from supervisor.config import LoadedSettings, load_settings
from supervisor.core import Supervisor
from supervisor.loop import run
from supervisor.process.instance import Instance
from supervisor.process.states import State

LINE_DELAY_SECONDS = 0.02


def main(config: Path, data_folder: Path) -> int:
    """Serve until told to end by a signal."""

    def load() -> LoadedSettings:
        return load_settings(config, environ={})

    return run(Server(ServePlan(load(), data_folder, load, announce)).run())


def announce(supervisor: Supervisor, url: str) -> None:
    """Say where it is, and from now on what happens to every instance."""
    say({"url": url, "pid": os.getpid()})
    for instance in supervisor.fleet.instances():
        report(instance, instance.state)
        instance.on_change(lambda state, instance=instance: report(instance, state))  # type: ignore[misc]


def report(instance: Instance, state: State) -> None:
    """Note the moment; the words come later, so that they are no part of what is measured."""
    at_ns = time.monotonic_ns()
    asyncio.get_running_loop().call_later(LINE_DELAY_SECONDS, tell, instance, state, at_ns)


def tell(instance: Instance, state: State, at_ns: int) -> None:
    """One line about one state."""
    snapshot = instance.snapshot()
    pid = snapshot.pid if state is State.READY else None
    say({"instance": instance.name, "state": state.value, "ns": at_ns, "pid": pid, "address": snapshot.address})


def say(message: object) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
