"""Who pays for a request that names a project."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.errors import ForbiddenError, LlamavisorError, MalformedRequestError, NotFoundError
from supervisor.gateway.accounting.callers import ANYONE, Caller
from supervisor.gateway.accounting.paying import payer, read_project
from supervisor.storage.records import Scope

PROJECTS = {"default", "shop", "lab"}
SHOP = Caller("shop", "k", frozenset({Scope.INFERENCE}))
CHIEF = Caller("shop", "c", frozenset({Scope.ADMIN}))


@pytest.mark.parametrize("value", ["", 7, ["p"], "p" * 201])
def test_what_names_no_project_is_refused(value: Any) -> None:
    with pytest.raises(MalformedRequestError) as refusal:
        read_project({"project_id": value})
    assert refusal.value.param == "project_id"


@pytest.mark.parametrize(
    ("caller", "named", "project"),
    [
        (ANYONE, None, "default"),
        (ANYONE, "default", "default"),
        (ANYONE, "lab", "lab"),
        (SHOP, None, "shop"),
        (SHOP, "shop", "shop"),
        (SHOP, "default", "shop"),
        (CHIEF, "default", "shop"),
        (CHIEF, "lab", "lab"),
    ],
)
def test_who_pays(caller: Caller, named: str | None, project: str) -> None:
    paying = payer(caller, read_project({"project_id": named}), PROJECTS)
    assert (paying.project, paying.key_id, paying.scopes) == (project, caller.key_id, caller.scopes)


@pytest.mark.parametrize(
    ("caller", "named", "kind", "words"),
    [
        (SHOP, "lab", ForbiddenError, "of the project `shop`"),
        (SHOP, "nobody", ForbiddenError, "Leave `project_id` out"),
        (CHIEF, "nobody", NotFoundError, "llamavisor projects add NAME"),
        (ANYONE, "shpo", NotFoundError, "Did you mean `shop`?"),
        (ANYONE, "\ud800", NotFoundError, r"\ud800"),
    ],
)
def test_who_does_not(caller: Caller, named: str, kind: type[LlamavisorError], words: str) -> None:
    with pytest.raises(kind) as refusal:
        payer(caller, named, PROJECTS)
    assert refusal.value.param == "project_id"
    assert words in str(refusal.value)
