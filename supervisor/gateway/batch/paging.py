"""Lists a page at a time, as OpenAI gives them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from supervisor.errors import MalformedRequestError


class Item(Protocol):
    """What can be listed."""

    @property
    def id(self) -> str:
        """Its name, which is also the cursor."""

    def to_wire(self) -> dict[str, Any]:
        """Its JSON."""


T = TypeVar("T", bound=Item)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: at most `limit` items, those after the one whose id is `after`."""

    limit: int
    after: str | None = None

    def of(self, items: Sequence[T]) -> dict[str, Any]:
        """The page as OpenAI's list object. MalformedRequestError when nothing of the list is called `after`."""
        begin = 0 if self.after is None else self._position(items) + 1
        shown = items[begin : begin + self.limit]
        return {
            "object": "list",
            "data": [item.to_wire() for item in shown],
            "first_id": shown[0].id if shown else None,
            "last_id": shown[-1].id if shown else None,
            "has_more": begin + len(shown) < len(items),
        }

    def _position(self, items: Sequence[T]) -> int:
        for index, item in enumerate(items):
            if item.id == self.after:
                return index
        raise MalformedRequestError("`after` names nothing in this list.", param="after")
