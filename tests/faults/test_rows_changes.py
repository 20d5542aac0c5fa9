"""Fault rows 53 and 54: a bad configuration on reload, and everybody wanting something at once."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from supervisor.config import ConfigError
from supervisor.errors import LlamavisorError, StateConflictError
from supervisor.process.states import State
from tests.fixtures.house import House, misbehaving

pytestmark = pytest.mark.faults


async def test_row_53_a_bad_configuration_leaves_the_old_one_in_force(house: House) -> None:
    good = misbehaving(house.model)
    await house.open({"one": good})
    before = await house.reach("one", State.READY)
    house.configure({"one": {**good, "modell": "x"}})
    with pytest.raises(ConfigError) as refusal:
        await house.supervisor.reload()
    assert "instances.one.modell" in str(refusal.value)
    assert "model" in str(refusal.value)
    assert house["one"].snapshot().pid == before.pid
    assert house.supervisor.events.since(0)[-1].type == "configuration_refused"  # type: ignore[index]


async def test_row_53_a_reload_touches_only_what_changed(house: House) -> None:
    kept, changed, gone = (misbehaving(house.model) for _ in range(3))
    await house.open({"kept": kept, "changed": changed, "gone": gone})
    pids = {name: (await house.reach(name, State.READY)).pid for name in ("kept", "changed", "gone")}
    house.configure(
        {
            "kept": misbehaving(house.model, supervision={"max_retries": 9}),
            "changed": misbehaving(house.model, knobs={"parallel": 3}),
            "new": misbehaving(house.model),
        }
    )
    report = await house.supervisor.reload()
    assert (report.added, report.removed, report.changed, report.retuned) == (
        ("new",),
        ("gone",),
        ("changed",),
        ("kept",),
    )
    assert (await house.reach("kept", State.READY)).pid == pids["kept"]
    assert house["kept"].snapshot().max_retries == 9
    assert (await house.reach("changed", State.READY)).pid != pids["changed"]
    await house.reach("new", State.READY)
    assert house.supervisor.fleet.names() == ["kept", "changed", "new"]


async def test_row_54_requests_from_all_sides_leave_one_server_or_none(house: House) -> None:
    await house.open({"one": misbehaving(house.model), "two": misbehaving(house.model)})
    chance = random.Random(54)
    refused: list[str] = []

    async def somebody() -> None:
        for _ in range(12):
            wish = chance.choice(["start", "stop", "restart", "reload"])
            try:
                if wish == "reload":
                    await house.supervisor.reload()
                else:
                    await getattr(house.supervisor.fleet, wish)(chance.choice(["one", "two"]))
            except LlamavisorError as error:
                refused.append(error.code)
            await asyncio.sleep(chance.random() * 0.05)

    await asyncio.gather(*(somebody() for _ in range(6)))
    assert set(refused) <= {"state_conflict"}
    for name in ("one", "two"):
        if house[name].state in (State.STOPPING, State.INITIAL):
            await house.reach(name, State.INITIAL)
            # Refused when the last wish was a restart: it goes on by itself.
            with contextlib.suppress(StateConflictError):
                await house.supervisor.fleet.start(name)
        await house.reach(name, State.READY)
    assert len(house.processes()) == 2
