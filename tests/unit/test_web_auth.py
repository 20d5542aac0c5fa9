"""Who may come in: by a key in a header, or by the session that a key has opened."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from supervisor.errors import ForbiddenError, UnauthorizedError
from supervisor.gateway.accounting.callers import ANYONE
from supervisor.gateway.accounting.keys import IssuedKey, Keyring, issue
from supervisor.storage.records import Scope
from supervisor.testing import FakeClock
from web.auth import KeyCheck

SECRET = "a data folder's secret"


def key_check(key: str | None, clock: FakeClock | None = None, *issued: IssuedKey, secret: str = SECRET) -> KeyCheck:
    """With the server's own key, or open; and keys of projects."""
    keyring = Keyring(clock or FakeClock(), key)
    keyring.replace(each.record for each in issued)
    return KeyCheck(None if key is None else SecretStr(key), keyring, secret)


def test_keys() -> None:
    keys = key_check("secret")
    assert keys.identify("Bearer secret", None) is ANYONE
    assert keys.identify("bearer  secret", None) is ANYONE
    assert keys.identify(None, keys.session(ANYONE)) is ANYONE
    for authorization, cookie in [
        (None, None),
        ("Bearer x", "y"),
        (None, ""),
        ("Bearer sécret", "é"),
        (None, "é"),
        (None, "\udcff.\udcff"),
    ]:
        with pytest.raises(UnauthorizedError):
            keys.identify(authorization, cookie)
    assert key_check(None).identify(None, None) is ANYONE


def test_a_session_stands_for_its_key() -> None:
    clock = FakeClock()
    reader = issue("shop", {Scope.READ}, 0, expires_at_ms=int(clock.wall() + 60) * 1_000)
    keys = key_check("secret", clock, reader)
    caller = keys.log_in(reader.text)
    assert (caller.project, caller.key_id, caller.scopes) == ("shop", reader.record.id, frozenset({Scope.READ}))
    session = keys.session(caller)
    assert session is not None
    assert reader.text.rpartition("-")[2] not in session
    assert keys.identify(None, session) is caller
    # What a header shows comes first.
    assert keys.identify("Bearer secret", session) is ANYONE
    clock.advance(60)
    with pytest.raises(UnauthorizedError, match="Invalid or revoked"):
        keys.identify(None, session)


def test_a_session_of_other_keys_or_another_folder_is_none() -> None:
    reader, admin = issue("shop", {Scope.READ}, 0), issue("shop", {Scope.ADMIN}, 0)
    keys = key_check("secret", FakeClock(), reader, admin)
    mine, server = (keys.session(keys.log_in(key)) or "" for key in (reader.text, "secret"))
    swapped = mine.replace(reader.record.id, admin.record.id)
    others = [
        key_check(own, FakeClock(), reader, admin, secret=secret).session(caller)
        for own, secret in (("other", SECRET), ("secret", "another folder's"))
        for caller in (ANYONE, keys.log_in(reader.text))
    ]
    for cookie in (
        swapped,
        mine.partition(".")[2],
        f".{mine.partition('.')[2]}",
        f"{mine}0",
        mine[:-1],
        server[1:],
        *others,
    ):
        with pytest.raises(UnauthorizedError, match="A key is needed"):
            keys.identify(None, cookie)


def test_who_may_not_read_does_not_log_in() -> None:
    caller_key = issue("shop", {Scope.INFERENCE}, 0)
    keys = key_check("secret", FakeClock(), caller_key)
    with pytest.raises(ForbiddenError, match="`read`"):
        keys.log_in(caller_key.text)
    for wrong in ("", "wrong", f"{caller_key.text}x", "\udcff"):
        with pytest.raises(UnauthorizedError):
            keys.log_in(wrong)


def test_an_open_server_has_no_sessions() -> None:
    reader = issue("shop", {Scope.READ}, 0)
    keys, closed = key_check(None, FakeClock(), reader), key_check("secret", FakeClock(), reader)
    assert keys.log_in("") is keys.log_in(reader.text) is ANYONE
    assert keys.session(ANYONE) is None
    assert keys.identify(None, closed.session(closed.log_in(reader.text))) is ANYONE
