"""The one place that knows the key: who may come in by header, by cookie or by a Socket.IO handshake."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from aiohttp import hdrs
from pydantic import SecretStr

from supervisor.errors import UnauthorizedError

SESSION_COOKIE = "llamavisor_session"
_SESSION_LABEL = b"llamavisor session v1"


class KeyCheck:
    """Compares keys in constant time; keeps no key, only what tells one. Without a configured key everyone may come in."""

    def __init__(self, key: SecretStr | None) -> None:
        secret = key.get_secret_value().encode() if key is not None else None
        self._digest = None if secret is None else _digest(secret)
        # Derived from the key, so that it ends with the key and outlives a restart; no clock is asked.
        self._session = None if secret is None else hmac.new(secret, _SESSION_LABEL, hashlib.sha256).hexdigest()

    @property
    def is_open(self) -> bool:
        """No key is configured."""
        return self._digest is None

    def accepts(self, key: object) -> bool:
        """Whether `key` is the key."""
        if self._digest is None:
            return True
        return isinstance(key, str) and hmac.compare_digest(_digest(key.encode()), self._digest)

    def accepts_session(self, cookie: str | None) -> bool:
        """Whether `cookie` is the value that `session` gave out."""
        if self._session is None:
            return True
        return cookie is not None and hmac.compare_digest(cookie.encode(), self._session.encode())

    def session(self) -> str:
        """The value of the session cookie; only for who has shown the key."""
        return self._session or ""

    def check(self, authorization: str | None, cookie: str | None) -> None:
        """Raise UnauthorizedError unless the `Authorization` header or the session cookie lets the request in."""
        if self.is_open:
            return
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and self.accepts(key.strip()):
            return
        if self.accepts_session(cookie):
            return
        given = authorization is not None
        message = "The key is not valid." if given else "A key is needed."
        raise UnauthorizedError(message, remedy="Send `Authorization: Bearer KEY` with the server's key.")


def authorization_of(headers: Mapping[str, str]) -> str | None:
    """What a client presents: its `Authorization` header, else the `X-Api-Key` of Anthropic's clients as one."""
    key = headers.get("X-Api-Key")
    return headers.get(hdrs.AUTHORIZATION, None if key is None else f"Bearer {key}")


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
