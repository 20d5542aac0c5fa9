"""The limits of live connections, and a bucket that counts against one."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """What a client of the live channels may do.

    `message_bytes`: largest message. `auth_deadline_seconds`: from the handshake until it has joined the namespace.
    `messages_per_second` and `message_burst`: what it may send. `connections_per_address`, and for this machine itself
    `connections_from_loopback` (a reverse proxy speaks for many). `unread_seconds`: how long what was sent may stay unread.
    `queued_messages`: answers that may wait for one client.
    """

    message_bytes: int = 64 * 1024
    auth_deadline_seconds: float = 5.0
    messages_per_second: float = 50.0
    message_burst: float = 200.0
    connections_per_address: int = 256
    connections_from_loopback: int = 20_000
    unread_seconds: float = 60.0
    queued_messages: int = 64

    def connections_from(self, address: str) -> int:
        """How many connections `address` may hold."""
        try:
            is_loopback = ipaddress.ip_address(address).is_loopback
        except ValueError:
            is_loopback = False
        return self.connections_from_loopback if is_loopback else self.connections_per_address


class TokenBucket:
    """Allows `burst` at once and `rate` a second in the long run; time is given in, monotonic seconds."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one; False when there is none left."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
