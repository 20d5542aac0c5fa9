"""Who makes a request."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.storage.records import Scope

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: the project that pays, and the key that proves it (None: an open server, or the server's own key)."""

    project: str = DEFAULT_PROJECT
    key_id: str | None = None
    scopes: frozenset[Scope] = frozenset(Scope)


ANYONE = Caller()
