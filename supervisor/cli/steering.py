"""The work of `start`, `stop`, `restart` and `reload`: ask, then wait for the outcome and tell it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from rich.status import Status

from supervisor.cli.client import Client
from supervisor.cli.outcome import ConnectionLostError
from supervisor.cli.output import print_json, printable, stderr, stdout
from supervisor.cli.place import ServerPlace
from supervisor.errors import LlamavisorError

Verb = Literal["start", "stop", "restart"]
Instance = Mapping[str, Any]


class NotAchievedError(LlamavisorError):
    """The instance settled in another state than the one asked for, or not in time."""

    code, status = "not_achieved", 409


@dataclass(frozen=True, slots=True)
class Wish:
    """What an instance is asked for, and how long the outcome is waited for (None: as long as it takes)."""

    verb: Verb
    name: str
    wait: bool = True
    timeout_seconds: float | None = None
    kill: bool = False

    @property
    def goal(self) -> str:
        """The state that fulfils it."""
        return "initial" if self.verb == "stop" else "ready"


@dataclass(slots=True)
class Judge:
    """Whether a wish is fulfilled or has failed, told by the states seen since. Pure."""

    wish: Wish
    begun: bool = field(default=False)

    def fulfilled(self, instance: Instance) -> bool:
        """Take in the newest state; NotAchievedError when the goal is out of reach."""
        state = instance["status"]
        if state == self.wish.goal:
            return True
        if state == "error" or (self.wish.verb != "stop" and self._was_stopped(state)):
            raise NotAchievedError(printable(str(instance["explanation"])), details=dict(instance))
        self.begun |= state == "starting"
        return False

    def _was_stopped(self, state: str) -> bool:
        """A restart passes through `stopping` and `initial` on its way; once it is `starting`, these mean that somebody stopped it."""
        return state in ("stopping", "initial") and (self.begun or self.wish.verb == "start")


def steer(place: ServerPlace, wish: Wish, *, as_json: bool) -> None:
    """Carry a wish out and print how it ended; RefusedError when the server refuses, NotAchievedError when it came otherwise."""
    instance = asyncio.run(_carry_out(place, wish))
    if as_json:
        print_json(instance)
    else:
        stdout().print(_told(wish, instance), soft_wrap=True)


def reload_server(place: ServerPlace, *, as_json: bool) -> None:
    """Have the configuration read again and print what changed."""
    report = asyncio.run(_post(place, "/admin/reload"))
    if as_json:
        print_json(report)
        return
    changes = {"added": "added", "removed": "removed", "changed": "not as before", "unchanged": "left running"}
    changes["needs_restart"] = "need a restart of the supervisor"
    lines = [f"{words}: {', '.join(report[key])}" for key, words in changes.items() if report.get(key)]
    stdout().print("\n".join(["The configuration was read again.", *lines]), soft_wrap=True)


async def _post(place: ServerPlace, path: str) -> Any:
    async with Client(place) as client:
        return await client.post(path)


async def _carry_out(place: ServerPlace, wish: Wish) -> Instance:
    query = {"kill": 1} if wish.kill else None
    async with Client(place) as client:
        instance: Instance = await client.post(f"/admin/instances/{quote(wish.name, safe='')}/{wish.verb}", query)
        if not wish.wait:
            return instance
        try:
            async with asyncio.timeout(wish.timeout_seconds):
                return await _outcome(client, wish, instance)
        except TimeoutError:
            limit = f"{wish.timeout_seconds:g} s"
            remedy = "It goes on; `llamavisor status` shows how."
            raise NotAchievedError(f"{wish.name} is not {wish.goal} after {limit}.", remedy=remedy) from None


async def _outcome(client: Client, wish: Wish, instance: Instance) -> Instance:
    judge = Judge(wish)
    console = stderr()
    spinner = console.status(_progress(instance)) if console.is_terminal else nullcontext()
    with spinner as shown:
        async with aclosing(_states(client, wish.name)) as states:
            async for instance in states:
                if judge.fulfilled(instance):
                    return instance
                if isinstance(shown, Status):
                    shown.update(_progress(instance))
    raise ConnectionLostError("The server ended the connection before the outcome was known.")


async def _states(client: Client, name: str) -> AsyncGenerator[Instance]:
    """The instance as it is, then as it becomes."""
    async with aclosing(client.follow("/events", {"instance": name})) as events:
        async for event in events:
            if event.type == "llama_status":
                yield json.loads(event.data)["data"]
            elif event.type == "instance_removed":
                raise NotAchievedError(f"{name} was taken out of the configuration.")


def _progress(instance: Instance) -> str:
    return f"{instance['instance']}: {printable(str(instance['headline']))}"


def _told(wish: Wish, instance: Instance) -> str:
    name, state = instance["instance"], instance["status"]
    if not wish.wait:
        return f"{name}: {wish.verb} was asked for; it is {state}."
    if state == "ready":
        return f"{name} is ready (pid {instance['pid']})."
    return f"{name} is stopped."
