"""Who must go: never the busy, the pinned or the wanted; enough, and nobody in vain."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from supervisor.fleet.placement.eviction import Grip, Plan, Tenant, plan, shortage_text
from supervisor.fleet.placement.resources import HOST, bytes_text, group, missing, total

RESOURCES = (HOST, "gpu0", group("big"))
AMOUNTS = st.dictionaries(st.sampled_from(RESOURCES), st.integers(0, 8), max_size=3)
NEEDS = st.fixed_dictionaries(
    {HOST: st.integers(4, 16)}, optional={"gpu0": st.integers(0, 8), group("big"): st.just(1)}
)
FREE = st.fixed_dictionaries(
    {HOST: st.integers(-2, 4)}, optional={"gpu0": st.integers(0, 8), group("big"): st.integers(-1, 1)}
)
GRIPS = st.sampled_from([Grip.IDLE] * 5 + list(Grip))


@st.composite
def tenants(draw: st.DrawFn) -> list[Tenant]:
    count = draw(st.integers(0, 7))
    return [
        Tenant(
            f"t{number}",
            draw(AMOUNTS),
            draw(GRIPS),
            idle_seconds=draw(st.floats(0, 1_000)),
            reload_seconds=draw(st.floats(0, 100)),
        )
        for number in range(count)
    ]


def lacks_after(needs: dict[str, int], free: dict[str, int], gone: list[Tenant]) -> dict[str, int]:
    """What is missing once these are gone; the sum a second time, and differently."""
    after = {name: amount + sum(tenant.holds.get(name, 0) for tenant in gone) for name, amount in free.items()}
    return missing(needs, after)


@given(NEEDS, tenants(), FREE)
def test_only_the_idle_are_evicted_enough_and_none_in_vain(
    needs: dict[str, int], others: list[Tenant], free: dict[str, int]
) -> None:
    found = plan(needs, others, free)
    by_name = {tenant.name: tenant for tenant in others}
    leaving = [tenant for tenant in others if tenant.grip is Grip.LEAVING]
    victims = [by_name[name] for name in found.evict]
    assert all(victim.grip is Grip.IDLE for victim in victims)
    assert found.fits == (not missing(needs, free))
    if victims:
        assert not lacks_after(needs, free, [*leaving, *victims])
        for victim in victims:
            assert lacks_after(needs, free, [*leaving, *(one for one in victims if one is not victim)])


@given(NEEDS, tenants(), FREE)
def test_hopeless_is_what_no_end_and_no_eviction_would_help(
    needs: dict[str, int], others: list[Tenant], free: dict[str, int]
) -> None:
    found = plan(needs, others, free)
    yielding = [tenant for tenant in others if tenant.grip is not Grip.PINNED]
    assert found.is_hopeless == bool(lacks_after(needs, free, yielding))
    waits_for = [tenant for tenant in others if tenant.name in found.waits_for]
    assert all(tenant.grip not in (Grip.PINNED, Grip.IDLE) for tenant in waits_for)
    if waits_for:
        assert not lacks_after(needs, free, [*waits_for, *(one for one in others if one.grip is Grip.IDLE)])


OLD = Tenant("old", {HOST: 4}, idle_seconds=100, reload_seconds=10)
NEW = Tenant("new", {HOST: 4}, idle_seconds=20, reload_seconds=10)
COSTLY = Tenant("costly", {HOST: 4}, idle_seconds=100, reload_seconds=1_000)
BIG = Tenant("big", {HOST: 8}, idle_seconds=15, reload_seconds=10)


def test_the_longest_idle_in_terms_of_its_cost_goes_first() -> None:
    assert plan({HOST: 4}, [NEW, COSTLY, OLD], {HOST: 0}).evict == ("old",)
    assert plan({HOST: 4}, [NEW, COSTLY], {HOST: 0}).evict == ("new",)


def test_who_turns_out_to_be_needless_stays() -> None:
    assert plan({HOST: 8}, [OLD, BIG], {HOST: 0}).evict == ("big",)
    assert plan({HOST: 8}, [OLD, NEW, BIG], {HOST: 0}).evict == ("old", "new")


def test_a_group_is_a_resource_like_memory() -> None:
    member = Tenant("a", {HOST: 1, group("g"): 1})
    assert plan({HOST: 1, group("g"): 1}, [OLD, member], {HOST: 50, group("g"): 0}) == Plan(
        evict=("a",), lacks={group("g"): 1}
    )


def test_those_that_leave_anyway_are_waited_for() -> None:
    leaving = replace(OLD, grip=Grip.LEAVING)
    assert plan({HOST: 4}, [leaving, NEW], {HOST: 0}) == Plan(waits_for=("old",), lacks={HOST: 4})
    assert plan({HOST: 8}, [leaving, NEW], {HOST: 0}).evict == ("new",)


def test_what_is_not_limited_is_not_lacking() -> None:
    assert plan({"gpu7": 10**12}, [], {HOST: 0}).fits


def test_the_shortage_is_told_in_figures() -> None:
    busy = [Tenant(name, {HOST: 1}, Grip.BUSY) for name in "ab"]
    text = shortage_text({HOST: 5_100_000_000}, {HOST: 3_200_000_000}, busy)
    assert text == "needs 5.1 GB of memory, 3.2 GB free, 2 busy"
    assert shortage_text({group("g"): 1}, {group("g"): 0}, []) == "the group `g` has no place left"
    assert [bytes_text(amount) for amount in (999, 1_000, 999_950, 10**13)] == ["999 B", "1.0 kB", "1.0 MB", "10.0 TB"]
    assert total([{HOST: 1}, {HOST: 2, "gpu0": 3}]) == {HOST: 3, "gpu0": 3}
