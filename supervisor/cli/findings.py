"""What `doctor` says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is what was looked at, `message` what is so, `remedy` what would mend it (None when nothing need be)."""

    level: Level
    subject: str
    message: str
    remedy: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def ok(subject: str, message: str) -> Finding:
    """All is well."""
    return Finding("ok", subject, message)


def warn(subject: str, message: str, remedy: str) -> Finding:
    """It works, but less well than it could."""
    return Finding("warn", subject, message, remedy)


def fail(subject: str, message: str, remedy: str) -> Finding:
    """Something that is configured cannot work."""
    return Finding("fail", subject, message, remedy)
