"""What `status` shows: the instances as the events tell them, as a table. Pure: the time is given."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from supervisor.cli.formatting import duration
from supervisor.cli.output import printable

MILLISECONDS = 1_000
STYLES = {
    "ready": "green",
    "starting": "cyan",
    "crashed": "red",
    "error": "bold red",
    "stopping": "yellow",
    "initial": "dim",
}
COLUMNS = ("instance", "state", "model", "pid", "uptime", "retries", "why")
NOTHING = "–"

Instance = Mapping[str, Any]


class Board:
    """The newest truth of every instance, in the order of the configuration.

    `skew_seconds` is the server's clock less ours, so that times of another machine count from the right moment.
    """

    def __init__(self, picture: Mapping[str, Any], now: float | None = None) -> None:
        here = time.time() if now is None else now
        self.skew_seconds = picture["timestamp"] / MILLISECONDS - here
        self.cursor = f"{picture['epoch']}:{picture['seq']}"
        self.note: str | None = None
        self._instances: dict[str, Instance] = {one["instance"]: one for one in picture["instances"]}

    def take(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take in the `data` of an event of `/events`; kinds that change nothing here are passed over."""
        self.note = None
        if kind == "llama_status":
            self._instances[data["instance"]] = data
        elif kind == "instance_removed":
            self._instances.pop(data["instance"], None)
        elif kind == "snapshot":
            known = self._instances
            self._instances = {name: known[name] for name in data["instances"] if name in known}
        elif kind == "shutdown":
            self.note = str(data.get("message") or "The supervisor is shutting down.")

    def table(self, now: float | None = None) -> Table:
        """The table at the moment `now` (unix seconds, ours)."""
        server_now = (time.time() if now is None else now) + self.skew_seconds
        table = Table(
            *COLUMNS, box=None, pad_edge=False, header_style="bold", caption=self.note, caption_justify="left"
        )
        for column in table.columns[:-1]:
            column.no_wrap = True
        for instance in self._instances.values():
            table.add_row(*_cells(instance, server_now))
        if not self._instances:
            table.add_row(Text("no instance is configured", "dim"))
        return table


def _cells(instance: Instance, now: float) -> tuple[Text, ...]:
    state = instance["status"]
    models = ", ".join(printable(str(model["name"])) for model in instance["models"])
    started = instance["startedAt"]
    uptime = duration(now - datetime.fromisoformat(started).timestamp()) if started is not None else NOTHING
    return (
        Text(instance["instance"], "bold"),
        Text(state, STYLES.get(state, "")),
        Text(models or NOTHING),
        Text(str(instance["pid"] or NOTHING)),
        Text(uptime),
        Text(f"{instance['retries']}/{instance['maxRetries']}"),
        Text(printable(why(instance, now))),
    )


def why(instance: Instance, now: float) -> str:
    """Why an instance is not ready, with the seconds until its next try; of a ready one, what is worth knowing."""
    state, due = instance["status"], instance["nextRetryAt"]
    if state == "ready":
        return "adopted" if instance["adopted"] else ""
    if state == "crashed":
        again = f"; next try in {max(0.0, due / MILLISECONDS - now):.0f} s" if due is not None else ""
        return f"{instance['lastError']}{again}"
    if state == "starting":
        share = instance["progress"]
        loading = f"loading, {share:.0%}" if share is not None else "loading"
        return (
            f"{loading} (after: {instance['lastCrash']})" if instance["retries"] and instance["lastCrash"] else loading
        )
    return str(instance["explanation"])
