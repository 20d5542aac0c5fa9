"""Whose turn it is, who yields and who waits: tables, and what holds whatever is wanted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supervisor.fleet.placement.eviction import Grip, Tenant
from supervisor.fleet.placement.keeping import Replica, rested, wanted_ahead
from supervisor.fleet.placement.resources import HOST, group
from supervisor.fleet.placement.schedule import Decision, Lack, Situation, Target, decide, spare_room

BUSY = Tenant("busy", {HOST: 4}, Grip.BUSY, ready_since=0.0)
IDLE = Tenant("idle", {HOST: 4}, Grip.IDLE, ready_since=0.0)
PINNED = Tenant("pinned", {HOST: 4}, Grip.PINNED, ready_since=0.0)


def look(targets: list[Target], tenants: list[Tenant], free: dict[str, int], **more: Any) -> Decision:
    """A decision at 100 s, with a patience of 10 s."""
    return decide(Situation(targets, tenants, free, **{"now": 100.0, "patience_seconds": 10.0} | more))


def target(name: str, needs: int, since: float = 99.0, **groups: int) -> Target:
    return Target(name, {HOST: needs, **{group(one): count for one, count in groups.items()}}, since)


def test_what_fits_is_loaded() -> None:
    assert look([target("a", 4)], [BUSY], {HOST: 4}) == Decision(load="a")


def test_the_oldest_comes_first_and_what_overtakes_it_costs_it_nothing() -> None:
    elder, younger = target("elder", 8, 98), target("younger", 2, 99)
    found = look([elder, younger], [BUSY], {HOST: 5})
    assert (found.load, list(found.waiting)) == (None, ["elder", "younger"])
    unlike = target("unlike", 0, 99)
    assert look([elder, unlike], [BUSY], {HOST: 5}).load == "unlike"
    of_a_group, member = target("elder", 2, 98, g=1), Tenant("member", {HOST: 1, group("g"): 1}, Grip.BUSY)
    free = {HOST: 4, group("g"): 0}
    assert look([of_a_group, younger], [member], free).load == "younger"
    assert look([of_a_group, target("younger", 3, 99)], [member], free).load is None


def test_nobody_goes_for_one_that_is_not_the_first() -> None:
    younger = target("younger", 6, 99)
    assert look([younger], [BUSY, IDLE], {HOST: 3}).eviction is not None
    found = look([target("elder", 11, 98), younger], [BUSY, IDLE], {HOST: 3})
    assert (found.eviction, list(found.waiting)) == (None, ["elder", "younger"])


def test_one_load_at_a_time_where_they_share_a_resource() -> None:
    found = look([target("a", 4)], [], {HOST: 9}, loading=frozenset({HOST}))
    assert (found.load, found.waiting) == (None, {"a": Lack("turn", "another model is being loaded")})
    assert look([target("a", 4)], [], {HOST: 9}, loading=frozenset({"gpu0"})).load == "a"


def test_memory_that_is_not_back_is_waited_for_before_anybody_else_goes() -> None:
    found = look([target("a", 4)], [IDLE], {HOST: 3}, not_back=frozenset({HOST}))
    assert found.eviction is None
    assert found.look_again_at == 100.1
    assert look([target("a", 4)], [IDLE], {HOST: 3}).eviction is not None


def test_what_can_never_fit_is_refused_whoever_is_before_it() -> None:
    huge = target("huge", 50)
    found = look([target("elder", 8, 98), huge], [BUSY, PINNED], {HOST: 4})
    assert list(found.waiting) == ["elder"]
    assert found.refused["huge"].reason == "memory"
    assert found.refused["huge"].text.startswith("needs 50 B of memory")


def test_the_busy_are_held_back_once_patience_is_over() -> None:
    waiting = target("a", 6, 99)
    assert look([waiting], [BUSY], {HOST: 4}).look_again_at == 109
    assert look([waiting], [BUSY], {HOST: 4}, now=109.0).held == {"busy"}
    just_ready = Tenant("busy", {HOST: 4}, Grip.BUSY, ready_since=105.0)
    found = look([waiting], [just_ready], {HOST: 4}, now=109.0)
    assert (found.held, found.look_again_at) == (frozenset(), 115)


def test_who_was_wanted_before_is_neither_evicted_nor_held() -> None:
    waiting = target("a", 6, 50)
    elder = Tenant("one", {HOST: 4}, Grip.IDLE, wanted_since=40.0, ready_since=0.0)
    assert look([waiting], [elder], {HOST: 4}) == Decision(
        waiting={"a": Lack("memory", "needs 6 B of memory, 4 B free, 1 wanted")}, refused={}
    )
    busy = Tenant("one", {HOST: 4}, Grip.BUSY, wanted_since=40.0, ready_since=0.0)
    assert look([waiting], [busy], {HOST: 4}).held == frozenset()
    younger = Tenant("one", {HOST: 4}, Grip.IDLE, wanted_since=60.0, ready_since=0.0)
    assert look([waiting], [younger], {HOST: 4}).eviction is not None


def test_nothing_is_loaded_ahead_while_somebody_waits_or_somebody_would_have_to_go() -> None:
    def at(targets: list[Target], free: int, loading: frozenset[str] = frozenset()) -> bool:
        return spare_room(Situation(targets, [IDLE], {HOST: free}, 100.0, 10.0, loading=loading), {HOST: 4})

    assert at([], 4)
    assert not at([], 3)
    assert not at([target("a", 99)], 4)
    assert not at([], 4, frozenset({HOST}))


TENANTS = st.lists(
    st.builds(
        Tenant,
        st.sampled_from([f"t{number}" for number in range(6)]),
        st.fixed_dictionaries({HOST: st.integers(0, 8)}, optional={group("g"): st.just(1)}),
        st.sampled_from(Grip),
        wanted_since=st.none() | st.floats(0, 100),
        ready_since=st.none() | st.floats(0, 100),
    ),
    unique_by=lambda tenant: tenant.name,
)
TARGETS = st.lists(
    st.builds(
        Target,
        st.sampled_from("abcd"),
        st.fixed_dictionaries({HOST: st.integers(0, 20)}, optional={group("g"): st.just(1)}),
        st.floats(0, 100),
    ),
    unique_by=lambda one: one.name,
)


@given(TARGETS, TENANTS, st.integers(-2, 12), st.integers(-1, 1), st.sets(st.sampled_from([HOST])))
def test_every_target_has_exactly_one_lot_until_something_is_done(
    targets: list[Target], tenants: list[Tenant], memory: int, places: int, loading: set[str]
) -> None:
    targets = sorted(targets, key=lambda one: one.since)
    free = {HOST: memory, group("g"): places}
    found = look(targets, tenants, free, loading=frozenset(loading))
    acted = {found.load} if found.load is not None else set()
    acted |= {found.eviction.target} if found.eviction is not None else set()
    assert len(acted) <= 1
    assert not set(found.waiting) & set(found.refused)
    assert not acted & (set(found.waiting) | set(found.refused))
    if not acted:
        assert set(found.waiting) | set(found.refused) == {one.name for one in targets}
    by_name = {tenant.name: tenant for tenant in tenants}
    for name in found.eviction.victims if found.eviction is not None else ():
        since = next(one.since for one in targets if one.name == found.eviction.target)  # type: ignore[union-attr]
        wanted = by_name[name].wanted_since
        assert by_name[name].grip is Grip.IDLE
        assert wanted is None or wanted > since
    assert all(by_name[name].grip is Grip.BUSY for name in found.held)


def replica(name: str, **more: Any) -> Replica:
    return Replica(name, "chat", **{"is_ready": True, "is_loaded": True, "ttl_seconds": 10.0} | more)


def test_the_idle_rest_when_their_time_is_over_and_the_busy_never() -> None:
    fleet = [replica("idle", used_at=90.0), replica("busy", used_at=0.0, is_engaged=True), replica("new", used_at=95.0)]
    assert rested(fleet, {}, 100.0) == (("idle",), 105.0)
    assert rested([replica("for ever", ttl_seconds=None)], {}, 1e9) == ((), None)
    assert rested([replica("loading", is_ready=False)], {}, 1e9) == ((), None)


def test_spares_do_not_rest_and_are_loaded_ahead_of_need() -> None:
    fleet = [
        replica("one"),
        replica("two", used_at=5.0),
        replica("three", is_ready=False, is_loaded=False, may_start=True),
    ]
    assert rested(fleet, {"chat": 1}, 100.0)[0] == ("one",)
    assert rested(fleet, {"chat": 2}, 100.0)[0] == ()
    assert wanted_ahead(fleet, {"chat": 3}) == ("three",)
    assert wanted_ahead(fleet, {"chat": 2}) == ()
    engaged = [replica("one", is_engaged=True), fleet[2]]
    assert wanted_ahead(engaged, {"chat": 1}) == ("three",)
    stopped_by_hand = [engaged[0], replica("three", is_ready=False, is_loaded=False)]
    assert wanted_ahead(stopped_by_hand, {"chat": 1}) == ()
