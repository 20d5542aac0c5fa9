"""From pydantic's errors to problems that people can act upon: the key, what is wrong, what would be right, and the line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from supervisor.config import schema
from supervisor.config.problems import KeyPath, Problem, by_line, key_text
from supervisor.config.suggestions import listed, nearest, remedy_for

Locate = Callable[[KeyPath], tuple[int | None, str | None]]
"""From a path to the line of the file, or to the variable or flag, that set it."""

Said = tuple[KeyPath, str, str]
"""Path, message, remedy."""

_KEY_MARK = "[key]"
_ENGINE_DEPTH = 3
_SHOWN_AT_MOST = 40
_NAME_RULE = "use 1 to 63 lower-case letters, digits, `.`, `_` and `-`, with a letter or digit first"
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "path_type": "a path",
    "url_type": "an address",
    "flag_or_auto": 'true, false or "auto"',
}
_LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def explain(error: ValidationError, locate: Locate) -> tuple[Problem, ...]:
    """Return one problem for each mistake, in the order of the file. No message quotes a value, but for numbers and choices."""
    problems = [
        Problem(key_text(path), message, remedy, *locate(path))
        for details in error.errors(include_url=False)
        for path, message, remedy in _said(details)
    ]
    return tuple(sorted(problems, key=by_line))


def _said(details: ErrorDetails) -> list[Said]:
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    path, engine = _cleaned(details["loc"])
    name = f"`{key_text(path)}`" if path else "the configuration"
    if kind == "broken_rules":
        return [_rule(path, rule) for rule in context["problems"]]
    if kind == "extra_forbidden":
        return [(path, f"unknown key {name}", _unknown_key_remedy(path, engine))]
    if kind == "union_tag_invalid":
        tag = str(context["tag"])[:_SHOWN_AT_MOST]
        return [((*path, "kind"), f"unknown engine kind `{tag}` in {name}", remedy_for(tag, _engine_kinds(path)))]
    if kind == "literal_error":
        return [(path, f"{name} must be one of a few words{_but_is(value)}", _choice_remedy(path, value))]
    if details["loc"][-1:] == (_KEY_MARK,):
        return [(path, f"{name} is no name for an instance", _NAME_RULE)]
    if kind in _WANTED:
        return [(path, f"{name} must be {_WANTED[kind]}, not {_type_name(value)}", f"write {_WANTED[kind]}")]
    if kind in _LIMITS:
        return [_limit(path, name, kind, context, value)]
    return [(path, *_other(name, kind, path, details["msg"]))]


def _cleaned(loc: tuple[int | str, ...]) -> tuple[KeyPath, str | None]:
    """Take out of pydantic's location what is no key: the engine kind that a union was resolved to (returned too), `[key]`."""
    path = tuple(part for part in loc if part != _KEY_MARK)
    inside_engine = len(path) > _ENGINE_DEPTH and path[0] == "instances" and path[_ENGINE_DEPTH - 1] == "engine"
    if not inside_engine:
        return path, None
    return (*path[:_ENGINE_DEPTH], *path[_ENGINE_DEPTH + 1 :]), str(path[_ENGINE_DEPTH])


def _rule(path: KeyPath, rule: tuple[str | tuple[str, ...], str, str]) -> Said:
    key, message, remedy = rule
    full = (*path, *((key,) if isinstance(key, str) else key))
    where = f"`{key_text(path)}`: " if path else ""
    return full, f"{where}{message}", remedy


def _unknown_key_remedy(path: KeyPath, engine: str | None) -> str:
    name, parent = str(path[-1]), path[:-1]
    siblings = schema.properties(schema.node_at(parent) or {})
    if engine is not None:
        own = _keys_of_engine(parent, engine)
        if name in siblings:
            holders = [kind for kind in _engine_kinds(parent) if name in _keys_of_engine(parent, kind)]
            return f"it is a key of {' and '.join(f'`{kind}`' for kind in holders)}; this engine is `{engine}`"
        return remedy_for(name, own)
    below = {
        child: key_text((*parent, sibling, child))
        for sibling in siblings
        for child in schema.properties(schema.node_at((*parent, sibling)) or {})
    }
    known = [sibling for sibling in siblings if sibling != schema.SCHEMA_POINTER_KEY]
    if name not in below and (nearest(name, known) or not nearest(name, below)):
        return remedy_for(name, known)
    return f"did you mean `{below[nearest(name, below) or name]}`?"


def _engine_kinds(engine_path: KeyPath) -> list[str]:
    return list(dict.fromkeys(schema.choices(schema.node_at((*engine_path, "kind")) or {})))


def _keys_of_engine(engine_path: KeyPath, kind: str) -> list[str]:
    for branch in schema.alternatives(schema.node_at(engine_path) or {}):
        keys: dict[str, Any] = branch.get("properties", {})
        if kind in schema.choices(keys.get("kind", {})):
            return list(keys)
    return []


def _choice_remedy(path: KeyPath, value: object) -> str:
    words = schema.choices(schema.node_at(path) or {})
    near = nearest(value, words) if isinstance(value, str) else None
    return f"did you mean `{near}`?" if near else f"choose one of {listed(words)}"


def _limit(path: KeyPath, name: str, kind: str, context: Mapping[str, Any], value: object) -> Said:
    key, word = _LIMITS[kind]
    bound = f"{word} {context[key]:.15g}"
    return path, f"{name} must be {bound}{_but_is(value)}", f"choose a value {bound}"


def _other(name: str, kind: str, path: KeyPath, message: str) -> tuple[str, str]:
    if kind == "missing":
        description = (schema.node_at(path) or {}).get("description", "")
        return f"missing key {name}", f"add it ({description.rstrip('.')})" if description else "add it"
    if kind.startswith("url_"):
        return f"{name} is no address", "write `http://host:port` or `https://host:port`"
    if kind == "ip_any_network":
        return (
            f"{name} is no IP address or network",
            "write `10.1.2.3` or `10.0.0.0/8`, with no bits set beyond the mask",
        )
    if kind in {"string_too_short", "too_short"}:
        return f"{name} is empty", "give a value, or leave the key out"
    if kind in {"string_too_long", "too_long"}:
        return f"{name} is too long", "shorten it"
    return f"{name}: {message}", ""


def _but_is(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return f", not {_type_name(value)}"
    if isinstance(value, int | float):
        return f", not {value:.15g}" if abs(value) < 10**300 else ""
    return (
        f", not `{value}`" if isinstance(value, str) and len(value) <= _SHOWN_AT_MOST else f", not {_type_name(value)}"
    )


def _type_name(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
