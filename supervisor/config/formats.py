"""From the bytes of a configuration file to a tree of plain values, with the line of each key.

Refused here: bytes that are not UTF-8, bad syntax, a key given twice, NaN and infinities, values that JSON does not have (dates,
sets), text that no process can be given (NUL, lone surrogates), and alias bombs.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import yaml

from supervisor.config.problems import ConfigError, KeyPath, Problem, by_line, key_text

SUFFIXES = (".json", ".yaml", ".yml", ".toml")
NODES_AT_MOST = 200_000
LEVELS_AT_MOST = 64

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],\n]')
_TOML_PLACE = re.compile(r"\s*\(at line (\d+), column \d+\)|\s*\(at end of document\)")
_MERGE_TAG = "tag:yaml.org,2002:merge"

Place = tuple[KeyPath, int]
Reader = Callable[[str], tuple[object, Iterable[Place]]]


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content: plain values, and the line (from 1) on which each key stands, where known."""

    tree: dict[str, object]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """Return the line of `path`, or of the nearest key around it."""
        return next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)


def parse(content: bytes, suffix: str, source: str) -> Document:
    """Parse a configuration by suffix (one of `SUFFIXES`); `source` names it in errors.

    Raises ConfigError with `config_encoding`, `config_format`, `config_syntax` or `config_invalid`.
    """
    text = _decoded(content, source)
    readers: dict[str, Reader] = {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml, ".toml": _read_toml}
    reader = readers.get(suffix.lower())
    if reader is None:
        message = (
            f"the suffix `{suffix}` tells no format" if suffix else "the file's name has no suffix to tell its format"
        )
        raise ConfigError(
            "config_format", [Problem("", message, f"name it with one of {', '.join(SUFFIXES)}")], source=source
        )
    tree, places = _read(reader, text, source)
    if not isinstance(tree, dict):
        problem = Problem("", "the file does not hold an object", "put the settings into one object of keys and values")
        raise ConfigError("config_invalid", [problem], source=source)
    return _checked(tree, places, source)


def parse_json_value(text: str) -> object:
    """Parse one JSON value by the same rules; raises ConfigError as `parse` does."""
    value, places = _read(_read_json, text, None)
    return _checked({"value": value}, ((("value", *path), line) for path, line in places), None).tree["value"]


def _read(reader: Reader, text: str, source: str | None) -> tuple[object, list[Place]]:
    try:
        tree, places = reader(text)
        return tree, list(places)
    except RecursionError:
        problem = Problem("", "the values are nested too deeply", "flatten them")
        raise ConfigError("config_syntax", [problem], source=source) from None
    except _SyntaxProblemError as error:
        raise ConfigError("config_syntax", [error.problem], source=source) from None


class _SyntaxProblemError(Exception):
    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.problem = Problem("", message, "correct the syntax", line)


def _decoded(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = Problem("", f"byte {error.start} is not UTF-8", "save the file as UTF-8", line)
        raise ConfigError("config_encoding", [problem], source=source) from None


def _checked(tree: dict[str, object], places: Iterable[Place], source: str | None) -> Document:
    lines: dict[KeyPath, int] = {}
    problems = list(_duplicates(places, lines))
    document = Document(tree, lines)
    problems += impossible_values(tree, document.line)
    if problems:
        raise ConfigError("config_invalid", sorted(problems, key=by_line), source=source)
    return document


def _duplicates(places: Iterable[Place], lines: dict[KeyPath, int]) -> Iterator[Problem]:
    """Fill `lines` and yield a problem for each key given twice, but not for the keys inside its second value."""
    doubled: set[KeyPath] = set()
    for path, line in places:
        if path not in lines:
            lines[path] = line
        elif not any(path[:n] in doubled for n in range(1, len(path))):
            doubled.add(path)
            message = f"`{key_text(path)}` is given twice (first on line {lines[path]})"
            yield Problem(key_text(path), message, "keep one of them", line)


def impossible_values(tree: object, line_of: Callable[[KeyPath], int | None]) -> Iterator[Problem]:
    """Yield a problem for each value or key that a configuration cannot hold."""
    pending: list[tuple[KeyPath, object]] = [((), tree)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            for key, child in value.items():
                if isinstance(key, str) and not _bad_text(key):
                    pending.append(((*path, key), child))
                else:
                    yield _impossible(
                        path, line_of, "holds a key that is not plain text", "write keys as text, in quotes"
                    )
        elif isinstance(value, list):
            pending += [((*path, index), child) for index, child in enumerate(value)]
        elif (fault := _fault(value)) is not None:
            yield _impossible(path, line_of, *fault)


def _impossible(path: KeyPath, line_of: Callable[[KeyPath], int | None], fault: str, remedy: str) -> Problem:
    name = key_text(path)
    return Problem(name, f"`{name}` {fault}" if name else f"the file {fault}", remedy, line_of(path))


def _fault(value: object) -> tuple[str, str] | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number", "write a finite number"
    if isinstance(value, str):
        return _bad_text(value)
    if value is None or isinstance(value, bool | int | float):
        return None
    return f"is a {type(value).__name__}, which no setting is", "write text in quotes"


def _bad_text(text: str) -> tuple[str, str] | None:
    if "\0" in text:
        return "holds a NUL character", "remove it"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "holds half a surrogate pair", "write the whole character"
    return None


def _read_json(text: str) -> tuple[object, Iterable[Place]]:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise _SyntaxProblemError(f"not JSON: {error.msg}", error.lineno) from None
    except ValueError:
        raise _SyntaxProblemError("not JSON: a number has too many digits") from None
    return tree, _json_places(text)


def _json_places(text: str) -> Iterator[Place]:
    """Yield the path and line of every key of valid JSON, duplicates included (json.loads keeps the last of them only)."""
    stack: list[str | int | None] = []
    line = 1
    for found in _JSON_TOKEN.finditer(text):
        token = found.group()
        if token == "\n":
            line += 1
        elif token in "{[":
            stack.append(None if token == "{" else 0)
        elif token in "}]":
            stack.pop()
        elif token == ",":
            index = stack[-1]
            stack[-1] = index + 1 if isinstance(index, int) else None
        elif stack and stack[-1] is None:
            stack[-1] = json.loads(token)
            yield tuple(part for part in stack if part is not None), line


def _read_toml(text: str) -> tuple[object, Iterable[Place]]:
    try:
        return tomllib.loads(text), []
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place.group(1)) if place and place.group(1) else None
        raise _SyntaxProblemError(f"not TOML: {_TOML_PLACE.sub('', str(error))}", line) from None
    except ValueError:
        raise _SyntaxProblemError("not TOML: a number has too many digits") from None


def _read_yaml(text: str) -> tuple[object, Iterable[Place]]:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        places = [] if node is None else list(_yaml_places(node))
        return ({} if node is None else loader.construct_document(node)), places
    except yaml.MarkedYAMLError as error:
        # Never str(error): it quotes the lines around the mistake, and these may hold a key.
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _SyntaxProblemError(f"not YAML: {error.problem}", line) from None
    except yaml.YAMLError:
        raise _SyntaxProblemError("not YAML: it holds a control character") from None
    except (ValueError, TypeError, AttributeError, KeyError):
        # PyYAML's constructors fail so on an impossible date, a number with too many digits, or a bad !!tag.
        raise _SyntaxProblemError("not YAML: a value cannot be read") from None


def _yaml_places(node: yaml.Node) -> Iterator[Place]:
    pending: list[tuple[KeyPath, yaml.Node]] = [((), node)]
    met = 1
    while pending:
        path, current = pending.pop()
        if not isinstance(current, yaml.CollectionNode):
            continue
        met += len(current.value)
        if met > NODES_AT_MOST or len(path) > LEVELS_AT_MOST:
            raise _SyntaxProblemError("not YAML that can be read: its aliases expand too far")
        if isinstance(current, yaml.SequenceNode):
            pending += [((*path, index), child) for index, child in enumerate(current.value)]
            continue
        for key, child in current.value:
            if key.tag != _MERGE_TAG:
                pending.append(((*path, str(key.value)), child))
                yield (*path, str(key.value)), key.start_mark.line + 1
