"""Lists a page at a time, in OpenAI's way."""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.gateway.batch.paging import Page
from web.bodies import query_integer
from web.registry import Parameter, Schema
from web.schemas import BOOLEAN, INTEGER, STRING, array, optional, record


def page_of(query: Mapping[str, str], *, default: int, maximum: int) -> Page:
    """The page that `limit` and `after` ask for."""
    return Page(query_integer(query, "limit", default, minimum=1, maximum=maximum), query.get("after"))


def page_parameters(default: int, maximum: int) -> tuple[Parameter, ...]:
    """`limit` and `after`, for the route's documentation."""
    limit: Schema = {**INTEGER, "minimum": 1, "maximum": maximum, "default": default}
    return (
        Parameter("limit", "How many at most.", limit),
        Parameter("after", "Only those that follow the one with this id.", STRING),
    )


def page_schema(item: Schema) -> Schema:
    """OpenAI's list object."""
    ends = {"first_id": optional(STRING), "last_id": optional(STRING), "has_more": BOOLEAN}
    return record({"object": {"const": "list"}, "data": array(item), **ends})
