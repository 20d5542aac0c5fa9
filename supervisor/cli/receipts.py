"""The work of `requests`: ask the running server for requests and receipts, and tell its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from supervisor.cli.client import Query
from supervisor.cli.formatting import MICROS, money, waiting_words
from supervisor.cli.place import ServerPlace
from supervisor.cli.telling import NOTHING, asked, count, get, tell_table, tell_words

Document = Mapping[str, Any]
MILLISECONDS = 1_000
IN_FLIGHT = "/v1/requests/in-flight"


def show_requests(place: ServerPlace, wanted: Query, *, as_json: bool) -> None:
    """Print requests, newest first."""
    answer = get(place, "/admin/requests", wanted)
    columns = ("accepted", "id", "project", "model", "kind", "outcome", "tokens", "cost", "seconds")
    rows = (_request_row(each) for each in answer["requests"])
    tell_table(answer, columns, rows, "There is no such request.", as_json=as_json)


def show_running(place: ServerPlace, *, as_json: bool) -> None:
    """Print the requests that are on their way, oldest first."""
    answer = get(place, IN_FLIGHT)
    columns = ("id", "project", "key", "model", "kind", "stage", "tokens", "seconds")
    rows = (_running_row(each) for each in answer["requests"])
    tell_table(answer, columns, rows, "No request is on its way.", as_json=as_json)


def show_receipt(place: ServerPlace, request: str, *, as_json: bool) -> None:
    """Print all that is known of one request; RefusedError when there is none of that id."""
    answer = get(place, f"/v1/requests/{quote(request, safe='')}")
    tell_table(answer, ("", ""), _receipt_rows(answer), "", as_json=as_json)


def cancel_request(place: ServerPlace, request: str, *, as_json: bool) -> None:
    """End it; RefusedError when it is not on its way, or another's."""
    answer = asked(place, lambda client: client.delete(f"{IN_FLIGHT}/{quote(request, safe='')}"))
    tell_words(answer, f"The request {answer['id']} is cancelled.", as_json=as_json)


def _request_row(receipt: Document) -> tuple[str, ...]:
    used = receipt.get("usage")
    return (
        _moment(receipt["accepted_at"]),
        receipt["id"],
        receipt["project"],
        receipt.get("model") or receipt["endpoint"],
        receipt["surface"],
        receipt["outcome"] or "on its way",
        NOTHING if used is None else count(used["total_tokens"]),
        _cost(receipt.get("cost")),
        _seconds(receipt.get("timings", {}).get("total_ms")),
    )


def _running_row(one: Document) -> tuple[str, ...]:
    return (
        one["id"],
        one["project"],
        one["key_label"] or one["key_id"] or NOTHING,
        one["instance"] or one["endpoint"],
        one["surface"],
        one["stage"] if one["waiting"] is None else f"{one['stage']}, {waiting_words(one['waiting'])}",
        count(one["completion_tokens"]),
        f"{one['seconds']:.1f}",
    )


def _receipt_rows(receipt: Document) -> Iterator[tuple[str, str]]:
    """What is known, a fact a row."""
    model = receipt.get("model")
    yield "request", receipt["id"]
    yield "x-request-id", receipt["client_request_id"] or NOTHING
    yield "project, key", f"{receipt['project']}, {receipt['key_id'] or NOTHING}"
    yield "asked for", f"{receipt['endpoint']} ({receipt['surface']}{', stream' if receipt['stream'] else ''})"
    yield "accepted", _moment(receipt["accepted_at"])
    if receipt["outcome"] is None:
        yield "outcome", "on its way"
        return
    code = receipt["error_code"]
    yield "outcome", receipt["outcome"] if code is None else f"{receipt['outcome']} ({code})"
    yield "served by", f"{receipt['instance'] or NOTHING}{'' if model is None else f', {model}'}"
    yield "why there", receipt["route_reason"] or "it was asked for"
    yield from _figures(receipt)


def _figures(receipt: Document) -> Iterator[tuple[str, str]]:
    used, cost, timings, energy = (receipt[name] for name in ("usage", "cost", "timings", "energy"))
    prompt, cached, completion = (count(used[f"{name}_tokens"]) for name in ("prompt", "cached", "completion"))
    yield "tokens", f"{prompt} of the prompt ({cached} cached), {completion} of the answer; told by: {used['source']}"
    yield "cost", _cost(cost)
    waited, first, total = (_seconds(timings[f"{name}_ms"]) for name in ("queued", "first_byte", "total"))
    yield "seconds", f"{total} in all, {waited} in line, first byte after {first}"
    if energy["method"] is not None:
        joules, grams = energy["millijoules"] / MILLISECONDS, (energy["co2_micrograms"] or 0) / MICROS
        yield "energy", f"{joules:.3f} J, {grams:.6f} gCO2; method: {energy['method']}"


def _cost(cost: Document | None) -> str:
    return NOTHING if cost is None or cost["micros"] is None else f"{money(cost['micros'])} {cost['currency']}"


def _moment(text: str) -> str:
    return f"{text[:19].replace('T', ' ')}Z"


def _seconds(milliseconds: float | None) -> str:
    return NOTHING if milliseconds is None else f"{milliseconds / MILLISECONDS:.2f}"
