"""What to do next, of all that is wanted: whose turn it is, who yields, who must wait. Pure: a function of one look at everything.

The oldest want comes first. A younger one may overtake it only if it fits beside it: then the elder loses nothing. One load at a time for each
resource, so that what a load takes is seen before the next one counts on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from supervisor.fleet.placement.eviction import Grip, Plan, Tenant, plan, shortage_text
from supervisor.fleet.placement.resources import HOST, Amounts, is_group, minus, total

NOT_YET_BACK_LOOK_SECONDS = 0.1
"""Memory that is not given back yet tells nobody when it is; so long until it is looked for again."""


@dataclass(frozen=True, slots=True)
class Target:
    """An instance that is wanted and not loaded; `since` is when the first of those who wait came (monotonic seconds)."""

    name: str
    needs: Amounts
    since: float


@dataclass(frozen=True, slots=True)
class Situation:
    """One look at everything.

    `targets` oldest first. `tenants` are those who hold something. `free` may go to newcomers. `loading` is what the loads that were begun here and
    are not ready yet take part in. `not_back` are resources whose last holder is gone, while the machine does not show it yet.
    """

    targets: Sequence[Target]
    tenants: Sequence[Tenant]
    free: Amounts
    now: float
    patience_seconds: float
    loading: frozenset[str] = frozenset()
    not_back: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lack:
    """What a target has not got: `text` for people; `reason` is `memory` or `group`, or `turn` while another load takes from the same resource."""

    reason: Literal["memory", "group", "turn"]
    text: str


@dataclass(frozen=True, slots=True)
class Eviction:
    """`victims` make room for `target`, because of what it lacks."""

    target: str
    victims: tuple[str, ...]
    lack: Lack


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    At most one of `load` and `eviction`. By target: `refused` is what it lacks, and no waiting helps; `waiting` what it has to wait for.
    `held` take no new requests until a target that ran out of patience had its turn. `look_again_at`: when time alone changes the decision.
    """

    load: str | None = None
    eviction: Eviction | None = None
    refused: Mapping[str, Lack] = field(default_factory=dict)
    waiting: Mapping[str, Lack] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    look_again_at: float | None = None


def decide(situation: Situation) -> Decision:
    """What to do next about the targets."""
    walk = _Walk(situation)
    for target in situation.targets:
        if walk.take(target):
            break
    return walk.decision()


def spare_room(situation: Situation, needs: Amounts) -> bool:
    """Whether something that nobody waits for may be loaded: nobody else's turn is put off, and nobody goes for it."""
    return not situation.targets and _is_free_to_load(situation, needs) and plan(needs, (), situation.free).fits


class _Walk:
    """Goes through the targets, the oldest first, and keeps for each what it needs before the next has its say."""

    def __init__(self, situation: Situation) -> None:
        self._at = situation
        self._kept: list[Amounts] = []
        self._result = Decision()
        self._refused: dict[str, Lack] = {}
        self._waiting: dict[str, Lack] = {}
        self._held: set[str] = set()
        self._looks: list[float] = []

    def decision(self) -> Decision:
        """What the walk came to."""
        return replace(
            self._result,
            refused=self._refused,
            waiting=self._waiting,
            held=frozenset(self._held),
            look_again_at=min(self._looks, default=None),
        )

    def take(self, target: Target) -> bool:
        """Have a target's turn; whether the walk ends here, because something is to be done first."""
        tenants = [as_seen_by(target, tenant) for tenant in self._at.tenants if tenant.name != target.name]
        free = minus(self._at.free, total(self._kept))
        is_first = not self._kept
        found = plan(target.needs, tenants, free)
        if found.fits:
            return self._load(target)
        text = shortage_text(target.needs, free, tenants)
        if self._at.not_back & found.lacks.keys():
            self._looks.append(self._at.now + NOT_YET_BACK_LOOK_SECONDS)
            self._wait(target, _lack(found, f"{text}; the memory of what was unloaded is not back yet"))
        elif is_first and found.evict:
            self._result = Decision(eviction=Eviction(target.name, found.evict, _lack(found, text)))
            return True
        elif plan(target.needs, tenants, self._at.free).is_hopeless:
            self._refused[target.name] = _lack(found, text)
        else:
            self._wait(target, _lack(found, text))
            self._lose_patience(target, found, tenants)
        return False

    def _load(self, target: Target) -> bool:
        if not _is_free_to_load(self._at, target.needs):
            self._wait(target, Lack("turn", "another model is being loaded"))
            return False
        self._result = Decision(load=target.name)
        return True

    def _wait(self, target: Target, lack: Lack) -> None:
        self._kept.append(target.needs)
        self._waiting[target.name] = lack

    def _lose_patience(self, target: Target, found: Plan, tenants: Sequence[Tenant]) -> None:
        """Who is busy in the way has been served for long enough once the target has waited so long, and it has been ready for so long."""
        for tenant in tenants:
            if tenant.name not in found.waits_for or tenant.grip is not Grip.BUSY or _is_wanted_before(target, tenant):
                continue
            ends_at = max(target.since, tenant.ready_since or 0.0) + self._at.patience_seconds
            if ends_at <= self._at.now:
                self._held.add(tenant.name)
            else:
                self._looks.append(ends_at)


def as_seen_by(target: Target, tenant: Tenant) -> Tenant:
    """An idle tenant for which somebody waits who came no later than those of the target is not idle to it."""
    is_wanted = tenant.grip is Grip.IDLE and _is_wanted_before(target, tenant)
    return replace(tenant, grip=Grip.WANTED) if is_wanted else tenant


def _is_wanted_before(target: Target, tenant: Tenant) -> bool:
    return tenant.wanted_since is not None and tenant.wanted_since <= target.since


def _lack(found: Plan, text: str) -> Lack:
    return Lack("group" if all(is_group(resource) for resource in found.lacks) else "memory", text)


def _is_free_to_load(situation: Situation, needs: Amounts) -> bool:
    return not takes_part(needs) & situation.loading


def takes_part(needs: Amounts) -> frozenset[str]:
    """The resources that a load is the only one to take from meanwhile."""
    return frozenset(resource for resource in needs if not is_group(resource)) or frozenset({HOST})
