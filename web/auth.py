"""The one place that knows the key: who may come in by header, by cookie or by a Socket.IO handshake."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from aiohttp import hdrs
from pydantic import SecretStr

from supervisor.errors import UnauthorizedError
from supervisor.gateway.accounting.callers import ANYONE, Caller
from supervisor.gateway.accounting.keys import Keyring

SESSION_COOKIE = "llamavisor_session"
_SESSION_LABEL = b"llamavisor session v1"


class KeyCheck:
    """Who may come in: keys are the keyring's business, sessions of browsers are that of the server's own key. Without one everyone may come in."""

    def __init__(self, key: SecretStr | None, keyring: Keyring) -> None:
        self._keyring = keyring
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

    def is_of_project(self, key: str | None) -> bool:
        """Whether `key` is valid, and a project's."""
        try:
            return self._keyring.identify(key).key_id is not None
        except UnauthorizedError:
            return False

    def accepts_session(self, cookie: str | None) -> bool:
        """Whether `cookie` is the value that `session` gave out."""
        if self._session is None:
            return True
        return cookie is not None and hmac.compare_digest(cookie.encode(), self._session.encode())

    def session(self) -> str:
        """The value of the session cookie; only for who has shown the key."""
        return self._session or ""

    def identify(self, authorization: str | None, cookie: str | None) -> Caller:
        """Who sends the request, by the `Authorization` header, else by the session cookie. UnauthorizedError when neither lets it in."""
        if authorization is not None:
            scheme, _, key = authorization.partition(" ")
            return self._keyring.identify(key.strip() if scheme.lower() == "bearer" else authorization)
        if cookie is not None and self._session is not None and self.accepts_session(cookie):
            return ANYONE
        return self._keyring.identify(None)


def authorization_of(headers: Mapping[str, str]) -> str | None:
    """What a client presents: its `Authorization` header, else the `X-Api-Key` of Anthropic's clients as one."""
    key = headers.get("X-Api-Key")
    return headers.get(hdrs.AUTHORIZATION, None if key is None else f"Bearer {key}")


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
