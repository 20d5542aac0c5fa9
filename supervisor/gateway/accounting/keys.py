"""API keys: `lv-ID-SECRET`. The id finds the record, the secret proves it; of the secret only its SHA-256 is kept, here and in the books.

The secret is 240 random bits, so that a plain digest is as good as a slow one: nobody guesses it. Every look-up takes one digest and one
comparison in constant time, whether the id is known or not, and every refusal is the same.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b32encode
from collections.abc import Iterable
from dataclasses import dataclass, field

from supervisor.clock import Clock
from supervisor.errors import ForbiddenError, UnauthorizedError
from supervisor.gateway.accounting.callers import ANYONE, Caller
from supervisor.storage.accounts import NO_LIMITS, KeyRecord, Limits
from supervisor.storage.records import Scope

PREFIX = "lv-"
ID_CHARACTERS = 12
ID_BYTES = 10
SECRET_BYTES = 30
"""30 bytes are 48 characters of base32, without padding."""

MILLISECONDS = 1_000
_REMEDY = "Send `Authorization: Bearer KEY` with a valid key."
_NOBODY = bytes(32)
"""A digest that no text is known to have: what an unknown id is compared with."""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key: what is kept of it, and `text`, which is shown to its owner once and never again."""

    record: KeyRecord
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A valid key. `until_seconds` is on the monotonic clock."""

    record: KeyRecord
    caller: Caller
    until_seconds: float | None


def issue(
    project: str,
    scopes: Iterable[Scope],
    created_at_ms: int,
    *,
    label: str = "",
    expires_at_ms: int | None = None,
    limits: Limits = NO_LIMITS,
) -> IssuedKey:
    """Make a key with a new random id and secret."""
    key_id = _base32(secrets.token_bytes(ID_BYTES))[:ID_CHARACTERS]
    secret = _base32(secrets.token_bytes(SECRET_BYTES))
    record = KeyRecord(
        key_id,
        project,
        _digest(secret),
        frozenset(scopes),
        created_at_ms,
        label=label,
        expires_at_ms=expires_at_ms,
        limits=limits,
    )
    return IssuedKey(record, f"{PREFIX}{key_id}-{secret}")


class Keyring:
    """The valid keys in memory, and the server's own key (`server_key`; None: the server is open to whoever shows no key).

    What has the form of an issued key must be one, on an open server too; any other text is taken there, for SDKs insist on sending some. Expiry is
    counted on the monotonic clock from the time at which a record is taken in: setting the wall clock expires nothing before the next start (and
    time that the machine sleeps through does not count before it either).
    """

    def __init__(self, clock: Clock, server_key: str | None = None) -> None:
        self._clock = clock
        self._server_digest = None if server_key is None else _digest(server_key)
        self._entries: dict[str, _Entry] = {}

    def replace(self, records: Iterable[KeyRecord]) -> None:
        """Take these keys in place of all others. Those whose end has not changed expire when they would have."""
        self._entries = {record.id: self._entry(record) for record in records if record.revoked_at_ms is None}

    def add(self, record: KeyRecord) -> None:
        """Take a key, or what has changed of one. A revoked or expired one is not valid from now on."""
        if record.revoked_at_ms is None:
            self._entries[record.id] = self._entry(record)
        else:
            self.revoke(record.id)

    def revoke(self, key_id: str) -> None:
        """The key of this id is not valid from now on; unknown ids are none already."""
        self._entries.pop(key_id, None)

    def identify(self, presented: str | None) -> Caller:
        """Who shows this key; the same object each time. None: no key is shown.

        UnauthorizedError tells a missing key from a bad one, and nothing else: not whether it is unknown, wrong, expired or revoked.
        """
        if not presented:
            return self._anyone()
        key_id, _, secret = presented.removeprefix(PREFIX).partition("-")
        entry = self._entries.get(key_id)
        if entry is None or not presented.startswith(PREFIX):
            return self._stranger(presented)
        if not hmac.compare_digest(_digest(secret), entry.record.secret_sha256) or self._is_over(entry):
            raise _refused()
        return entry.caller

    def find(self, key_id: str) -> Caller:
        """Who has the key of this id. UnauthorizedError, as `identify`, when there is none, or it is not valid any more."""
        entry = self._entries.get(key_id)
        if entry is None or self._is_over(entry):
            raise _refused()
        return entry.caller

    def check(self, caller: Caller) -> None:
        """Raise UnauthorizedError, as `identify`, when the key of a caller that it told is not valid any more."""
        if caller.key_id is not None:
            self.find(caller.key_id)

    def _anyone(self) -> Caller:
        if self._server_digest is None:
            return ANYONE
        raise UnauthorizedError("A key is needed.", remedy=_REMEDY)

    def _stranger(self, presented: str) -> Caller:
        is_servers = hmac.compare_digest(_digest(presented), self._server_digest or _NOBODY)
        if is_servers or (self._server_digest is None and not _looks_issued(presented)):
            return ANYONE
        raise _refused()

    def _entry(self, record: KeyRecord) -> _Entry:
        known = self._entries.get(record.id)
        if known is not None and known.record == record:
            return known
        caller = Caller(record.project, record.id, record.scopes)
        if known is not None and known.record.expires_at_ms == record.expires_at_ms:
            return _Entry(record, caller, known.until_seconds)
        return _Entry(record, caller, self._until_seconds(record.expires_at_ms))

    def _until_seconds(self, expires_at_ms: int | None) -> float | None:
        if expires_at_ms is None:
            return None
        return self._clock.monotonic() + (expires_at_ms / MILLISECONDS - self._clock.wall())

    def _is_over(self, entry: _Entry) -> bool:
        return entry.until_seconds is not None and self._clock.monotonic() >= entry.until_seconds


def has_scope(caller: Caller, scope: Scope) -> bool:
    """Whether the caller's key may do this. `admin` includes everything, `read` and `inference` do not include one another."""
    return scope in caller.scopes or Scope.ADMIN in caller.scopes


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raise ForbiddenError unless `has_scope`."""
    if has_scope(caller, scope):
        return
    raise ForbiddenError(
        f"This key may not do that: it lacks the scope `{scope.value}`.",
        code="missing_scope",
        remedy="Use a key that has it.",
    )


def _looks_issued(presented: str) -> bool:
    key_id, _, secret = presented.removeprefix(PREFIX).partition("-")
    return presented.startswith(PREFIX) and len(key_id) == ID_CHARACTERS and bool(secret)


def _refused() -> UnauthorizedError:
    return UnauthorizedError("Invalid or revoked API key.", remedy=_REMEDY)


def _digest(text: str) -> bytes:
    # Header values may hold lone surrogates for bytes that are no UTF-8.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _base32(data: bytes) -> str:
    return b32encode(data).decode().rstrip("=").lower()
