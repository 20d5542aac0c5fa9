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
    """Raise MalformedRequestError unless it is a list of messages with known roles (names and calls of tools in outline), naming the one at fault."""
    if not isinstance(messages, list) or not messages:
        given = "an empty one" if messages == [] else shown(messages)
        raise refuse("messages", f"must be a list of at least one message, not {given}.")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise refuse(f"messages[{index}]", f"must be an object with a role, not {shown(message)}.")
        _check_message(message, f"messages[{index}]")


def _check_message(message: Mapping[str, Any], field: str) -> None:
    role, name = message.get("role"), message.get("name")
    if not isinstance(role, str) or role not in ROLES:
        raise refuse(f"{field}.role", f"must be one of {', '.join(ROLES)}, not {shown(role)}.")
    if name is not None and not isinstance(name, str):
        raise refuse(f"{field}.name", f"must be a string, not {shown(name)}.")
    check_tools(message.get("tool_calls"), f"{field}.tool_calls")


def check_tools(tools: object, field: str) -> None:
    """Raise MalformedRequestError unless it is a list of tools, or of calls of tools, in OpenAI's outline. `null` is as good as absent."""
    if tools is None:
        return
    if not isinstance(tools, list):
        raise refuse(field, f"must be a list, not {shown(tools)}.")
    for index, tool in enumerate(tools):
        _check_tool(tool, f"{field}[{index}]")


def _check_tool(tool: object, field: str) -> None:
    if not isinstance(tool, dict):
        raise refuse(field, f"must be an object with a type, not {shown(tool)}.")
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise refuse(f"{field}.type", f'must be a string such as "function", not {shown(kind)}.')
    if kind != "function":
        return
    function = tool.get("function")
    if not isinstance(function, dict):
        raise refuse(f"{field}.function", f"must be an object with a name, not {shown(function)}.")
    if not isinstance(function.get("name"), str):
        raise refuse(f"{field}.function.name", f"must be a string, not {shown(function.get('name'))}.")


def refuse(field: str, what: str) -> MalformedRequestError:
    """The error for a field; `what` goes on from its name."""
    return MalformedRequestError(f"`{field}` {what}", param=field)


def shown(value: object) -> str:
    """A value in an error message: as JSON, cut where it grows too long to help; of a structure only its kind."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
