"""What set each setting in force: a line of the file, a variable, or nothing but the default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from supervisor.config import LoadedSettings, redacted
from supervisor.config.environment import read_environment
from supervisor.config.formats import Document
from supervisor.config.loading import read_document
from supervisor.config.problems import KeyPath, key_text


@dataclass(frozen=True, slots=True)
class ExplainedSetting:
    """One setting: dotted key, value (secrets masked), and what set it (None: nobody, it is the default)."""

    key: str
    value: object
    origin: str | None


def explained_settings(loaded: LoadedSettings, environ: Mapping[str, str]) -> Iterator[ExplainedSetting]:
    """Every setting that has a value, in the order of the settings."""
    document = read_document(loaded.source_path) if loaded.source_path is not None else Document({})
    assignments, _ = read_environment(environ, loaded.settings.instances)
    variables = {given.path: given.origin for given in assignments}
    for path, value in _leaves((), redacted(loaded.settings)):
        yield ExplainedSetting(key_text(path), value, _variable(path, variables) or _place(path, document))


def _leaves(path: KeyPath, value: object) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves((*path, key), child)
    elif value != {}:
        yield path, value


def _variable(path: KeyPath, variables: Mapping[KeyPath, str]) -> str | None:
    return next((variables[path[:n]] for n in range(len(path), 0, -1) if path[:n] in variables), None)


def _place(path: KeyPath, document: Document) -> str | None:
    value: object = document.tree
    for part in path:
        if isinstance(value, str) and path[-2:] == ("engine", "kind"):
            # `"engine": "embedded"` is short for an object with this kind.
            break
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    line = document.line(path)
    return f"file, line {line}" if line is not None else "file"
