"""The waiting line: nobody is lost, nobody is served twice, and nobody's traffic starves another."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.gateway.admission.queue import BATCH_TURN, FairQueue, Ticket

PROJECTS = ("a", "b", "c")
KEYS = ("1", "2", None)
tickets = st.builds(Ticket, st.sampled_from(PROJECTS), st.sampled_from(KEYS), st.booleans())


def line_of(*owners: str) -> FairQueue:
    """A line of tickets named `PROJECT KEY NUMBER`."""
    queue = FairQueue()
    for owner in owners:
        project, key, _ = owner.split()
        queue.add(Ticket(project, key, owner=owner))
    return queue


def served(queue: FairQueue) -> list[str]:
    """Everybody, in turn."""
    return [queue.pop().owner for _ in range(len(queue))]


def test_projects_take_turns_and_their_keys_too() -> None:
    queue = line_of("a x 1", "a x 2", "a x 3", "a y 1", "b z 1", "b z 2")
    assert served(queue) == ["a x 1", "b z 1", "a y 1", "b z 2", "a x 2", "a x 3"]


def test_a_key_is_served_in_the_order_in_which_it_came() -> None:
    assert served(line_of("a x 1", "a x 2", "a x 3")) == ["a x 1", "a x 2", "a x 3"]


def test_who_comes_new_waits_for_one_turn_of_a_flood() -> None:
    queue = line_of(*(f"flood k {number}" for number in range(100)))
    queue.pop()
    queue.add(Ticket("small", "k", owner="small"))
    assert [queue.pop().owner for _ in range(2)] == ["flood k 1", "small"]


def test_batch_work_yields_but_does_not_starve() -> None:
    queue = FairQueue()
    queue.add(Ticket("a", "k", is_batch=True, owner="batch"))
    order = []
    for number in range(3 * BATCH_TURN):
        queue.add(Ticket("a", "k", owner=number))
        order.append(queue.pop().owner)
    assert 0 < order.index("batch") < BATCH_TURN


def test_batch_work_is_served_when_nobody_else_waits() -> None:
    queue = FairQueue()
    queue.add(Ticket("a", "k", is_batch=True, owner="batch"))
    assert queue.pop().owner == "batch"


def test_nobody_waits_in_an_empty_line() -> None:
    queue = FairQueue()
    with pytest.raises(IndexError):
        queue.pop()
    assert queue.position(Ticket("a", "k")) == 0
    assert not queue.remove(Ticket("a", "k"))


@pytest.mark.parametrize(
    ("waiting", "comes", "yields"),
    [
        (["a x 1", "a x 2", "a x 3"], ("b", "x"), "a x 3"),
        (["a x 1", "a x 2"], ("b", "x"), "a x 2"),
        (["a x 1"], ("b", "x"), None),
        (["a x 1", "b x 1"], ("c", "x"), None),
        (["a x 1", "a x 2", "b x 1"], ("b", "x"), None),
        (["a x 1", "a x 2", "a x 3"], ("a", "x"), None),
        (["a x 1", "a x 2", "a y 1"], ("a", "z"), "a x 2"),
        (["a x 1", "a y 1", "a y 2", "a y 3"], ("b", "x"), "a y 3"),
        ([], ("a", "x"), None),
    ],
)
def test_of_a_full_line_the_newest_of_the_greediest_leaves(
    waiting: list[str], comes: tuple[str, str], yields: str | None
) -> None:
    found = line_of(*waiting).who_yields(*comes, is_batch=False)
    assert (None if found is None else found.owner) == yields


def test_batch_work_leaves_a_full_line_first_and_for_no_batch_work_of_its_own_kind() -> None:
    queue = line_of("a x 1", "a x 2")
    queue.add(Ticket("b", "k", is_batch=True, owner="batch"))
    leaver = queue.who_yields("a", "x", is_batch=False)
    assert leaver is not None
    assert leaver.owner == "batch"
    assert queue.who_yields("c", "k", is_batch=True) is None


@given(st.lists(tickets, max_size=30), tickets)
def test_nobody_gains_room_by_turns(waiting: list[Ticket], comes: Ticket) -> None:
    """Who got room by sending another away cannot be sent away by that one at once."""
    queue = FairQueue()
    for ticket in waiting:
        queue.add(ticket)
    leaver = queue.who_yields(comes.project, comes.key, is_batch=comes.is_batch)
    if leaver is None or leaver.is_batch is not comes.is_batch:
        return
    queue.remove(leaver)
    queue.add(comes)
    back = queue.who_yields(leaver.project, leaver.key, is_batch=leaver.is_batch)
    assert back is None or (back.project, back.key) != (comes.project, comes.key)


@given(st.lists(tickets.filter(lambda ticket: not ticket.is_batch), max_size=40))
def test_the_position_is_the_turn_if_nobody_else_comes(waiting: list[Ticket]) -> None:
    queue = FairQueue()
    for ticket in waiting:
        queue.add(ticket)
    told = {id(ticket): queue.position(ticket) for ticket in waiting}
    for turn in range(1, len(waiting) + 1):
        assert told[id(queue.pop())] == turn


class Waiting(RuleBasedStateMachine):
    """Anybody comes, leaves and is served, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.inside: list[Ticket] = []
        # Turns that others had since a ticket came, and the most that the promise allows it.
        self.passed: defaultdict[int, int] = defaultdict(int)

    @rule(ticket=tickets)
    def come(self, ticket: Ticket) -> None:
        """A new one."""
        self.queue.add(ticket)
        self.inside.append(ticket)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Somebody gives up."""
        ticket = data.draw(st.sampled_from(self.inside))
        assert self.queue.remove(ticket)
        assert not self.queue.remove(ticket)
        self.inside.remove(ticket)

    @precondition(lambda self: self.inside)
    @rule()
    def serve(self) -> None:
        """The next."""
        ticket = self.queue.pop()
        assert ticket in self.inside
        ahead = [
            each
            for each in self.inside
            if (each.project, each.key, each.is_batch) == (ticket.project, ticket.key, ticket.is_batch)
        ]
        assert ahead[0] is ticket
        self.inside.remove(ticket)
        for each in self.inside:
            if not each.is_batch:
                self.passed[id(each)] += 1

    @invariant()
    def nobody_is_lost(self) -> None:
        """What is in the line is who came and was neither served nor left."""
        assert len(self.queue) == len(self.inside)
        assert set(map(id, self.queue.tickets())) == set(map(id, self.inside))

    @invariant()
    def nobody_starves(self) -> None:
        """The promise of the module: k × keys × projects turns, and the turns of batch work between them."""
        depths: defaultdict[tuple[str, str | None], int] = defaultdict(int)
        for each in self.inside:
            if each.is_batch:
                continue
            depths[each.project, each.key] += 1
            ahead = depths[each.project, each.key]
            most = (ahead + self.passed[id(each)]) * len(KEYS) * len(PROJECTS)
            assert self.passed[id(each)] <= most + most // (BATCH_TURN - 1) + 1


TestWaiting = Waiting.TestCase
TestWaiting.pytestmark = [pytest.mark.soak]  # type: ignore[attr-defined]


@given(st.integers(1, 30), st.integers(1, 5))
def test_a_flood_delays_others_by_the_promised_number_of_turns_at_most(depth: int, projects: int) -> None:
    queue = FairQueue()
    for number in range(200):
        queue.add(Ticket("flood", str(number % 3)))
    mine = [Ticket("mine", "k") for _ in range(depth)]
    for ticket in mine:
        queue.add(ticket)
    for number in range(projects):
        queue.add(Ticket(f"other {number}", "k"))
    turns = 0
    while queue.position(mine[-1]):
        queue.pop()
        turns += 1
        queue.add(Ticket("flood", str(turns % 3)))
    assert turns <= depth * (projects + 2)
