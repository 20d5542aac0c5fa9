"""Relative paths of a configuration made absolute, so that no part of the program depends on where it was started.

A path counts from the folder of the file that holds it, or from the working directory if a variable or a flag gave it. `~` is
expanded; `${NAME}` is not.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from supervisor.config.problems import KeyPath

FolderOf = Callable[[KeyPath], Path]

_MODEL_FILE_SUFFIX = ".gguf"
_HUB_ENGINES = frozenset({"vllm"})
_PATH_STARTS = ("/", "~", "./", "../")

Place = tuple[dict[str, object], str, KeyPath]


def resolve_paths(tree: dict[str, object], folder_of: FolderOf) -> None:
    """Make every path in `tree` absolute, in place; values of a wrong type are left for the validation to refuse."""
    for holder, key, path in _path_places(tree):
        value = holder.get(key)
        if isinstance(value, str) and value:
            holder[key] = absolute(value, folder_of(path))
        elif isinstance(value, list):
            holder[key] = [absolute(item, folder_of(path)) if isinstance(item, str) else item for item in value]
    for holder, key, path, is_path in _maybe_places(tree):
        value = holder.get(key)
        if isinstance(value, str) and is_path(value):
            holder[key] = absolute(value, folder_of(path))


def absolute(text: str, folder: Path) -> str:
    """Return `text` as an absolute path, counted from `folder`; `~name` of an unknown user stays a name."""
    return str(folder / os.path.expanduser(text))


def is_model_path(model: str, engine_kind: str) -> bool:
    """Whether `model` is a path, not the name of a catalog or hub model.

    A hub name may hold a slash, so that for engines that load from a hub a path must begin as one or end in `.gguf`.
    """
    if model.startswith(_PATH_STARTS) or model.lower().endswith(_MODEL_FILE_SUFFIX):
        return True
    return "/" in model and engine_kind not in _HUB_ENGINES


def _path_places(tree: dict[str, object]) -> Iterator[Place]:
    for path, keys in ((("server", "tls"), ("certificate", "key")), (("models",), ("folders",))):
        holder = _object_at(tree, path)
        yield from ((holder, key, (*path, key)) for key in keys)
    for name, instance in _instances(tree):
        yield instance, "socket", ("instances", name, "socket")
        yield _object_at(instance, ("engine",)), "working_directory", ("instances", name, "engine", "working_directory")


def _maybe_places(tree: dict[str, object]) -> Iterator[tuple[dict[str, object], str, KeyPath, Callable[[str], bool]]]:
    for name, instance in _instances(tree):
        kind = engine_kind(instance)
        yield instance, "model", ("instances", name, "model"), functools.partial(is_model_path, engine_kind=kind)
        engine = _object_at(instance, ("engine",))
        yield engine, "binary", ("instances", name, "engine", "binary"), _is_program_path


def _is_program_path(binary: str) -> bool:
    return "/" in binary or binary.startswith("~")


def engine_kind(instance: dict[str, object]) -> str:
    """Return the engine kind that an instance's tree names, "" when it names none."""
    engine = instance.get("engine")
    named = engine.get("kind") if isinstance(engine, dict) else engine
    return named if isinstance(named, str) else ""


def _instances(tree: dict[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
    for name, instance in _object_at(tree, ("instances",)).items():
        if isinstance(instance, dict):
            yield name, instance


def _object_at(tree: dict[str, object], path: tuple[str, ...]) -> dict[str, object]:
    current: object = tree
    for part in path:
        current = current.get(part) if isinstance(current, dict) else None
    return current if isinstance(current, dict) else {}
