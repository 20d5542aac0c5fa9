"""What is to be otherwise of a key or a project: what is named changes, what is not stays, and a revoked key stays revoked."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.storage.accounts import NO_LIMITS, KeyChanges, KeyRecord, KeyRevokedError, LimitChanges, Limits
from supervisor.storage.records import Scope
from web.account_bodies import read_key_changes, read_limits
from web.account_schemas import LIMIT_NAMES

NOW_MS = 1_000_000
KEY = KeyRecord(
    "kid",
    "shop",
    bytes(32),
    frozenset({Scope.INFERENCE}),
    1,
    "website",
    expires_at_ms=NOW_MS + 1,
    limits=Limits(60, None, 4),
)
LIMIT = st.none() | st.integers(1, 2**53 - 1)
LIMITS = st.builds(Limits, LIMIT, LIMIT, LIMIT)
CHANGES = st.none() | st.dictionaries(st.sampled_from(LIMIT_NAMES), LIMIT)


@given(LIMITS, CHANGES)
def test_what_is_named_changes_and_the_rest_stays(limits: Limits, changes: LimitChanges | None) -> None:
    changed = limits.changed(changes)
    assert asdict(changed) == (asdict(NO_LIMITS) if changes is None else {**asdict(limits), **changes})
    assert changed.changed(changes) == changed
    assert limits.changed({}) == limits


@given(LIMITS, CHANGES)
def test_a_body_says_the_same_as_the_change_that_it_is_read_as(limits: Limits, changes: LimitChanges | None) -> None:
    assert limits.changed(read_limits({"limits": changes})) == limits.changed(changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, KEY),
        ({"label": "shop"}, replace(KEY, label="shop")),
        ({"expires_at_ms": None}, replace(KEY, expires_at_ms=None)),
        ({"limits": {"concurrency": None}}, replace(KEY, limits=Limits(60))),
        ({"limits": {"tokens_per_minute": 7}}, replace(KEY, limits=Limits(60, 7, 4))),
        ({"limits": None}, replace(KEY, limits=NO_LIMITS)),
    ],
)
def test_a_key_is_changed_in_what_is_named(changes: KeyChanges, expected: KeyRecord) -> None:
    assert KEY.changed(changes) == expected


def test_of_a_revoked_key_only_the_label_changes() -> None:
    revoked = replace(KEY, revoked_at_ms=NOW_MS)
    assert revoked.changed({"label": "the old one"}) == replace(revoked, label="the old one")
    same: KeyChanges = {"label": "x", "expires_at_ms": KEY.expires_at_ms, "limits": asdict(KEY.limits)}
    assert revoked.changed(same) == replace(revoked, label="x")
    others: tuple[KeyChanges, ...] = ({"expires_at_ms": None}, {"limits": None}, {"limits": {"concurrency": 5}})
    for other in others:
        with pytest.raises(KeyRevokedError, match="'kid' is revoked") as caught:
            revoked.changed(other)
        assert (caught.value.status, caught.value.code) == (409, "key_revoked")


def test_a_key_is_valid_until_it_expires_or_is_revoked() -> None:
    assert KEY.is_valid_at(NOW_MS)
    assert not KEY.is_valid_at(NOW_MS + 1)
    assert not replace(KEY, revoked_at_ms=1).is_valid_at(NOW_MS)
    assert replace(KEY, expires_at_ms=None).is_valid_at(2**53)


def test_a_body_names_what_changes_and_null_takes_it_away() -> None:
    assert read_key_changes({}, NOW_MS) == {}
    nulls = {"label": None, "expires_at": None, "limits": None}
    assert read_key_changes(nulls, NOW_MS) == {"label": "", "expires_at_ms": None, "limits": None}
