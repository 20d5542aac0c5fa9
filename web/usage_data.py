"""What the page on usage shows: sums over a stretch of time, by project, model or key, as a chart, a table and totals. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.storage.usage import UsageSum
from web.fields import iso

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
GROUPS_MOST = 7
"""The chart has so many colours; what is beyond is added up as one."""
OTHERS = "all others"
NO_KEY = "without a key"
METRICS: Mapping[str, str] = {"tokens": "Tokens", "cost": "Cost", "requests": "Requests"}
GROUPS: Mapping[str, tuple[str, str]] = {
    "model": ("model", "Model"),
    "project": ("project", "Project"),
    "key": ("key_id", "Key"),
}
"""How the page calls a way to divide it up: the column of the records, and the word for people."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time that ends now, in steps of `width_ms`; the steps begin where UTC's days and hours do."""

    words: str
    span_ms: int
    width_ms: int

    def starts(self, now_ms: int) -> list[int]:
        """Where each step begins, the present one last; Unix milliseconds."""
        last = now_ms - now_ms % self.width_ms
        return list(range(last - self.span_ms + self.width_ms, last + 1, self.width_ms))


STRETCHES: Mapping[str, Stretch] = {
    "day": Stretch("24 hours", DAY_MS, HOUR_MS),
    "week": Stretch("7 days", 7 * DAY_MS, 6 * HOUR_MS),
    "month": Stretch("30 days", 30 * DAY_MS, DAY_MS),
    "quarter": Stretch("90 days", 90 * DAY_MS, DAY_MS),
}


@dataclass(slots=True)
class Figures:
    """What some requests used together. `unpriced` of them used tokens that have no price, so that `cost_micros` is without those."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micros: int = 0
    unpriced: int = 0

    def add(self, one: UsageSum | Figures) -> None:
        """Count these too."""
        self.requests += one.requests
        self.prompt_tokens += one.prompt_tokens
        self.completion_tokens += one.completion_tokens
        self.cost_micros += one.cost_micros
        self.unpriced += one.unpriced

    def metric(self, name: str) -> int:
        """One of METRICS; cost in micro-units."""
        if name == "cost":
            return self.cost_micros
        return self.requests if name == "requests" else self.prompt_tokens + self.completion_tokens


def usage_picture(
    sums: Sequence[UsageSum], starts: Sequence[int], metric: str, labels: Mapping[str | None, str]
) -> dict[str, Any]:
    """`total`, `rows` (most first), `steps` (newest first) and `chart`, of sums by step and group; `labels` has other words for some groups.

    The chart holds the groups' values step by step in the order of the rows, each row with the number of its colour in `series`.
    """
    total, by_group, by_step = Figures(), dict[str, Figures](), {start: Figures() for start in starts}
    cells: dict[tuple[str, int], Figures] = {}
    ranked = _ranked(sums, metric, labels)
    for one in sums:
        start, name = int(one.group[0]), ranked[_label(one.group[1], labels)]
        for figures in (
            total,
            by_group.setdefault(name, Figures()),
            by_step.setdefault(start, Figures()),
            cells.setdefault((name, start), Figures()),
        ):
            figures.add(one)
    names = [name for name in dict.fromkeys(ranked.values()) if name in by_group]
    whole = max(1, total.metric(metric))
    return {
        "total": total,
        "rows": [
            {"name": name, "series": at, "figures": by_group[name], "share": by_group[name].metric(metric) / whole}
            for at, name in enumerate(names)
        ],
        "steps": [{"start": iso(start), "figures": by_step[start]} for start in sorted(by_step, reverse=True)],
        "chart": {
            "metric": metric,
            "times": [start // 1_000 for start in starts],
            "series": [
                {
                    "name": name,
                    "values": [cells[name, start].metric(metric) if (name, start) in cells else 0 for start in starts],
                }
                for name in names
            ],
        },
    }


def _label(group: str | None, labels: Mapping[str | None, str]) -> str:
    return labels.get(group, NO_KEY if group is None else str(group))


def _ranked(sums: Sequence[UsageSum], metric: str, labels: Mapping[str | None, str]) -> dict[str, str]:
    """Each group's name, most first, and under which name it is shown."""
    wholes: dict[str, Figures] = {}
    for one in sums:
        wholes.setdefault(_label(one.group[1], labels), Figures()).add(one)
    names = sorted(wholes, key=lambda name: (-wholes[name].metric(metric), name))
    most = GROUPS_MOST if len(names) <= GROUPS_MOST else GROUPS_MOST - 1
    return {name: name if at < most else OTHERS for at, name in enumerate(names)}
