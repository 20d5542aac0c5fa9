"""JSON Schemas of projects, keys, budgets and usage; more components of the OpenAPI document."""

from __future__ import annotations

from supervisor.gateway.inflight import Stage
from supervisor.storage.accounts import BudgetUnit, Period
from supervisor.storage.records import Scope
from web.registry import Schema
from web.schemas import BOOLEAN, INTEGER, NUMBER, STRING, array, described, optional, record, ref

LIMIT_NAMES = ("requests_per_minute", "tokens_per_minute", "concurrency")
_LIMIT = optional({**INTEGER, "minimum": 1})
LIMITS = record(
    {name: described(_LIMIT, "Left out or null: the default.") for name in LIMIT_NAMES}, optional_keys=LIMIT_NAMES
)
LIMIT_CHANGES = described(
    optional(
        record(
            {name: described(_LIMIT, "Left out: as it was; null: the default.") for name in LIMIT_NAMES},
            optional_keys=LIMIT_NAMES,
        )
    ),
    "Null: the defaults.",
)
SCOPE: Schema = {"type": "string", "enum": [scope.value for scope in Scope]}
PERIOD: Schema = {"type": "string", "enum": [period.value for period in Period]}
UNIT: Schema = {"type": "string", "enum": [unit.value for unit in BudgetUnit]}

CURRENCY = described(STRING, "`accounting.currency`.")
IN_UNIT = "In `unit`: millionths of `currency` (`micros`), or tokens."
UNPRICED = described(INTEGER, "Requests whose tokens have no price; the cost is without them.")

_ACCOUNTS: dict[str, Schema] = {
    "Limits": record({name: optional(INTEGER) for name in LIMIT_NAMES}),
    "Project": record(
        {
            "name": STRING,
            "limits": ref("Limits"),
            "month": record(
                {
                    "tokens": INTEGER,
                    "cost_micros": described(INTEGER, "In millionths of `currency`."),
                    "currency": CURRENCY,
                    "unpriced_requests": UNPRICED,
                }
            ),
        }
    ),
    "Key": record(
        {
            "id": STRING,
            "project": STRING,
            "label": STRING,
            "scopes": array(SCOPE),
            "created_at": STRING,
            "expires_at": optional(STRING),
            "revoked_at": optional(STRING),
            "limits": ref("Limits"),
        }
    ),
    "NewKey": {"allOf": [ref("Key"), record({"key": described(STRING, "The key itself: `lv-ID-SECRET`.")})]},
    "Budget": record(
        {
            "project": STRING,
            "key_id": optional(STRING),
            "period": PERIOD,
            "unit": UNIT,
            "amount": described(INTEGER, IN_UNIT),
            "spent": described(INTEGER, IN_UNIT),
            "reserved": described(INTEGER, f"Held back for requests on their way. {IN_UNIT}"),
            "remaining": described(INTEGER, IN_UNIT),
            "resets_at": STRING,
            "currency": CURRENCY,
        }
    ),
}

_OPTIONAL_TEXT = optional(STRING)
_USAGE: dict[str, Schema] = {
    "Usage": record(
        {
            "project_id": STRING,
            "period": STRING,
            "total_tokens": INTEGER,
            "total_cost": described(NUMBER, "In units of `currency`: 1.5 is one and a half. Without what has no price."),
            "total_cost_micros": described(INTEGER, "The same, exactly: in millionths of `currency`."),
            "by_model": described(
                {
                    "type": "object",
                    "additionalProperties": record({"tokens": INTEGER, "cost": optional(NUMBER), "cost_micros": optional(INTEGER)}),
                },
                "`tokens`, `cost` and `cost_micros` of each, as the totals; null when some of it has no price.",
            ),
            "limit": described(INTEGER, f"Of the tightest budget for this period. {IN_UNIT}"),
            "remaining": described(INTEGER, f"Of the same budget. {IN_UNIT}"),
            "unit": described(UNIT, "Of `limit` and `remaining`."),
            "currency": CURRENCY,
            "unpriced_requests": UNPRICED,
            "budgets": described(array(ref("Budget")), "All that bound the project, and the key that asks; the smallest share left first."),
        },
        optional_keys=("limit", "remaining", "unit"),
    ),
    "BucketPage": record(
        {
            "object": {"const": "page"},
            "data": array(record({"object": STRING, "start_time": INTEGER, "end_time": INTEGER, "results": array({"type": "object"})})),
            "has_more": BOOLEAN,
            "next_page": _OPTIONAL_TEXT,
        }
    ),
    "InFlightRequest": record(
        {
            "id": STRING,
            "object": {"const": "request.in_flight"},
            "client_request_id": _OPTIONAL_TEXT,
            "project": STRING,
            "key_id": _OPTIONAL_TEXT,
            "key_label": _OPTIONAL_TEXT,
            "endpoint": described(STRING, "What was asked for: an endpoint, by whichever of its names, or the id of a model."),
            "surface": STRING,
            "stream": BOOLEAN,
            "batch_id": _OPTIONAL_TEXT,
            "accepted_at": STRING,
            "seconds": described(NUMBER, "Since then."),
            "stage": {"type": "string", "enum": [stage.value for stage in Stage]},
            "instance": described(_OPTIONAL_TEXT, "Null while it waits."),
            "waiting": optional(
                record(
                    {
                        "position": described(INTEGER, "1 is next."),
                        "estimate_seconds": described(optional(NUMBER), "Null when nobody knows."),
                        "state": described(STRING, "Of the instance."),
                        "progress": described(optional(NUMBER), "Of the load of the model, 0 to 1."),
                        "reason": described(_OPTIONAL_TEXT, "Why that load has not begun."),
                    }
                )
            ),
            "completion_tokens": described(INTEGER, "Counted so far, of a stream."),
        }
    ),
    "Receipt": record(
        {
            "id": STRING, "object": {"const": "request"}, "client_request_id": _OPTIONAL_TEXT, "project": STRING, "key_id": _OPTIONAL_TEXT,
            "endpoint": STRING, "surface": STRING, "stream": BOOLEAN, "batch_id": _OPTIONAL_TEXT, "accepted_at": STRING,
            "outcome": described(_OPTIONAL_TEXT, "Null while it is on its way."), "error_code": _OPTIONAL_TEXT, "model": _OPTIONAL_TEXT,
            "instance": _OPTIONAL_TEXT, "revision": optional(INTEGER), "route_reason": _OPTIONAL_TEXT, "settled_at": STRING,
            "usage": record({"prompt_tokens": INTEGER, "cached_tokens": INTEGER, "completion_tokens": INTEGER, "total_tokens": INTEGER,
                             "source": STRING}),
            "cost": record({"micros": optional(INTEGER), "input_price_micros": optional(INTEGER), "output_price_micros": optional(INTEGER),
                            "currency": CURRENCY}),
            "timings": record({"queued_ms": optional(NUMBER), "first_byte_ms": optional(NUMBER), "total_ms": optional(NUMBER)}),
            "energy": record({"millijoules": optional(INTEGER), "co2_micrograms": optional(INTEGER), "method": _OPTIONAL_TEXT}),
        },
        optional_keys=("error_code", "model", "instance", "revision", "route_reason", "settled_at", "usage", "cost", "timings", "energy"),
    ),
}  # fmt: skip

ACCOUNT_COMPONENTS = {**_ACCOUNTS, **_USAGE}
