"""Keys: what is issued is taken, what is not is refused, all alike, and no secret stays anywhere."""

from __future__ import annotations

import hashlib
import hmac
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import ForbiddenError, UnauthorizedError
from supervisor.gateway.accounting.callers import ANYONE, Caller
from supervisor.gateway.accounting.keys import IssuedKey, Keyring, issue, require_scope
from supervisor.storage.records import Scope
from supervisor.testing import FakeClock

SERVER_KEY = "the server's own"
DAY_SECONDS = 86_400


def issued(clock: FakeClock, *, lives_seconds: float | None = None) -> IssuedKey:
    """A key of the project `p`."""
    now_ms = int(clock.wall() * 1_000)
    expires_at_ms = None if lives_seconds is None else now_ms + int(lives_seconds * 1_000)
    return issue("p", [Scope.INFERENCE], now_ms, label="of a test", expires_at_ms=expires_at_ms)


def ring(clock: FakeClock, *keys: IssuedKey, server_key: str | None = SERVER_KEY) -> Keyring:
    """A ring of these keys."""
    made = Keyring(clock, server_key)
    made.replace(key.record for key in keys)
    return made


def refusal(keyring: Keyring, presented: str | None) -> str:
    """What is said to who shows this."""
    with pytest.raises(UnauthorizedError) as caught:
        keyring.identify(presented)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    return str(caught.value)


def test_a_key_has_its_form_and_each_is_another() -> None:
    keys = [issued(FakeClock()) for _ in range(50)]
    assert all(re.fullmatch(r"lv-[a-z2-7]{12}-[a-z2-7]{48}", key.text) for key in keys)
    assert len({key.text.split("-")[1] for key in keys}) == len({key.text.split("-")[2] for key in keys}) == 50
    assert all(key.record.id == key.text.split("-")[1] for key in keys)


def test_who_shows_a_key_is_its_caller_and_always_the_same_object() -> None:
    clock = FakeClock()
    key, other = issued(clock), issued(clock)
    keyring = ring(clock, key, other)
    assert keyring.identify(key.text) == Caller("p", key.record.id, frozenset({Scope.INFERENCE}))
    assert keyring.identify(key.text) is keyring.identify(key.text)
    assert keyring.identify(other.text).key_id == other.record.id
    assert keyring.identify(SERVER_KEY) is ANYONE


def test_unknown_wrong_revoked_and_expired_are_told_alike() -> None:
    clock = FakeClock()
    good, revoked, short = issued(clock), issued(clock), issued(clock, lives_seconds=60)
    keyring = ring(clock, good, revoked, short)
    assert keyring.identify(short.text).key_id == short.record.id
    keyring.revoke(revoked.record.id)
    clock.advance(60)
    unknown, swapped = issued(clock), f"{good.text[:16]}{revoked.text[16:]}"
    cut, foreign = good.text[:-1], f"sk-{good.text[3:]}"
    shown = [
        revoked.text,
        short.text,
        unknown.text,
        swapped,
        cut,
        foreign,
        good.text[3:],
        "lv-",
        "lv--",
        "-",
        "x",
        f"{good.text} ",
    ]
    told = {refusal(keyring, presented) for presented in shown}
    assert len(told) == 1
    assert told.pop().startswith("Invalid or revoked API key")
    assert keyring.identify(good.text).key_id == good.record.id


@pytest.mark.parametrize("presented", [None, ""])
def test_a_missing_key_is_told_apart(presented: str | None) -> None:
    assert refusal(ring(FakeClock()), presented).startswith("A key is needed.")


def test_an_open_server_takes_anything_but_a_bad_key_of_its_own_form() -> None:
    clock = FakeClock()
    key = issued(clock)
    keyring = ring(clock, key, server_key=None)
    assert keyring.identify(None) is keyring.identify("") is keyring.identify("sk-anything") is ANYONE
    assert keyring.identify(key.text).project == "p"
    keyring.revoke(key.record.id)
    assert refusal(keyring, key.text).startswith("Invalid or revoked API key")


def test_a_record_that_changes_replaces_the_old_one() -> None:
    clock = FakeClock()
    key = issued(clock)
    keyring = ring(clock, key)
    keyring.add(replace(key.record, scopes=frozenset({Scope.ADMIN})))
    assert keyring.identify(key.text).scopes == {Scope.ADMIN}
    keyring.add(replace(key.record, revoked_at_ms=1))
    refusal(keyring, key.text)


@pytest.mark.parametrize("jump_seconds", [DAY_SECONDS, -DAY_SECONDS, 400 * DAY_SECONDS])
def test_setting_the_wall_clock_expires_nothing(jump_seconds: float) -> None:
    clock = FakeClock()
    key = issued(clock, lives_seconds=3_600)
    keyring = ring(clock, key)
    clock.jump_wall(jump_seconds)
    clock.advance(3_599)
    assert keyring.identify(key.text).key_id == key.record.id
    clock.advance(1)
    refusal(keyring, key.text)


def test_a_change_of_other_keys_expires_nothing() -> None:
    clock = FakeClock()
    key, other = issued(clock, lives_seconds=3_600), issued(clock)
    keyring = ring(clock, key)
    caller = keyring.identify(key.text)
    clock.jump_wall(DAY_SECONDS)
    keyring.replace([key.record, other.record])
    clock.advance(3_599)
    assert keyring.identify(key.text) is caller
    clock.advance(1)
    refusal(keyring, key.text)


def test_a_key_expires_when_it_would_have_until_its_end_is_moved() -> None:
    clock = FakeClock()
    key = issued(clock, lives_seconds=3_600)
    keyring = ring(clock, key)
    clock.jump_wall(DAY_SECONDS)
    relabelled = replace(key.record, label="another")
    keyring.replace([relabelled])
    clock.advance(3_599)
    assert keyring.identify(key.text).key_id == key.record.id
    clock.advance(1)
    refusal(keyring, key.text)
    keyring.replace([replace(relabelled, expires_at_ms=int(clock.wall() * 1_000) + 60_000)])
    clock.advance(59)
    assert keyring.identify(key.text).key_id == key.record.id
    clock.advance(1)
    refusal(keyring, key.text)
    keyring.replace([replace(relabelled, expires_at_ms=None)])
    clock.advance(400 * DAY_SECONDS)
    assert keyring.identify(key.text).key_id == key.record.id


def test_a_caller_is_checked_for_as_long_as_it_works() -> None:
    clock = FakeClock()
    short, revoked = issued(clock, lives_seconds=60), issued(clock)
    keyring = ring(clock, short, revoked)
    callers = [keyring.identify(key.text) for key in (short, revoked)]
    for caller in (*callers, ANYONE):
        keyring.check(caller)
    clock.advance(60)
    keyring.revoke(revoked.record.id)
    for caller in callers:
        with pytest.raises(UnauthorizedError, match="Invalid or revoked API key"):
            keyring.check(caller)


def test_what_had_expired_at_boot_is_no_key() -> None:
    clock = FakeClock()
    key = issued(clock, lives_seconds=60)
    clock.advance(61)
    refusal(ring(clock, key), key.text)


def test_no_secret_is_kept_or_shown() -> None:
    clock = FakeClock()
    key = issued(clock)
    secret = key.text.rpartition("-")[2]
    keyring = ring(clock, key, server_key=SERVER_KEY)
    digest = hashlib.sha256(secret.encode()).digest()
    assert key.record.secret_sha256 == digest
    shown = f"{key!r} {key.record!r} {keyring!r} {keyring.identify(key.text)!r} {vars(keyring)!r}"
    assert secret not in shown
    assert repr(digest) not in shown
    everything_held = pickle.dumps([key.record, vars(keyring)])
    assert digest in everything_held
    assert secret.encode() not in everything_held
    assert SERVER_KEY.encode() not in everything_held
    with pytest.raises(UnauthorizedError) as caught:
        keyring.identify(f"{key.text}x")
    assert secret not in f"{caught.value!r} {caught.value} {caught.value.details}"


def test_every_look_up_digests_and_compares_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    key, unknown = issued(clock), issued(clock)
    keyring = ring(clock, key)
    done: list[str] = []

    def note(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any) -> Any:
            done.append(name)
            return real(*args)

        return noting

    monkeypatch.setattr(hashlib, "sha256", note("digest", hashlib.sha256))
    monkeypatch.setattr(hmac, "compare_digest", note("compare", hmac.compare_digest))
    for presented in (f"{key.text[:-1]}x", unknown.text, "nothing like it", "lv-x"):
        done.clear()
        refusal(keyring, presented)
        assert done == ["digest", "compare"], presented


@given(st.text(st.characters(), max_size=80))
def test_any_text_is_refused_in_peace(presented: str) -> None:
    clock = FakeClock()
    keyring = ring(clock, issued(clock))
    refusal(keyring, presented)
    refusal(keyring, f"lv-{presented}\udcff")


@pytest.mark.parametrize(
    ("held", "wanted", "may"),
    [
        ({Scope.INFERENCE}, Scope.INFERENCE, True),
        ({Scope.INFERENCE}, Scope.READ, False),
        ({Scope.READ}, Scope.INFERENCE, False),
        ({Scope.READ}, Scope.ADMIN, False),
        ({Scope.ADMIN}, Scope.READ, True),
        ({Scope.ADMIN}, Scope.INFERENCE, True),
        (set(), Scope.INFERENCE, False),
    ],
)
def test_scopes(held: set[Scope], wanted: Scope, may: bool) -> None:
    caller = Caller("p", "k", frozenset(held))
    if may:
        require_scope(caller, wanted)
        return
    with pytest.raises(ForbiddenError, match=wanted.value) as caught:
        require_scope(caller, wanted)
    assert caught.value.code == "missing_scope"
