"""The JSON Schema of the configuration, and walking over it.

The schema is the one description of what keys there are: the published file, the reference page, the environment layer and the
suggestions for misspelled keys all read it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from supervisor.config.settings import Settings

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_POINTER_KEY = "$schema"
"""A key that editors put into a file to find its schema; it is no setting."""

UNIT_KEY = "x-unit"


def settings_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a configuration file: closed objects, each property described,
    figures with their unit (also as `x-unit`).
    """
    copied: Schema = json.loads(json.dumps(_schema()))
    for model in [copied, *copied["$defs"].values()]:
        for node in model.get("properties", {}).values():
            if UNIT_KEY in node:
                node["description"] += f" Unit: {node[UNIT_KEY]}."
    return copied


@functools.cache
def _schema() -> Schema:
    schema = Settings.model_json_schema()
    definitions: Schema = schema["$defs"]
    _describe_overrides(definitions)
    for model in [schema, *definitions.values()]:
        for node in model.get("properties", {}).values():
            _tidy(node)
    pointer = {"type": "string", "description": "Where an editor finds this schema; ignored."}
    schema["properties"] = {SCHEMA_POINTER_KEY: pointer, **schema["properties"]}
    return {SCHEMA_POINTER_KEY: DIALECT, **schema, "title": "Llamavisor configuration"}


def _describe_overrides(definitions: Schema) -> None:
    described = definitions["SupervisionSettings"]["properties"]
    for name, node in definitions["SupervisionOverrides"]["properties"].items():
        node["description"] = f"{described[name]['description']} Left out: the figure of `defaults`."


def _tidy(node: Schema) -> None:
    node.pop("title", None)
    if node.get("default") is None:
        node.pop("default", None)
    if "patternProperties" in node:
        node["additionalProperties"] = False
    unit = next((branch[UNIT_KEY] for branch in alternatives(node, {}) if UNIT_KEY in branch), None)
    if unit is not None:
        node[UNIT_KEY] = unit


def root() -> Schema:
    """Return the node that describes the whole file; treat it as read-only."""
    return _schema()


def alternatives(node: Schema, definitions: Schema | None = None) -> Iterator[Schema]:
    """Yield the concrete schemas that a node stands for: references followed, choices opened.

    With `definitions` given as an empty object, references are yielded as they are.
    """
    known = _schema()["$defs"] if definitions is None else definitions
    if "$ref" in node and known:
        yield from alternatives(known[node["$ref"].rsplit("/", 1)[-1]], known)
        return
    branches = node.get("anyOf") or node.get("oneOf")
    if not branches:
        yield node
        return
    for branch in branches:
        yield from alternatives(branch, definitions)


def properties(node: Schema) -> dict[str, list[Schema]]:
    """Return the named keys that an object of this node may have, each with the schemas it may obey."""
    found: dict[str, list[Schema]] = {}
    for branch in alternatives(node):
        for name, child in branch.get("properties", {}).items():
            found.setdefault(name, []).append(child)
    return found


def free_values(node: Schema) -> Schema | None:
    """Return the schema of the values of an object whose keys are free names (instances, env), or None for other nodes."""
    for branch in alternatives(node):
        if "patternProperties" in branch:
            return next(iter(branch["patternProperties"].values()))  # type: ignore[no-any-return]
        extra = branch.get("additionalProperties")
        if isinstance(extra, dict):
            return extra
    return None


def types(node: Schema) -> frozenset[str]:
    """Return the JSON types that values of this node may have ("integer" and "number" kept apart)."""
    return frozenset(branch.get("type", "string") for branch in alternatives(node))


def choices(node: Schema) -> list[str]:
    """Return the words that a node is restricted to, if it is."""
    words: list[str] = []
    for branch in alternatives(node):
        words += branch.get("enum", [branch["const"]] if "const" in branch else [])
    return words


def node_at(path: tuple[str | int, ...]) -> Schema | None:
    """Return the node that describes the value at `path`, or None when there is no such key."""
    node: Schema = root()
    for part in path:
        if isinstance(part, int):
            items = [branch["items"] for branch in alternatives(node) if "items" in branch]
        else:
            free = free_values(node)
            items = properties(node).get(part) or ([free] if free is not None else [])
        if not items:
            return None
        node = items[0] if len(items) == 1 else {"anyOf": items}
    return node
