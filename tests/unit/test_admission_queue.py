"""The queue keeps its promises in any order of coming, going and being served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from supervisor.gateway.admission.queue import BATCH_TURN, FairQueue
from supervisor.gateway.admission.tickets import Ticket

LIMIT = 14


class Numbered(Ticket):
    """A ticket that tests can tell apart, in the order of arrival, and what it went through."""

    __slots__ = ("ahead_of_key", "most_keys", "most_projects", "number", "overtaken")

    def __init__(self, number: int, project: str, key: str | None = None, *, batch: bool = False) -> None:
        super().__init__(project, key, batch=batch)
        self.number = number
        self.overtaken = 0
        self.ahead_of_key = self.most_keys = self.most_projects = 0

    def __repr__(self) -> str:
        return f"{self.number}:{self.project}/{self.key}{' batch' if self.batch else ''}"


def queue_of(*paths: str, limit: int = 100) -> FairQueue[Numbered]:
    """A queue that was joined in this order; `a/1` is key 1 of project a, `a/1!` a batch request of it."""
    queue: FairQueue[Numbered] = FairQueue(limit)
    for number, path in enumerate(paths, 1):
        queue.add(ticket(number, path))
    return queue


def ticket(number: int, path: str) -> Numbered:
    """A ticket, from text."""
    project, _, key = path.removesuffix("!").partition("/")
    return Numbered(number, project, key or None, batch=path.endswith("!"))


def drained(queue: FairQueue[Numbered]) -> list[int]:
    """The order in which everybody is served."""
    return [queue.pop().number for _ in range(queue.size)]


@pytest.mark.parametrize(
    ("paths", "order"),
    [
        ("a a a", [1, 2, 3]),
        ("a a a b", [1, 4, 2, 3]),
        ("a a b b c", [1, 3, 5, 2, 4]),
        ("a/1 a/1 a/1 a/2 b/9", [1, 5, 4, 2, 3]),
        ("a/1 a/2 a/3 b b b", [1, 4, 2, 5, 3, 6]),
        ("a! a! b a", [3, 4, 1, 2]),
    ],
)
def test_projects_take_turns_then_their_keys_then_first_come_first_served(paths: str, order: list[int]) -> None:
    queue = queue_of(*paths.split())
    assert [waiting.number for waiting in queue.order()] == order
    assert drained(queue) == order


def test_who_comes_back_at_once_does_not_go_first_again() -> None:
    queue = queue_of("a", "a", "a", "b")
    served = []
    for number in range(5, 9):
        served.append(queue.pop().project)
        if served[-1] == "b":
            queue.add(ticket(number, "b"))
    assert served == ["a", "b", "a", "b"]


def test_batch_requests_yield_but_are_not_starved() -> None:
    queue = queue_of("a!", "a!", *["b"] * 40)
    order = drained(queue)
    assert [order.index(number) + 1 for number in (1, 2)] == [BATCH_TURN, 2 * BATCH_TURN]


@pytest.mark.parametrize(
    ("paths", "newcomer", "leaver"),
    [
        ("a a a a", "b", 4),
        ("a a a b", "b", 3),
        ("a a b b", "b", 5),
        ("a a b b", "a", 5),
        ("a a b b", "c", 2),
        ("a/1 a/1 a/1 a/2", "a/2", 3),
        ("a/1 a/1 a/2 a/2", "a/2", 5),
        ("a a! a! b!", "a", 3),
        ("a a b b", "c!", 5),
        ("a! a! a! b", "b!", 3),
    ],
)
def test_in_a_full_queue_who_holds_the_most_yields_to_who_holds_less(paths: str, newcomer: str, leaver: int) -> None:
    queue = queue_of(*paths.split(), limit=4)
    left = queue.add(ticket(5, newcomer))
    assert left is not None
    assert left.number == leaver
    assert queue.size == 4


def test_a_position_is_told_and_asked_in_vain_of_a_stranger() -> None:
    queue = queue_of("a", "a", "b")
    assert [queue.position(waiting) for waiting in queue.order()] == [1, 2, 3]
    with pytest.raises(ValueError, match="not in the queue"):
        queue.position(ticket(1, "a"))
    assert not queue.remove(ticket(1, "a"))


def held_by(tickets: Iterable[Numbered], *, batch: bool) -> Counter[str]:
    """How many tickets each project has waiting."""
    return Counter(one.project for one in tickets if one.batch is batch)


class QueueAgainstItsPromises(RuleBasedStateMachine):
    """Everybody who waits is in `waiting`, in order of arrival; the queue is told the same things."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Numbered] = FairQueue(LIMIT)
        self.waiting: list[Numbered] = []
        self.count = 0
        self.passed_over = 0

    @rule(project=st.sampled_from("abc"), key=st.sampled_from("123"), batch=st.sampled_from([False, False, True]))
    def joins(self, project: str, key: str, batch: bool) -> None:
        self.count += 1
        newcomer = Numbered(self.count, project, key, batch=batch)
        newcomer.ahead_of_key = len(self.peers(newcomer))
        before = list(self.waiting)
        leaver = self.queue.add(newcomer)
        if leaver is not newcomer:
            self.waiting.append(newcomer)
        if leaver is not None:
            assert len(before) == LIMIT
            self.check_that_it_is_fair(newcomer, leaver, before)
        if leaver is not None and leaver is not newcomer:
            self.waiting.remove(leaver)
        self.note_company()

    def check_that_it_is_fair(self, newcomer: Numbered, leaver: Numbered, before: list[Numbered]) -> None:
        held = held_by(before, batch=leaver.batch)
        if leaver is newcomer:
            assert newcomer.batch or not held_by(before, batch=True)
            assert all(held[newcomer.project] + 1 >= held[other] for other in held)
        elif leaver.batch is newcomer.batch and leaver.project != newcomer.project:
            assert held[newcomer.project] + 1 <= held[leaver.project] - 1
        assert newcomer.batch <= leaver.batch
        assert leaver is newcomer or leaver is self.peers(leaver)[-1] or leaver is self.peers(leaver)[-2]

    @precondition(lambda self: self.waiting)
    @rule()
    def is_served(self) -> None:
        expected = next(self.queue.order())
        served = self.queue.pop()
        assert served is expected
        assert served is self.peers(served)[0]
        self.waiting.remove(served)
        if not served.batch:
            turns = (served.ahead_of_key + 1) * served.most_keys * served.most_projects
            assert served.overtaken <= turns - 1
        batch_waits = any(one.batch for one in self.waiting)
        self.passed_over = self.passed_over + 1 if batch_waits and not served.batch else 0
        assert self.passed_over < BATCH_TURN
        for other in self.waiting:
            other.overtaken += not served.batch

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        leaver = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(leaver)
        assert not self.queue.remove(leaver)
        self.waiting.remove(leaver)

    def peers(self, one: Numbered) -> list[Numbered]:
        """Who waits with the same key, and class, in order of arrival."""
        return [other for other in self.waiting if (other.path, other.batch) == (one.path, one.batch)]

    def note_company(self) -> None:
        interactive = [one for one in self.waiting if not one.batch]
        projects = len({one.project for one in interactive})
        for one in interactive:
            keys = len({other.key for other in interactive if other.project == one.project})
            one.most_projects, one.most_keys = max(one.most_projects, projects), max(one.most_keys, keys)

    @invariant()
    def nobody_is_lost_or_there_twice(self) -> None:
        order = list(self.queue.order())
        assert self.queue.size == len(order) == len(self.waiting) <= LIMIT
        assert {one.number for one in order} == {one.number for one in self.waiting}

    def teardown(self) -> None:
        told = [one.number for one in self.queue.order()]
        assert drained(self.queue) == told


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_any_order_of_events_keeps_the_promises() -> None:
    run_state_machine_as_test(QueueAgainstItsPromises, settings=settings(max_examples=settings().max_examples // 2))
