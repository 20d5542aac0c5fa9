"""What those are told who wait for an instance in vain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from supervisor.errors import NotAvailableError
from supervisor.fleet.placement.eviction import Grip, Tenant
from supervisor.fleet.placement.schedule import Lack
from supervisor.process.instance import Instance

NO_ROOM_RETRY_SECONDS = 30.0


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
    if lack.reason == "group":
        return NotAvailableError(message, code="group_full", remedy=stays or None, **told)
    remedy = "Lower its `ctx_size`, take a smaller model, stop another, or raise `memory.limit_bytes`."
    return NotAvailableError(message, code="no_memory", remedy=f"{remedy} {stays}".strip(), **told)


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
