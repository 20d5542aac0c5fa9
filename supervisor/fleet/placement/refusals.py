"""What those are told who wait for an instance in vain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from supervisor.errors import NotAvailableError
from supervisor.fleet.placement.eviction import Grip, Tenant
from supervisor.fleet.placement.schedule import Lack
from supervisor.process.instance import Instance
from supervisor.process.states import State

NO_ROOM_RETRY_SECONDS = 30.0
NOT_YET_RETRY_SECONDS = 5.0
_CODES = {"memory": "no_memory", "group": "group_full", "turn": State.INITIAL.value}


def no_room(name: str, lack: Lack, tenants: Sequence[Tenant]) -> NotAvailableError:
    """There is not enough of something, and nobody who may go or is about to end would make room."""
    staying = [tenant.name for tenant in tenants if tenant.grip is Grip.PINNED]
    stays = f"{', '.join(staying)} stay loaded: pinned, or not `on_demand`." if staying else ""
    told: dict[str, Any] = {
        "param": "model",
        "retry_after_seconds": NO_ROOM_RETRY_SECONDS,
        "details": {"instance": name},
    }
    message = f"{name} cannot be loaded: {lack.text}."
    code = _CODES[lack.reason]
    if lack.reason == "group":
        return NotAvailableError(message, code=code, remedy=stays or None, **told)
    remedy = "Lower its `ctx_size`, take a smaller model, stop another, or raise `memory.limit_bytes`."
    return NotAvailableError(message, code=code, remedy=f"{remedy} {stays}".strip(), **told)


def not_yet(name: str, lack: Lack) -> NotAvailableError:
    """It will be loaded, but somebody waited for that as long as they may."""
    return NotAvailableError(
        f"{name} is not loaded yet: {lack.text}.",
        code=_CODES[lack.reason],
        param="model",
        retry_after_seconds=NOT_YET_RETRY_SECONDS,
        remedy="Try again later, or raise `gateway.queue_seconds`.",
        details={"instance": name},
    )


def not_on_demand(instance: Instance) -> NotAvailableError:
    """It rests, and no request may start it."""
    return _not_available(instance, None)


def was_stopped(instance: Instance) -> NotAvailableError:
    """Somebody stopped it while they waited."""
    return _not_available(instance, None)


def failed(instance: Instance, again_in_seconds: float | None) -> NotAvailableError:
    """It cannot run; `again_in_seconds`: when the next request may try again, if requests may at all."""
    return _not_available(instance, again_in_seconds)


def _not_available(instance: Instance, retry_after_seconds: float | None) -> NotAvailableError:
    snapshot = instance.snapshot()
    return NotAvailableError(
        snapshot.explanation(),
        code=snapshot.cause.reason.value if snapshot.cause is not None else snapshot.state.value,
        param="model",
        retry_after_seconds=retry_after_seconds,
        details={"instance": snapshot.name, "state": snapshot.state.value},
    )
