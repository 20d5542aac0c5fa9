"""A configuration that is right in itself may still not be servable here: whoever looks at it says so before the server is gone for it."""

from __future__ import annotations

import sys

import pytest

from supervisor.config import Settings, check_servable

TRACES = {"telemetry": {"endpoint": "http://127.0.0.1:4318"}}
DATABASE = {"storage": {"url": "postgresql://me@localhost/books"}}
EXPOSED = {"server": {"host": "0.0.0.0", "insecure": True}}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without extras."""
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "psycopg"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("opentelemetry", "psycopg"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("tree", "code", "keys"),
    [
        ({}, None, []),
        (TRACES, "extra_missing", ["telemetry.endpoint"]),
        ({**TRACES, **DATABASE}, "extra_missing", ["telemetry.endpoint", "storage.url"]),
        ({**EXPOSED, **DATABASE}, "exposed_bind", ["server.api_key", "storage.url"]),
    ],
)
def test_an_extra_that_is_not_installed_is_missed(tree: dict[str, object], code: str | None, keys: list[str]) -> None:
    error = check_servable(Settings.model_validate(tree))
    assert (error and error.code) == code
    assert [problem.key for problem in (error.problems if error else ())] == keys
    assert all(
        "pip install" in problem.remedy for problem in (error.problems if error else ()) if "server" not in problem.key
    )


def test_what_is_installed_is_not_missed() -> None:
    assert check_servable(Settings.model_validate({**TRACES, **DATABASE})) is None
