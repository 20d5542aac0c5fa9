"""What can be wrong with a configuration, and how it is told.

All problems of a configuration are told at once. A message never holds a value that may be a secret: it names keys, types and
limits, and quotes a value only where the setting is a choice out of a published list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from supervisor.errors import InvalidConfigurationError

KeyPath = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_$-]+\Z")


def key_text(path: KeyPath) -> str:
    """Write a path as people do: `instances.chat.engine.argv[0]`; a name with a dot is quoted as TOML does."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        name = part if _BARE_KEY.match(part) else json.dumps(part, ensure_ascii=True)
        text += f".{name}" if text else name
    return text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `key` is the path as text ("" for the file as a whole), `message` a sentence that names it, `remedy` what to do,
    `line` the line of the file (from 1) where known, `origin` the environment variable or flag that set the value, if no file did.
    """

    key: str
    message: str
    remedy: str
    line: int | None = None
    origin: str | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else f"{self.origin}: " if self.origin else ""
        return f"{where}{self.message}; {self.remedy}" if self.remedy else f"{where}{self.message}"

    def as_dict(self) -> dict[str, str | int | None]:
        """Give the shape that the HTTP and JSON faces show."""
        return {
            "key": self.key,
            "message": self.message,
            "remedy": self.remedy,
            "line": self.line,
            "origin": self.origin,
        }


def by_line(problem: Problem) -> int:
    """Sort key: the order of the file, with problems that stand in no file first."""
    return problem.line or 0


class ConfigError(InvalidConfigurationError):
    """The configuration is refused, with every problem found (`problems`, never empty).

    `code` is one of `config_not_found`, `config_unreadable`, `config_too_large`, `config_encoding`, `config_format`,
    `config_syntax`, `config_invalid`, `exposed_bind`, `extra_missing`; `param` is the key of the first problem; `status` is 422;
    `details["problems"]` holds the same list for programs.
    """

    def __init__(self, code: str, problems: Iterable[Problem], *, source: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        first = self.problems[0]
        super().__init__(
            _summary(self.problems, source),
            code=code,
            param=first.key or None,
            remedy=None,
            details={"problems": [problem.as_dict() for problem in self.problems]},
        )
        self.source = source


def _summary(problems: tuple[Problem, ...], source: str | None) -> str:
    head = f"{source}: " if source else ""
    if len(problems) == 1:
        return f"{head}{problems[0]}"
    return "\n".join([f"{head}{len(problems)} problems", *(f"  {problem}" for problem in problems)])
