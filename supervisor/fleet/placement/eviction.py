"""Which instances must go so that another can be loaded. Pure: a function of what it needs, what is free, and who holds the rest.

Memory, GPUs and places in groups are resources alike (`resources.py`), so there is one rule for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.fleet.placement.resources import HOST, Amounts, bytes_text, is_group, missing, total, what_text

SHORTEST_RELOAD_SECONDS = 0.1


class Grip(StrEnum):
    """How firmly an instance holds what it holds.

    `idle`: it may be unloaded now. `busy`: it serves requests. `wanted`: somebody who came no later waits for it. `loading`: it is not ready yet.
    `leaving`: it is being stopped. These four give way in time. `pinned`: never, for another's sake.
    """

    IDLE = "idle"
    BUSY = "busy"
    WANTED = "wanted"
    LOADING = "loading"
    LEAVING = "leaving"
    PINNED = "pinned"


IN_TIME = (Grip.LEAVING, Grip.LOADING, Grip.BUSY, Grip.WANTED)
"""Who gives way by itself sooner or later, the soonest first."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """An instance that holds resources: loading, loaded, or on its way out.

    `holds` comes back when it is gone. `reserved` is the part of it that the machine counts as free although it is spoken for; `gives_back` what the
    machine will count as free once it is gone, and does not now. `idle_seconds` since its last request (or since it was ready), `reload_seconds`
    what it costs to have it back. `wanted_since` is when the first came of those who wait for it, `ready_since` when it became ready (monotonic;
    None: nobody, not yet).
    """

    name: str
    holds: Amounts
    grip: Grip = Grip.IDLE
    reserved: Amounts = field(default_factory=dict)
    gives_back: Amounts = field(default_factory=dict)
    idle_seconds: float = 0.0
    reload_seconds: float = SHORTEST_RELOAD_SECONDS
    wanted_since: float | None = None
    ready_since: float | None = None

    @property
    def expendability(self) -> tuple[float, int]:
        """The largest goes first: the longest idle in terms of what it costs to have it back; of equals, the one that frees most memory."""
        return self.idle_seconds / max(self.reload_seconds, SHORTEST_RELOAD_SECONDS), self.holds.get(HOST, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen before the target can be loaded.

    Neither field set: nothing. `evict`: these go now. `waits_for`: these are in its way and give way in time; nobody need go before they do.
    `lacks` is what is missing at present; with it alone set, no waiting helps.
    """

    evict: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    lacks: Amounts = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether the target can be loaded now."""
        return not self.lacks

    @property
    def is_hopeless(self) -> bool:
        """Whether nothing that may go or end would make room."""
        return bool(self.lacks) and not self.evict and not self.waits_for


def plan(needs: Amounts, tenants: Sequence[Tenant], free: Amounts) -> Plan:
    """How a target that needs `needs` finds room. `tenants` are the others, the target not among them.

    Evicts only idle tenants, as few as will do: none of them could be left out. Those that are leaving count as gone already.
    """
    lacks = missing(needs, free)
    if not lacks:
        return Plan()
    leaving = [tenant for tenant in tenants if tenant.grip is Grip.LEAVING]
    still = _still_lacking(lacks, leaving)
    if not still:
        return Plan(waits_for=_names(_enough(leaving, lacks) or leaving), lacks=lacks)
    idle = sorted(_with(tenants, Grip.IDLE), key=lambda tenant: tenant.expendability, reverse=True)
    chosen = _enough(idle, still)
    if chosen is not None:
        return Plan(evict=_names(chosen), lacks=lacks)
    others = [tenant for grip in IN_TIME for tenant in _with(tenants, grip)]
    chosen = _enough([*idle, *others], lacks)
    if chosen is None:
        return Plan(lacks=lacks)
    return Plan(waits_for=_names(tenant for tenant in chosen if tenant.grip is not Grip.IDLE), lacks=lacks)


def _enough(candidates: Sequence[Tenant], lacks: Amounts) -> list[Tenant] | None:
    """The first candidates that together give back what is lacking, without any that turns out to be needless; None when all are not enough."""
    chosen: list[Tenant] = []
    open_ = dict(lacks)
    for tenant in candidates:
        if any(tenant.holds.get(resource) for resource in open_):
            chosen.append(tenant)
            open_ = _still_lacking(open_, [tenant])
        if not open_:
            return _without_needless(chosen, lacks)
    return None


def _without_needless(chosen: list[Tenant], lacks: Amounts) -> list[Tenant]:
    """Leave out whom the others make needless, beginning with the least expendable."""
    kept = list(chosen)
    for tenant in reversed(chosen):
        rest = [other for other in kept if other is not tenant]
        if not _still_lacking(lacks, rest):
            kept = rest
    return kept


def _still_lacking(lacks: Amounts, gone: Iterable[Tenant]) -> dict[str, int]:
    given = total(tenant.holds for tenant in gone)
    left = {resource: lack - given.get(resource, 0) for resource, lack in lacks.items()}
    return {resource: lack for resource, lack in left.items() if lack > 0}


def _with(tenants: Iterable[Tenant], grip: Grip) -> list[Tenant]:
    return [tenant for tenant in tenants if tenant.grip is grip]


def _names(tenants: Iterable[Tenant]) -> tuple[str, ...]:
    return tuple(tenant.name for tenant in tenants)


def shortage_text(needs: Amounts, free: Amounts, tenants: Sequence[Tenant]) -> str:
    """What is lacking, for people: `needs 5.1 GB of memory, 3.2 GB are free, 2 busy`."""
    parts = [_lack_text(resource, needs[resource], free[resource]) for resource in missing(needs, free)]
    counts = [(grip, len(_with(tenants, grip))) for grip in (Grip.BUSY, Grip.WANTED, Grip.LOADING, Grip.PINNED)]
    return ", ".join([*parts, *(f"{count} {grip.value}" for grip, count in counts if count)])


def _lack_text(resource: str, need: int, free: int) -> str:
    if is_group(resource):
        return f"{what_text(resource)} has no place left"
    return f"needs {bytes_text(need)} of {what_text(resource)}, {bytes_text(max(0, free))} free"
