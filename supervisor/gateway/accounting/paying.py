"""Who pays for a request that names a project: one rule, for every surface whose clients do so. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from supervisor.config.suggestions import nearest
from supervisor.errors import ForbiddenError, NotFoundError
from supervisor.gateway.accounting.callers import DEFAULT_PROJECT, Caller
from supervisor.request_fields import refuse, shown
from supervisor.storage.records import Scope

FIELD = "project_id"
PROJECT_CHARACTERS = 200


def read_project(document: Mapping[str, Any]) -> str | None:
    """The project that a request names. MalformedRequestError unless it is text of a sensible length."""
    project = document.get(FIELD)
    if project is not None and not (isinstance(project, str) and 0 < len(project) <= PROJECT_CHARACTERS):
        raise refuse(FIELD, f"must be text of 1 to {PROJECT_CHARACTERS} characters, not {shown(project)}.")
    return project


def payer(caller: Caller, named: str | None, projects: Collection[str]) -> Caller:
    """The caller, with the project that pays when its request names `named`; `projects` are those that there are.

    A key's own project pays; `default`, which the original clients send when nobody told them another, means that one, too. Only a key with the scope
    `admin`, and who has no key (an open server, the server's own key), may name another. ForbiddenError, NotFoundError.
    """
    has_key = caller.key_id is not None
    if named in (None, caller.project) or (has_key and named == DEFAULT_PROJECT):
        return caller
    if has_key and Scope.ADMIN not in caller.scopes:
        raise ForbiddenError(
            f"The key is of the project `{caller.project}`: {shown(named)} does not pay for it.",
            param=FIELD,
            remedy=f"Leave `{FIELD}` out, or use a key of that project.",
        )
    if named not in projects:
        raise _unknown(named, projects)
    return replace(caller, project=named)


def _unknown(named: str, projects: Collection[str]) -> NotFoundError:
    near = nearest(named, projects)
    remedy = "Add it: `llamavisor projects add NAME`." if near is None else f"Did you mean `{near}`?"
    return NotFoundError(f"There is no project {shown(named)}.", code="project_not_found", param=FIELD, remedy=remedy)
