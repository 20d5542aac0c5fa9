"""What was used, as it is told."""

from __future__ import annotations

import csv

import pytest

from supervisor.gateway.accounting.reports import csv_head, csv_lines
from supervisor.storage.records import AcceptedRequest, Settlement, TokenUsage, UsageRecord

OPEN = UsageRecord(AcceptedRequest("a", "p", None, "m", "chat", stream=False, accepted_at_ms=1), None)
SETTLED = UsageRecord(OPEN.request._replace(id="b"), Settlement("b", "ok", TokenUsage(5, 7), 42, 2, error_code="=1+1"))


@pytest.mark.parametrize("records", [[], [OPEN], [OPEN, SETTLED], [SETTLED, OPEN]])
def test_csv_has_every_column_whatever_comes_first(records: list[UsageRecord]) -> None:
    reader = csv.DictReader((csv_head() + csv_lines(records)).splitlines())
    rows = {row["id"]: row for row in reader}
    assert {"id", "outcome", "cost_micros", "usage_total_tokens", "energy_method"} <= set(reader.fieldnames or ())
    assert len(rows) == len(records)
    if SETTLED in records:
        told = rows["b"]
        assert (told["cost_micros"], told["usage_total_tokens"], told["error_code"]) == ("42", "12", "'=1+1")
    if OPEN in records:
        assert (rows["a"]["outcome"], rows["a"]["cost_micros"]) == ("", "")
