"""Finding, reading and merging the layers of the configuration: flag > environment > file > default."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import platformdirs
from pydantic import ValidationError

from supervisor.config.environment import Assignment, read_environment
from supervisor.config.explaining import explain
from supervisor.config.formats import SUFFIXES, Document, parse
from supervisor.config.paths import resolve_paths
from supervisor.config.problems import ConfigError, KeyPath, Problem, by_line
from supervisor.config.redaction import redacted
from supervisor.config.schema import SCHEMA_POINTER_KEY
from supervisor.config.settings import DEMO_INSTANCE, DEMO_MODEL, Settings

APPLICATION = "llamavisor"
CONFIG_VARIABLE = "LLAMAVISOR_CONFIG"
FILE_LIMIT_BYTES = 1024**2
COMMAND_LINE = "command line"
NO_OVERRIDES: Mapping[str, object] = MappingProxyType({})

Tree = dict[str, object]


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Valid settings, the file they came from (absolute; None when there was none), and a digest of them.

    `digest` is the SHA-256 (hex) of the settings in force, secrets masked: it may be logged, and tells two configurations apart
    unless they differ only in secrets.
    """

    settings: Settings
    source_path: Path | None
    digest: str


def load_settings(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] = NO_OVERRIDES,
    working_directory: Path | None = None,
    user_folder: Path | None = None,
) -> LoadedSettings:
    """Load the configuration, or raise ConfigError with every problem found.

    `path` is the file of `--config` (None: search, see `find_config`). `overrides` are the flags: dotted keys (`server.port`) or nested
    objects; a value of None means that the flag was not given.
    """
    here = working_directory or Path.cwd()
    source = find_config(path, environ=environ, working_directory=here, user_folder=user_folder)
    document = read_document(source) if source else Document({})
    layers = _Layers(document, source.parent if source else here, here)
    bad_variables = layers.take_environment(environ)
    layers.take(_flags(overrides))
    settings = layers.validated(str(source) if source else None, bad_variables)
    shown = json.dumps(redacted(settings), ensure_ascii=True)
    return LoadedSettings(settings, source, hashlib.sha256(shown.encode()).hexdigest())


def find_config(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    working_directory: Path | None = None,
    user_folder: Path | None = None,
) -> Path | None:
    """Return the file to read, absolute, or None when there is none.

    The first of: `path`, `$LLAMAVISOR_CONFIG` (these two need not exist: reading them says so), `config.json`, `.yaml`, `.yml` or `.toml` in
    the working directory, the same in the user's configuration folder.
    """
    here = working_directory or Path.cwd()
    named = path or (Path(variable).expanduser() if (variable := environ.get(CONFIG_VARIABLE)) else None)
    if named is not None:
        return here / named
    folders = (here, user_folder or platformdirs.user_config_path(APPLICATION))
    candidates = (folder / f"config{suffix}" for folder in folders for suffix in SUFFIXES)
    return next((candidate for candidate in candidates if candidate.exists()), None)


def read_document(source: Path) -> Document:
    """Read and parse one file; `config_not_found`, `config_unreadable`, `config_too_large` or the errors of `formats.parse`."""
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            kind = "a folder" if source.is_dir() else "no regular file"
            raise _unusable(source, "config_unreadable", f"this is {kind}", "name a file")
        with source.open("rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        remedy = "check the path, or leave it out to use the defaults"
        raise _unusable(source, "config_not_found", "there is no such file", remedy) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        message = f"it cannot be read ({reason or 'impossible path'})"
        raise _unusable(source, "config_unreadable", message, "check the path and its permissions") from None
    if len(content) > FILE_LIMIT_BYTES:
        message = f"it is larger than {FILE_LIMIT_BYTES} bytes"
        raise _unusable(source, "config_too_large", message, "name the configuration file, not a model")
    return parse(content, source.suffix, str(source))


def validate_tree(tree: Mapping[str, object], *, source: str | None = None) -> Settings:
    """Validate plain values that come from no file, paths as they are; raises ConfigError."""
    try:
        return Settings.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError("config_invalid", explain(error, lambda _: (None, None)), source=source) from None


def merged(base: Mapping[str, object], over: Mapping[str, object]) -> Tree:
    """Return `over` laid over `base`: objects are merged key by key, everything else replaces what was there."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if not isinstance(value, Mapping):
            result[key] = value
            continue
        if key == "engine" and isinstance(old, str):
            old = {"kind": old}
        result[key] = merged(old if isinstance(old, Mapping) else {}, value)
    return result


@dataclass
class _Layers:
    """The merged tree, with what set each of its leaves."""

    document: Document
    file_folder: Path
    working_directory: Path
    tree: Tree = field(init=False)
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree = {key: value for key, value in self.document.tree.items() if key != SCHEMA_POINTER_KEY}

    def take_environment(self, environ: Mapping[str, str]) -> list[Problem]:
        in_file = self.document.tree.get("instances", {DEMO_INSTANCE: None})
        assignments, problems = read_environment(environ, in_file if isinstance(in_file, dict) else ())
        self.take(assignments)
        return problems

    def take(self, assignments: Iterable[Assignment]) -> None:
        for given in assignments:
            nested: object = given.value
            for part in reversed(given.path):
                nested = {str(part): nested}
            if isinstance(nested, dict):
                self.tree = merged(self.tree, nested)
            self.origins.update(dict.fromkeys(_leaves(given.path, given.value), given.origin))

    def validated(self, source: str | None, problems: list[Problem]) -> Settings:
        tree = self._with_demo()
        resolve_paths(tree, self._folder_of)
        try:
            settings = Settings.model_validate(tree)
        except ValidationError as error:
            raise ConfigError("config_invalid", [*problems, *explain(error, self._locate)], source=source) from None
        if problems:
            raise ConfigError("config_invalid", sorted(problems, key=by_line), source=source)
        return settings

    def _with_demo(self) -> Tree:
        """Lay the tree over the demo instance where only variables and flags speak of instances, and of no other than it."""
        instances = self.tree.get("instances")
        file_is_silent = "instances" not in self.document.tree
        if file_is_silent and isinstance(instances, dict) and list(instances) == [DEMO_INSTANCE]:
            demo = {"instances": {DEMO_INSTANCE: {"engine": "embedded", "model": DEMO_MODEL}}}
            return merged(demo, self.tree)
        return merged({}, self.tree)

    def _origin(self, path: KeyPath) -> str | None:
        return next((self.origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.origins), None)

    def _folder_of(self, path: KeyPath) -> Path:
        return self.file_folder if self._origin(path) is None else self.working_directory

    def _locate(self, path: KeyPath) -> tuple[int | None, str | None]:
        origin = self._origin(path)
        if origin is None and path not in self.document.lines:
            origin = next((given for leaf, given in self.origins.items() if leaf[: len(path)] == path), None)
        return (None, origin) if origin else (self.document.line(path), None)


def _flags(overrides: Mapping[str, object]) -> Iterator[Assignment]:
    for key, value in overrides.items():
        if value is not None:
            yield Assignment(tuple(key.split(".")), value, COMMAND_LINE)


def _leaves(path: KeyPath, value: object) -> Iterator[KeyPath]:
    if not isinstance(value, Mapping):
        yield path
        return
    for key, child in value.items():
        yield from _leaves((*path, str(key)), child)


def _unusable(source: Path, code: str, message: str, remedy: str) -> ConfigError:
    return ConfigError(code, [Problem("", message, remedy)], source=str(source))
