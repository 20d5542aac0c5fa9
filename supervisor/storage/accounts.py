"""What is known of who may call, as immutable values: keys, limits, budgets, and what was used a day. Units as in `records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypedDict

from supervisor.errors import LlamavisorError
from supervisor.storage.records import Scope

LimitChanges = Mapping[str, int | None]
"""By the names of `Limits`: what is to be otherwise; None: nothing is said any more. What is not named stays."""


class KeyRevokedError(LlamavisorError):
    """The key is revoked for good: only what people call it can be changed."""

    code, status = "key_revoked", 409


class Period(StrEnum):
    """A stretch of the calendar in UTC: a day, an ISO week (Monday to Sunday), a month."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class BudgetUnit(StrEnum):
    """What a budget counts: micro-units of the currency, or tokens of prompt and completion."""

    MICROS = "micros"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast and how much at a time. None: nothing is said (an override leaves the default as it is; a default sets no limit)."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None

    def over(self, defaults: Limits) -> Limits:
        """These, with `defaults` where nothing is said."""
        return Limits(
            defaults.requests_per_minute if self.requests_per_minute is None else self.requests_per_minute,
            defaults.tokens_per_minute if self.tokens_per_minute is None else self.tokens_per_minute,
            defaults.concurrency if self.concurrency is None else self.concurrency,
        )

    def changed(self, changes: LimitChanges | None) -> Limits:
        """These, with the changes (None: nothing is said of any). TypeError for a name that is none."""
        return NO_LIMITS if changes is None else replace(self, **changes)


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Project:
    """Who pays, and what differs from the default limits of a project."""

    name: str
    limits: Limits = NO_LIMITS


class KeyChanges(TypedDict, total=False):
    """What is to be otherwise of a key; what is not named stays. `limits` as `Limits.changed` takes them."""

    label: str
    expires_at_ms: int | None
    limits: LimitChanges | None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is kept: everything but its secret, of which only the SHA-256 is known. `limits` differ from the defaults of a key.

    A key whose `expires_at_ms` has come or whose `revoked_at_ms` is set is no longer valid; its record stays, for what it used.
    """

    id: str
    project: str
    secret_sha256: bytes = field(repr=False)
    scopes: frozenset[Scope]
    created_at_ms: int
    label: str = ""
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    limits: Limits = NO_LIMITS

    def is_valid_at(self, now_ms: int) -> bool:
        """It is neither revoked nor expired at that time."""
        return self.revoked_at_ms is None and (self.expires_at_ms is None or self.expires_at_ms > now_ms)

    def changed(self, changes: KeyChanges) -> KeyRecord:
        """The key with the changes. KeyRevokedError when it is revoked, and anything but its label would be another."""
        changed = replace(
            self,
            label=changes.get("label", self.label),
            expires_at_ms=changes.get("expires_at_ms", self.expires_at_ms),
            limits=self.limits.changed(changes.get("limits", {})),
        )
        if self.revoked_at_ms is not None and replace(changed, label=self.label) != self:
            raise KeyRevokedError(
                f"The key {self.id!r} is revoked: nothing but its label can be changed.",
                param="id",
                remedy="Make a new one: `llamavisor keys create`.",
            )
        return changed


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a project (or, of it, one key) may use within each period. An `amount` of zero allows nothing at all."""

    project: str
    period: Period
    unit: BudgetUnit
    amount: int
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class UsedInDay:
    """What the settled requests that were accepted within one UTC day used together, by project and key (None: without a key).

    `unpriced_requests` of them used tokens that have no price.
    """

    project: str
    key_id: str | None
    day_start_ms: int
    micros: int
    tokens: int
    unpriced_requests: int
