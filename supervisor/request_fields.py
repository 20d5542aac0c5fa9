"""What fields of a request may hold, and the errors that name the one at fault. Pure; shared by the door and by the engines that are ours."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.errors import MalformedRequestError

SHOWN_CHARACTERS = 60
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a numeric field may be: from `least` to `most` (None: no end), whole or not. `null` is as good as absent."""

    name: str
    least: float
    most: float | None = None
    whole: bool = False

    def check(self, document: Mapping[str, Any]) -> None:
        """Raise MalformedRequestError that names the field and what it may be."""
        value = document.get(self.name)
        if value is None or self._allows(value):
            return
        kind = "whole number" if self.whole else "number"
        extent = f"of at least {self.least:g}" if self.most is None else f"from {self.least:g} to {self.most:g}"
        raise refuse(self.name, f"must be a {kind} {extent}, not {shown(value)}.")

    def _allows(self, value: object) -> bool:
        # In Python, True is a number.
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if isinstance(value, float) and not (math.isfinite(value) and (value.is_integer() or not self.whole)):
            return False
        return value >= self.least and (self.most is None or value <= self.most)


def check_messages(messages: object) -> None:
    """Raise MalformedRequestError unless it is a list of messages with known roles, naming the one at fault."""
    if not isinstance(messages, list) or not messages:
        given = "an empty one" if messages == [] else shown(messages)
        raise refuse("messages", f"must be a list of at least one message, not {given}.")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise refuse(f"messages[{index}]", f"must be an object with a role, not {shown(message)}.")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise refuse(f"messages[{index}].role", f"must be one of {', '.join(ROLES)}, not {shown(role)}.")


def refuse(field: str, what: str) -> MalformedRequestError:
    """The error for a field; `what` goes on from its name."""
    return MalformedRequestError(f"`{field}` {what}", param=field)


def shown(value: object) -> str:
    """A value in an error message: as JSON, cut where it grows too long to help; of a structure only its kind."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
