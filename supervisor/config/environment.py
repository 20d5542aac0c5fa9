"""The environment layer: `LLAMAVISOR_SECTION__KEY=value`, nested by double underscores.

An instance is named by its name in capitals, with every character that a variable cannot hold replaced by `_`:
`LLAMAVISOR_INSTANCES__MY_CHAT__PORT` reaches `my-chat`, `my.chat` or `my_chat`, whichever the file has; two that fit are refused. Lists and
objects are written as JSON. An empty variable counts as not set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from supervisor.config import schema
from supervisor.config.formats import parse_json_value
from supervisor.config.problems import ConfigError, KeyPath, Problem, key_text
from supervisor.config.suggestions import nearest, remedy_for

PREFIX = "LLAMAVISOR_"
SEPARATOR = "__"
RESERVED = frozenset(
    {
        "LLAMAVISOR_CONFIG",
        "LLAMAVISOR_DATA_DIR",
        "LLAMAVISOR_URL",
        "LLAMAVISOR_API_KEY",
        "LLAMAVISOR_RUN_ID",
        "LLAMAVISOR_INSTANCE",
    }
)
"""Variables with a meaning of their own, which are no settings."""

SURELY_MEANT = 0.85
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_WHOLE = re.compile(r"[+-]?\d{1,18}\Z")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\Z")


@dataclass(frozen=True, slots=True)
class Assignment:
    """One setting given outside the file: its path, its value, and the variable or flag that gave it."""

    path: KeyPath
    value: object
    origin: str


class _RefusedError(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def read_environment(
    environ: Mapping[str, str], instance_names: Iterable[str]
) -> tuple[list[Assignment], list[Problem]]:
    """Return the settings that `environ` holds, outer keys first, and what is wrong with its variables.

    `instance_names` are the instances known so far. Variables of `RESERVED`, and those with no `__` that name no setting, are not ours to
    judge (a container platform sets such as `LLAMAVISOR_PORT` by itself).
    """
    names = tuple(instance_names)
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for variable, text in environ.items():
        if not _is_setting(variable) or not text:
            continue
        try:
            path = _path_of(variable, names)
            assignments.append(Assignment(path, _value_of(path, text), variable))
        except _RefusedError as error:
            key = variable.removeprefix(PREFIX).lower().replace(SEPARATOR, ".")
            problems.append(Problem(key, error.message, error.remedy, origin=variable))
    problems += _twice(assignments)
    return sorted(assignments, key=lambda given: len(given.path)), problems


def _is_setting(variable: str) -> bool:
    if not variable.startswith(PREFIX) or variable in RESERVED:
        return False
    rest = variable.removeprefix(PREFIX)
    if SEPARATOR in rest:
        return True
    known = schema.properties(schema.root())
    return rest.lower() in known or nearest(rest, known, similar_enough=SURELY_MEANT) is not None


def _twice(assignments: list[Assignment]) -> Iterator[Problem]:
    first: dict[KeyPath, str] = {}
    for given in assignments:
        holder = first.setdefault(given.path, given.origin)
        if holder != given.origin:
            message = f"{holder} and {given.origin} both set `{key_text(given.path)}`"
            yield Problem(key_text(given.path), message, "unset one of them", origin=given.origin)


def _path_of(variable: str, instance_names: tuple[str, ...]) -> KeyPath:
    segments = variable.removeprefix(PREFIX).split(SEPARATOR)
    path: tuple[str, ...] = ()
    while segments:
        segment = segments.pop(0)
        node = schema.node_at(path) or {}
        if path == ("instances",):
            path = (*path, _instance_name(segment, instance_names))
        elif schema.free_values(node) is not None:
            # The names of a child's environment keep their case, and may hold the separator.
            return (*path, SEPARATOR.join([segment, *segments]))
        else:
            path = (*path, _key_of(segment, path, node))
    return path


def _key_of(segment: str, path: tuple[str, ...], node: schema.Schema) -> str:
    known = [name for name in schema.properties(node) if name != schema.SCHEMA_POINTER_KEY]
    name = segment.lower()
    if name in known:
        return name
    where = f"`{key_text(path)}`" if path else "the configuration"
    if not known:
        raise _RefusedError(f"{where} has no keys below it", "remove the part after it")
    message = f"unknown key `{key_text((*path, name))}`"
    raise _RefusedError(message, remedy_for(name, known))


def _instance_name(segment: str, instance_names: tuple[str, ...]) -> str:
    name = segment.lower()
    if name in instance_names:
        return name
    fitting = [known for known in instance_names if re.sub(r"[^a-z0-9]", "_", known) == name]
    if len(fitting) > 1:
        named = " and ".join(f"`{known}`" for known in fitting)
        raise _RefusedError(f"{segment} may mean {named}", "set it in the file, or rename one of them")
    return fitting[0] if fitting else name


def _value_of(path: KeyPath, text: str) -> object:
    """Read a variable's text as the type that the setting has; text that fits none is left for the validation to refuse."""
    node = schema.node_at(path) or {}
    kinds = schema.types(node)
    if text == "null" and "null" in kinds:
        return None
    if kinds & {"object", "array"} and (text[0] in "[{" or "string" not in kinds):
        return _json_of(path, text, kinds)
    if "boolean" in kinds and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if "integer" in kinds and _WHOLE.match(text):
        return int(text)
    if "number" in kinds and _NUMBER.match(text):
        return float(text)
    return text


def _json_of(path: KeyPath, text: str, kinds: frozenset[str]) -> object:
    example = '["first", "second"]' if "array" in kinds else '{"key": "value"}'
    try:
        return parse_json_value(text)
    except ConfigError as error:
        message = f"`{key_text(path)}` is no JSON that can be used ({error.problems[0].message})"
        raise _RefusedError(message, f"write it as {example}") from None
