"""The notification protocol of systemd (`sd_notify(3)`): one datagram of `NAME=value` lines to the socket in `NOTIFY_SOCKET`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

MICROSECONDS = 1_000_000
# systemd kills a service that is silent for the whole interval; half of it leaves room for one late ping.
WATCHDOG_SHARE = 0.5


class Notifier:
    """Tells the service manager how we are; does nothing when there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in the abstract namespace, which the kernel writes with a leading NUL.
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._watchdog_seconds = _watchdog_seconds(environ)
        self._watchdog: asyncio.Task[None] | None = None

    def notify(self, **fields: str | int) -> bool:
        """Send `fields` (`READY=1`, `STATUS="…"`); whether there was a manager that took them."""
        if not self._path:
            return False
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        ):
            out.sendto(text.encode(), self._path)
            return True
        return False

    def start_watchdog(self) -> None:
        """Ping from the loop, so that a loop that hangs is a service that is restarted."""
        if self._path and self._watchdog_seconds is not None:
            self._watchdog = asyncio.create_task(self._ping(self._watchdog_seconds), name="systemd-watchdog")

    def stop_watchdog(self) -> None:
        """End the pings; idempotent."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    async def _ping(self, interval_seconds: float) -> None:
        while True:
            self.notify(WATCHDOG=1)
            await asyncio.sleep(interval_seconds)


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isdigit() or int(text) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(text) / MICROSECONDS * WATCHDOG_SHARE
