"""Addresses for engines: the configured one, or one of our choice (a Unix socket, or a loopback port from 8134 upward)."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from supervisor.config.settings import SOCKET_PATH_LIMIT_BYTES, InstanceSettings
from supervisor.errors import NotAvailableError
from supervisor.launch import Address

FIRST_PORT = 8134
LAST_PORT = 65_535


class AddressBook:
    """Who has which address. An address is reserved until it is released: one of an unkillable process stays reserved."""

    def __init__(self, socket_folder: Path) -> None:
        self._socket_folder = socket_folder
        self._ports: set[int] = set()
        self._fixed: frozenset[int] = frozenset()

    def keep_free(self, ports: Iterable[int]) -> None:
        """Ports that the configuration gives away, not to be chosen for others even while nobody listens there."""
        self._fixed = frozenset(ports)

    def configured(self, settings: InstanceSettings) -> Address | None:
        """The address that the configuration fixes, if it fixes one."""
        if settings.url is not None:
            url = settings.url
            prefix = (url.path or "").rstrip("/")
            return Address(host=_plain(url.host or ""), port=url.port or 0, https=url.scheme == "https", prefix=prefix)
        if settings.port is not None:
            return Address(host=settings.host, port=settings.port)
        return Address(socket_path=settings.socket) if settings.socket is not None else None

    def choose(self, name: str, settings: InstanceSettings, *, unix_socket: bool) -> Address:
        """An address of our choice for a child of ours."""
        if unix_socket:
            return Address(socket_path=self._socket(name))
        return Address(host=settings.host, port=self._free_port(settings.host))

    def release(self, address: Address) -> None:
        """Take an address back once nothing of its process is left; a leftover socket file goes too."""
        self._ports.discard(address.port)
        path = address.socket_path
        if path is not None and path.parent == self._socket_folder:
            with suppress(OSError):
                path.unlink()

    def _socket(self, name: str) -> Path:
        path = self._socket_folder / f"{name}.sock"
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT_BYTES:
            path = self._socket_folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.sock"
        self.clear(path)
        return path

    def clear(self, path: Path) -> None:
        """Take away the file of a Unix socket that a killed server left behind: its successor could not bind. A live one stays."""
        if _is_abandoned(path):
            path.unlink(missing_ok=True)

    def _free_port(self, host: str) -> int:
        for port in range(FIRST_PORT, LAST_PORT + 1):
            if port not in self._ports and port not in self._fixed and _can_bind(host, port):
                self._ports.add(port)
                return port
        raise NotAvailableError(f"No port from {FIRST_PORT} upward is free on {host}.", code="port_in_use")


def _is_abandoned(path: Path) -> bool:
    """Whether nobody listens there any more: only a refusal says so; a full backlog is somebody's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _plain(host: str) -> str:
    return host.removeprefix("[").removesuffix("]")


def _can_bind(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
