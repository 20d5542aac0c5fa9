"""What the bodies of the routes on projects, keys and budgets ask for. Each raises MalformedRequestError that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from supervisor.errors import MalformedRequestError
from supervisor.storage.accounts import Budget, BudgetUnit, KeyChanges, LimitChanges, Period
from supervisor.storage.records import Scope
from web.account_schemas import LIMIT_NAMES
from web.fields import choice, text, whole

KEY_FIELDS = ("label", "expires_at", "limits")
PROJECT_FIELDS = ("limits",)
"""What can be changed of one that is there."""


def read_limits(document: Mapping[str, Any]) -> LimitChanges | None:
    """The limits that are named, null ones as None; None: all of them as nobody had said anything."""
    given = document.get("limits", {})
    if given is None:
        return None
    if not isinstance(given, dict):
        raise MalformedRequestError("`limits` must be an object.", param="limits")
    unknown = given.keys() - set(LIMIT_NAMES)
    if unknown:
        name = min(unknown)
        raise MalformedRequestError(
            f"There is no limit `{name}`.", param=f"limits.{name}", remedy=f"Known are {', '.join(LIMIT_NAMES)}."
        )
    return {name: _limit(given, name) for name in given}


def read_scopes(document: Mapping[str, Any]) -> frozenset[Scope]:
    """The scopes of a new key; `inference` where none are named."""
    given = document.get("scopes", [Scope.INFERENCE.value])
    if not isinstance(given, list) or not given:
        raise MalformedRequestError("`scopes` must be a list of at least one scope.", param="scopes")
    return frozenset(choice({"scopes": name}, "scopes", Scope) for name in given)


def read_expiry(document: Mapping[str, Any], now_ms: int) -> int | None:
    """When a key expires, in Unix milliseconds; None: never. What has passed at `now_ms` is refused."""
    if document.get("expires_at") is None:
        return None
    try:
        moment = datetime.fromisoformat(text(document, "expires_at"))
        at_ms = int(moment.timestamp() * 1_000)
    except (ValueError, OverflowError):
        raise MalformedRequestError(
            "`expires_at` must be a date and time as in ISO 8601.", param="expires_at"
        ) from None
    if at_ms <= now_ms:
        raise MalformedRequestError("`expires_at` has passed already.", param="expires_at")
    return at_ms


def read_key_changes(document: Mapping[str, Any], now_ms: int) -> KeyChanges:
    """What is to be otherwise of a key; null takes away what was there."""
    refuse_others(document, KEY_FIELDS, "key")
    changes: KeyChanges = {}
    if "label" in document:
        changes["label"] = text(document, "label", default="")
    if "expires_at" in document:
        changes["expires_at_ms"] = read_expiry(document, now_ms)
    if "limits" in document:
        changes["limits"] = read_limits(document)
    return changes


def refuse_others(document: Mapping[str, Any], known: tuple[str, ...], kind: str) -> None:
    """Refuse fields that cannot be changed: who sends one must not believe that it was."""
    others = document.keys() - set(known)
    if others:
        name = min(others)
        raise MalformedRequestError(
            f"`{name}` of a {kind} cannot be changed.", param=name, remedy=f"What can be is {', '.join(known)}."
        )


def read_budget(fields: Mapping[str, Any], amount: int) -> Budget:
    """The budget of that owner, period and unit."""
    key_id = text(fields, "key_id", default="") or None
    period, unit = choice(fields, "period", Period), choice(fields, "unit", BudgetUnit)
    return Budget(text(fields, "project"), period, unit, amount, key_id)


def _limit(given: Mapping[str, Any], name: str) -> int | None:
    return None if given[name] is None else whole(given, name, minimum=1, within="limits.")
