"""Reading single fields of a request, with errors that name the field and what it may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from supervisor.errors import MalformedRequestError

TEXT_CHARACTERS = 200
LARGEST = 2**53 - 1
MILLISECONDS = 1_000
# What PostgreSQL does not keep, and what has no UTF-8.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
E = TypeVar("E", bound=StrEnum)


def text(fields: Mapping[str, Any], name: str, *, default: str | None = None, pattern: str | None = None) -> str:
    """A text of at most 200 characters, that `pattern` matches as a whole. MalformedRequestError; also when it is missing and has no `default`."""
    value = fields.get(name)
    if value is None:
        if default is None:
            raise MalformedRequestError(f"`{name}` must be given.", param=name)
        return default
    if not isinstance(value, str) or len(value) > TEXT_CHARACTERS or _UNSTORABLE.search(value):
        raise MalformedRequestError(
            f"`{name}` must be text of at most {TEXT_CHARACTERS} characters, none of them NUL or half of a surrogate pair.",
            param=name,
        )
    if pattern is not None and not re.fullmatch(pattern, value):
        raise MalformedRequestError(f"`{name}` must match {pattern}.", param=name)
    return value


def choice(fields: Mapping[str, Any], name: str, words: type[E]) -> E:
    """One of the words. MalformedRequestError names them all."""
    value = fields.get(name)
    if value is None:
        raise MalformedRequestError(f"`{name}` must be given.", param=name)
    try:
        return words(value)
    except ValueError:
        known = ", ".join(word.value for word in words)
        raise MalformedRequestError(f"`{name}` must be one of {known}.", param=name) from None


def whole(fields: Mapping[str, Any], name: str, *, minimum: int, within: str = "") -> int:
    """A whole number. MalformedRequestError with its bounds; `within` stands before the name in the message."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= LARGEST:
        raise MalformedRequestError(
            f"`{within}{name}` must be a whole number of at least {minimum}.", param=f"{within}{name}"
        )
    return value


def iso(at_ms: int | None) -> str | None:
    """Unix milliseconds as ISO 8601 in UTC."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / MILLISECONDS, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
