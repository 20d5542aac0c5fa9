"""What every page says of who looks at it: as whom one is logged in, and what one may do there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.accounting.keys import has_scope
from supervisor.storage.records import Scope
from web.calling import caller_of
from web.guard import GUARD
from web.keys import CALLER, SUPERVISOR

SERVER_KEY = "server key"


def page_context(request: web.Request) -> dict[str, Any]:
    """What `base.html` needs. `who` is None where nobody is logged in; `may_change` and `may_chat` are what the API would let the caller do."""
    supervisor, caller = request.app[SUPERVISOR], caller_of(request)
    has_key = not request.app[GUARD].keys.is_open
    return {
        "version": supervisor.version,
        "has_key": has_key,
        "who": _name(caller, supervisor.office.bookkeeper.key_labels) if has_key and CALLER in request else None,
        "may_change": has_scope(caller, Scope.ADMIN),
        "may_chat": has_scope(caller, Scope.INFERENCE),
    }


def _name(caller: Caller, labels: Mapping[str, str]) -> str:
    """What people call a key, or its id."""
    if caller.key_id is None:
        return SERVER_KEY
    return labels.get(caller.key_id) or f"key {caller.key_id}"
