"""What is kept loaded although nobody waits for it, and for how long. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """An instance as one of its endpoint's replicas.

    `is_ready`; `is_loaded`: that, or on its way there. `is_engaged`: it serves requests, or somebody waits for it. `may_start`: it rests, and nobody
    stopped it by hand. `used_at`: when its last request ended, or it became ready (monotonic). `ttl_seconds`: None if it stays for ever.
    """

    name: str
    endpoint: str
    is_ready: bool = False
    is_loaded: bool = False
    is_engaged: bool = False
    may_start: bool = False
    used_at: float = 0.0
    ttl_seconds: float | None = None


def rested(replicas: Sequence[Replica], spares: Mapping[str, int], now: float) -> tuple[tuple[str, ...], float | None]:
    """Those that have been idle for so long that they are unloaded now, and when to look again (None: when something has changed).

    `spares`: how many idle replicas an endpoint keeps; the most recently used stay. Who is engaged may be due its whole time later at the earliest.
    """
    spare_now = _idle_by_endpoint(replicas)
    due: list[str] = []
    looks: list[float] = []
    for replica in sorted(replicas, key=lambda one: one.used_at):
        if replica.ttl_seconds is None or not replica.is_ready:
            continue
        ends_at = (now if replica.is_engaged else replica.used_at) + replica.ttl_seconds
        if ends_at > now:
            looks.append(ends_at)
        elif spare_now[replica.endpoint] > spares.get(replica.endpoint, 0):
            spare_now[replica.endpoint] -= 1
            due.append(replica.name)
    return tuple(due), min(looks, default=None)


def wanted_ahead(replicas: Sequence[Replica], spares: Mapping[str, int]) -> tuple[str, ...]:
    """Those to load so that each endpoint has its idle spares, in the order of the configuration."""
    idle = _idle_by_endpoint(replicas)
    ahead: list[str] = []
    for replica in replicas:
        if replica.may_start and idle[replica.endpoint] < spares.get(replica.endpoint, 0):
            idle[replica.endpoint] += 1
            ahead.append(replica.name)
    return tuple(ahead)


def _idle_by_endpoint(replicas: Sequence[Replica]) -> Counter[str]:
    return Counter(one.endpoint for one in replicas if one.is_loaded and not one.is_engaged)
