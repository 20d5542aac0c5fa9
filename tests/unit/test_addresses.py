"""Whose address is whose, before anybody listens there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from supervisor.config.engine_settings import CommandEngine
from supervisor.config.settings import InstanceSettings
from supervisor.fleet.addresses import AddressBook
from supervisor.fleet.planning import Planner
from supervisor.process.watch import CannotPlanError

SETTINGS = InstanceSettings(engine=CommandEngine(kind="command", argv=("serve", "--port", "${PORT}", "${MODEL}")))


def test_a_port_that_the_configuration_gives_away_is_not_chosen(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    first = book.choose("one", SETTINGS, unix_socket=False)
    book.release(first)
    book.keep_free([first.port])
    assert book.choose("two", SETTINGS, unix_socket=False).port != first.port


async def test_a_launch_that_cannot_be_planned_gives_its_port_back(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    first = book.choose("one", SETTINGS, unix_socket=False)
    book.release(first)
    planner = Planner("one", SETTINGS, (), book, "run")
    for _ in range(3):
        with pytest.raises(CannotPlanError):
            await planner.plan(None)
    assert book.choose("one", SETTINGS, unix_socket=False).port == first.port


def socket_file(path: Path, *, backlog: int | None) -> socket.socket:
    """A socket bound to a file; with a `backlog` somebody listens."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    if backlog is not None:
        server.listen(backlog)
    return server


def test_a_socket_file_that_a_killed_server_left_does_not_stop_the_next(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    address = book.choose("one", SETTINGS, unix_socket=True)
    assert address.socket_path is not None
    socket_file(address.socket_path, backlog=None).close()
    book.choose("one", SETTINGS, unix_socket=True)
    assert not address.socket_path.exists()


async def test_a_configured_socket_that_a_killed_server_left_does_not_either(tmp_path: Path) -> None:
    path = tmp_path / "configured.sock"
    socket_file(path, backlog=None).close()
    engine = CommandEngine(kind="command", argv=("serve", "${SOCKET}"))
    planner = Planner("one", InstanceSettings(engine=engine, socket=path), (), AddressBook(tmp_path / "run"), "run")
    plan = await planner.plan(None)
    assert plan.spec.address.socket_path == path
    assert not path.exists()


def test_twin_a_socket_somebody_listens_on_stays_even_when_its_backlog_is_full(tmp_path: Path) -> None:
    book, path = AddressBook(tmp_path), tmp_path / "busy.sock"
    with socket_file(path, backlog=0):
        # The first look fills the backlog.
        book.clear(path)
        book.clear(path)
        assert path.exists()
