"""The work of `projects`, `keys`, `budgets` and `usage`: ask the running server, and tell its answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

from supervisor.cli.client import Query
from supervisor.cli.formatting import MICROS, moment, money, price
from supervisor.cli.outcome import UsageProblemError
from supervisor.cli.output import say, stdout, warn
from supervisor.cli.place import ServerPlace
from supervisor.cli.telling import NOTHING, asked, count, get, tell_table, tell_words

Document = Mapping[str, Any]
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrency")
LARGEST = 2**53 - 1
LARGEST_DIGITS = len(str(LARGEST))
DEFAULT = "default"


def limits(*given: int | None) -> dict[str, int]:
    """The limits that were given, in the order of `LIMITS`, as the server takes them."""
    return {name: value for name, value in zip(LIMITS, given, strict=True) if value is not None}


def limit_changes(*given: str | None) -> dict[str, int | None]:
    """What is to be otherwise of the limits, in the order of `LIMITS`: `default` is as nobody had said anything. UsageProblemError."""
    return {name: _limit(name, text) for name, text in zip(LIMITS, given, strict=True) if text is not None}


def key_changes(label: str | None, limits: Document, *, days: int | None, no_expiry: bool) -> dict[str, Any]:
    """What is to be otherwise of a key, as the server takes it. UsageProblemError."""
    if no_expiry and days is not None:
        raise UsageProblemError("Only one of --days and --no-expiry can be given.", param="days")
    named = {} if label is None else {"label": label}
    end: dict[str, str | None] = {"expires_at": None} if no_expiry else {**expiry(days)}
    return {**named, **end, **({"limits": limits} if limits else {})}


def some(changes: dict[str, Any], example: str) -> dict[str, Any]:
    """The changes. UsageProblemError, with a command that would do, when there are none."""
    if changes:
        return changes
    raise UsageProblemError("Nothing is named that is to change.", remedy=f"For example: `{example}`. --help has all.")


def expiry(days: int | None) -> dict[str, str]:
    """The field that lets a key expire after so many days; none for None."""
    return {} if days is None else {"expires_at": (datetime.now(UTC) + timedelta(days=days)).isoformat()}


def micros(amount: str) -> int:
    """The exact micro-units of an amount of money as people write it. UsageProblemError."""
    try:
        exact = Decimal(amount) * MICROS
        if exact == int(exact) and 0 <= exact <= LARGEST:
            return int(exact)
    except (InvalidOperation, ValueError, OverflowError):
        pass
    raise UsageProblemError(
        f"{amount!r} is no amount of money.", param="money", remedy="Write it as 20 or 0.05, with six decimals at most."
    )


def show_projects(place: ServerPlace, *, as_json: bool) -> None:
    """Print all projects."""
    answer = get(place, "/admin/projects")
    columns = ("project", "tokens this month", "cost this month", "limits")
    rows = (
        (each["name"], count(each["month"]["tokens"]), _month_cost(each["month"]), _limits(each["limits"]))
        for each in answer["projects"]
    )
    tell_table(answer, columns, rows, "There is no project.", as_json=as_json)


def add_project(place: ServerPlace, wanted: Document, *, as_json: bool) -> None:
    """Add one; RefusedError when there is one of that name."""
    answer = asked(place, lambda client: client.post("/admin/projects", body=wanted))
    tell_words(answer, f"The project {answer['name']} is there.", as_json=as_json)


def change_project(place: ServerPlace, project: str, limits: Document, *, as_json: bool) -> None:
    """Change limits of it; RefusedError when there is none of that name."""
    answer = asked(place, lambda client: client.patch(_path("projects", project), {"limits": limits}))
    tell_words(
        answer, f"The project {answer['name']} is changed. Limits: {_limits(answer['limits'])}.", as_json=as_json
    )


def remove_project(place: ServerPlace, project: str, *, as_json: bool) -> None:
    """Remove it; RefusedError when there is none of that name, or it has a valid key."""
    answer = asked(place, lambda client: client.delete(_path("projects", project)))
    tell_words(answer, f"The project {answer['name']} is removed.", as_json=as_json)


def show_keys(place: ServerPlace, project: str | None, *, as_json: bool) -> None:
    """Print the keys, of one project or of all."""
    answer = get(place, "/admin/keys", {} if project is None else {"project": project})
    now = datetime.now(UTC)
    columns = ("id", "label", "project", "may", "made", "expires", "state", "limits")
    rows = (
        (
            each["id"], each["label"] or NOTHING, each["project"], ", ".join(each["scopes"]), moment(each["created_at"]),
            moment(each["expires_at"]), _key_state(each, now), _limits(each["limits"]),
        )
        for each in answer["keys"]
    )  # fmt: skip
    tell_table(answer, columns, rows, "There is no key. `llamavisor keys create` makes one.", as_json=as_json)


def create_key(place: ServerPlace, wanted: Document, *, as_json: bool) -> None:
    """Make a key. Its text alone goes to standard output, so that it can be piped to where it is kept."""
    answer = asked(place, lambda client: client.post("/admin/keys", body=wanted))
    tell_words(answer, answer["key"], as_json=as_json)
    say(f"This is the only time that the key {answer['id']} is shown. Keep it where you keep secrets.")
    if place.api_key is None:
        warn("This server lets in who has no key, too. `server.api_key` in its configuration closes it.")


def change_key(place: ServerPlace, key: str, wanted: Document, *, as_json: bool) -> None:
    """Change it; RefusedError when there is none of that id, or it is revoked."""
    answer = asked(place, lambda client: client.patch(_path("keys", key), wanted))
    label, expires = answer["label"] or NOTHING, answer["expires_at"]
    end = "never" if expires is None else moment(expires)
    told = f"The key {answer['id']} is changed. Label: {label}. Expires: {end}. Limits: {_limits(answer['limits'])}."
    tell_words(answer, told, as_json=as_json)


def revoke_key(place: ServerPlace, key: str, *, as_json: bool) -> None:
    """Revoke it; RefusedError when there is none of that id."""
    answer = asked(place, lambda client: client.delete(_path("keys", key)))
    tell_words(answer, f"The key {answer['id']} is revoked.", as_json=as_json)


def show_budgets(place: ServerPlace, *, as_json: bool) -> None:
    """Print all budgets, and how they stand."""
    answer = get(place, "/admin/budgets")
    columns = ("project", "key", "period", "of", "amount", "spent", "held back", "left", "begins anew")
    rows = (
        (
            each["project"], each["key_id"] or "all", each["period"], _unit(each), *_amounts(each), moment(each["resets_at"]),
        )
        for each in answer["budgets"]
    )  # fmt: skip
    tell_table(answer, columns, rows, "There is no budget.", as_json=as_json)


def set_budget(place: ServerPlace, wanted: Document, *, as_json: bool) -> None:
    """Set it; RefusedError when there is no such project or key."""
    answer = asked(place, lambda client: client.put("/admin/budgets", wanted))
    amount, _, _, remaining = _amounts(answer)
    whose = answer["key_id"] or answer["project"]
    told = f"{whose} may use {amount} {_unit(answer)} a {answer['period']}; {remaining} is left."
    tell_words(answer, told, as_json=as_json)


def remove_budget(place: ServerPlace, wanted: Query, *, as_json: bool) -> None:
    """Remove it, if there is one."""
    answer = asked(place, lambda client: client.delete("/admin/budgets", wanted))
    tell_words(answer, "The budget is removed." if answer["removed"] else "There was no such budget.", as_json=as_json)


def show_usage(place: ServerPlace, period: str, project: str | None, *, as_json: bool) -> None:
    """Print what a project used, by model; RefusedError when the key may not see it."""
    query = {"period": period} | ({} if project is None else {"project_id": project})
    answer = get(place, "/v1/usage", query)
    rows = [(name, count(one["tokens"]), _cost(one["cost_micros"], answer)) for name, one in answer["by_model"].items()]
    whose, unpriced = f"{answer['project_id']}, this {period}", answer["unpriced_requests"]
    total = count(answer["total_tokens"]), price(answer["total_cost_micros"], answer["currency"], unpriced)
    empty = f"{whose}: nothing was used."
    tell_table(answer, ("model", "tokens", "cost"), [*rows, (whose, *total)] if rows else [], empty, as_json=as_json)
    if as_json:
        return
    if unpriced:
        stdout().print(f"{count(unpriced)} request{'' if unpriced == 1 else 's'} without a price.", soft_wrap=True)
    for each in answer["budgets"]:
        stdout().print(_left(each), soft_wrap=True)


def _path(kind: str, name: str) -> str:
    return f"/admin/{kind}/{quote(name, safe='')}"


def _limit(name: str, text: str) -> int | None:
    if text == DEFAULT:
        return None
    if text.isascii() and text.isdigit() and len(text) <= LARGEST_DIGITS and 1 <= int(text) <= LARGEST:
        return int(text)
    option = f"--{name.replace('_', '-')}"
    raise UsageProblemError(
        f"{text!r} is no limit.", param=name, remedy=f"Write {option} as a whole number from 1 on, or `{DEFAULT}`."
    )


def _key_state(key: Document, now: datetime) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    expires = key["expires_at"]
    return "expired" if expires is not None and datetime.fromisoformat(expires) <= now else "valid"


def _limits(given: Document) -> str:
    words = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "concurrency": "at a time"}
    told = [f"{given[name]:,} {meaning}" for name, meaning in words.items() if given[name] is not None]
    return ", ".join(told) or "default"


def _left(budget: Document) -> str:
    whose = "" if budget["key_id"] is None else f" for the key {budget['key_id']}"
    amount, _, _, remaining = _amounts(budget)
    return f"Left of the budget a {budget['period']}{whose}: {remaining} of {amount} {_unit(budget)}."


def _unit(budget: Document) -> str:
    return str(budget["currency"]) if budget["unit"] == "micros" else "tokens"


def _amounts(budget: Document) -> tuple[str, ...]:
    return tuple(_amount(budget["unit"], budget[name]) for name in ("amount", "spent", "reserved", "remaining"))


def _amount(unit: str, number: int) -> str:
    return money(number) if unit == "micros" else count(number)


def _cost(micros: int | None, report: Document) -> str:
    return NOTHING if micros is None else price(micros, report["currency"], 0)


def _month_cost(month: Document) -> str:
    return price(month["cost_micros"], month["currency"], month["unpriced_requests"])
