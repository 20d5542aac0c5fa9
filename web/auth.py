"""The one place that knows how a client shows its key: by header, by a browser's session, or by a Socket.IO handshake."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from aiohttp import hdrs
from pydantic import SecretStr

from supervisor.gateway.accounting.callers import ANYONE, Caller
from supervisor.gateway.accounting.keys import Keyring, require_scope
from supervisor.storage.records import Scope

SESSION_COOKIE = "llamavisor_session"
_SESSION_LABEL = b"llamavisor session "


class KeyCheck:
    """Who may come in: keys are the keyring's business; a browser's session stands for the key that it was opened with, and ends with it.

    Without a key of the server's own everyone may come in, and there are no sessions. `secret` is the data folder's.
    """

    def __init__(self, key: SecretStr | None, keyring: Keyring, secret: str) -> None:
        self._keyring = keyring
        # The server's key is part of it, so that sessions end with it; the secret, so that nobody can try out such keys on a session of their own.
        self._sealing = None if key is None else _mac(secret.encode(), key.get_secret_value().encode()).digest()

    @property
    def is_open(self) -> bool:
        """The server has no key of its own."""
        return self._sealing is None

    def identify(self, authorization: str | None, cookie: str | None) -> Caller:
        """Who sends the request, by the `Authorization` header, else by the session cookie. UnauthorizedError when neither lets it in."""
        if authorization is not None:
            scheme, _, key = authorization.partition(" ")
            return self._keyring.identify(key.strip() if scheme.lower() == "bearer" else authorization)
        return self._of_session(cookie) or self._keyring.identify(None)

    def check(self, caller: Caller) -> None:
        """Raise UnauthorizedError when the key of a caller that was let in is not valid any more."""
        self._keyring.check(caller)

    def log_in(self, key: str) -> Caller:
        """Who opens the pages with `key`. UnauthorizedError as for any request; ForbiddenError when the key may not read."""
        caller = ANYONE if self.is_open else self._keyring.identify(key)
        require_scope(caller, Scope.READ)
        return caller

    def session(self, caller: Caller) -> str | None:
        """The value of the session cookie of who has logged in, None where there are none. No clock is asked, and it outlives a restart."""
        return None if self._sealing is None else _session(self._sealing, caller.key_id or "").decode()

    def _of_session(self, cookie: str | None) -> Caller | None:
        """Who has been given this session; None when nobody has. UnauthorizedError when its key is not valid any more."""
        if self._sealing is None or cookie is None:
            return None
        key_id = cookie.partition(".")[0]
        if not hmac.compare_digest(_bytes(cookie), _session(self._sealing, key_id)):
            return None
        return self._keyring.find(key_id) if key_id else ANYONE


def authorization_of(headers: Mapping[str, str]) -> str | None:
    """What a client presents: its `Authorization` header, else the `X-Api-Key` of Anthropic's clients as one."""
    key = headers.get("X-Api-Key")
    return headers.get(hdrs.AUTHORIZATION, None if key is None else f"Bearer {key}")


def _session(sealing: bytes, key_id: str) -> bytes:
    """`KEY_ID.SEAL`; of the server's own key without an id."""
    return _bytes(f"{key_id}.{_mac(sealing, _SESSION_LABEL + _bytes(key_id)).hexdigest()}")


def _mac(key: bytes, message: bytes) -> hmac.HMAC:
    return hmac.new(key, message, hashlib.sha256)


def _bytes(text: str) -> bytes:
    # Cookies may hold lone surrogates for bytes that are no UTF-8.
    return text.encode("utf-8", "surrogatepass")
