"""Usage and costs by time in the shapes of OpenAI's administration API (`/v1/organization/usage/completions`, `/v1/organization/costs`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.gateway.costs import cost_number
from supervisor.storage.usage import UsageSum

MILLISECONDS = 1_000
BUCKET_SECONDS = {"1m": 60, "1h": 3_600, "1d": 86_400}
BUCKETS_DEFAULT = {"1m": 60, "1h": 24, "1d": 7}
BUCKETS_MOST = {"1m": 1_440, "1h": 168, "1d": 400}
_WHO = {"project_id": "project", "api_key_id": "key_id"}
GENERATING = ("chat", "completions", "responses", "messages")
"""The surfaces whose requests are completions."""

Group = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """What is told by time. `groups`: by what it may be divided, and what the books call that; `surfaces` whose requests count (none: all)."""

    groups: Mapping[str, str]
    surfaces: tuple[str, ...]
    result: Callable[[UsageSum, Group, str], dict[str, Any]]


def buckets(
    report: Report, sums: Sequence[UsageSum], by: Sequence[str], starts_ms: Sequence[int], width_ms: int, currency: str
) -> list[dict[str, Any]]:
    """One for each start; `sums` are grouped by bucket, and then by `by` (of the report's groups)."""
    found: dict[int, list[dict[str, Any]]] = {start: [] for start in starts_ms}
    for one in sums:
        group = dict(zip(by, one.group[1:], strict=True))
        found.setdefault(int(one.group[0]), []).append(report.result(one, group, currency))
    return [
        {
            "object": "bucket",
            "start_time": start // MILLISECONDS,
            "end_time": (start + width_ms) // MILLISECONDS,
            "results": results,
        }
        for start, results in sorted(found.items())
    ]


def _usage_result(one: UsageSum, group: Group, _currency: str) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": one.prompt_tokens,
        "output_tokens": one.completion_tokens,
        "input_cached_tokens": one.cached_tokens,
        "num_model_requests": one.requests,
        **{name: group.get(name) for name in ("project_id", "api_key_id", "model")},
        "user_id": None,
        "batch": bool(group["batch"]) if "batch" in group else None,
    }


def _cost_result(one: UsageSum, group: Group, currency: str) -> dict[str, Any]:
    """`unpriced_requests` is ours: requests of which the cost is not known, so that it is not in the amount."""
    return {
        "object": "organization.costs.result",
        "amount": {"value": cost_number(one.cost_micros), "currency": currency.lower()},
        **{name: group.get(name) for name in ("line_item", "project_id", "api_key_id")},
        "unpriced_requests": one.unpriced,
    }


USAGE = Report({**_WHO, "model": "model", "batch": "batch"}, GENERATING, _usage_result)
COSTS = Report({**_WHO, "line_item": "model"}, (), _cost_result)
