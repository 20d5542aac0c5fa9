"""When a starting server is asked, and when it is given up; each with the slow but healthy twin."""

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.process.readiness import StartDeadline, probe_delays

LIMIT_SECONDS = 600.0
ROUND_SECONDS = 1.0


@given(st.floats(0.001, 1), st.floats(1, 60))
def test_probe_delays_grow_from_least_to_most(minimum: float, maximum: float) -> None:
    delays = list(islice(probe_delays(minimum, maximum), 60))
    assert delays[0] == minimum
    assert delays[-1] == maximum
    assert all(earlier <= later <= maximum for earlier, later in pairwise(delays))


def test_the_first_second_is_probed_often() -> None:
    assert sum(islice(probe_delays(0.02, 1.0), 8)) < 1.0


def test_a_start_without_any_sign_expires() -> None:
    deadline = StartDeadline(LIMIT_SECONDS, 0.0)
    expired_at = next(second for second in range(2_000) if deadline.expired(float(second)))
    assert expired_at == LIMIT_SECONDS


@pytest.mark.parametrize("sign", ["output", "fraction"])
def test_a_load_of_an_hour_that_shows_progress_is_never_given_up(sign: str) -> None:
    deadline = StartDeadline(LIMIT_SECONDS, 0.0)
    for second in range(3_600):
        now = float(second)
        if second % 500 == 499 and sign == "output":
            deadline.note_output(now - 0.3, now)
        if second % 500 == 499 and sign == "fraction":
            deadline.note_fraction(second / 3_600, now)
        assert not deadline.expired(now)


def test_output_of_long_ago_and_a_share_that_swings_are_no_progress() -> None:
    deadline = StartDeadline(LIMIT_SECONDS, 100.0)
    deadline.note_output(110.0, 110.0)
    deadline.note_fraction(0.5, 110.0)
    for second in range(111, 710):
        deadline.note_output(110.0, float(second))
        deadline.note_output(None, float(second))
        deadline.note_fraction(0.5 - second % 2 * 0.1, float(second))
        assert not deadline.expired(float(second))
    assert deadline.expired(710.0)


def test_row_30_a_suspended_machine_does_not_use_up_the_start_deadline() -> None:
    deadline = StartDeadline(LIMIT_SECONDS, 0.0)
    assert not deadline.expired(1.0)
    assert not deadline.expired(100_000.0)
    assert not any(deadline.expired(100_000.0 + second) for second in range(598))
    assert deadline.expired(100_000.0 + LIMIT_SECONDS)


def test_probes_that_are_always_slow_do_not_make_it_endless() -> None:
    deadline = StartDeadline(LIMIT_SECONDS, 0.0)
    rounds = next(count for count in range(1, 100) if deadline.expired(count * 200.0))
    assert rounds == 4


@given(st.lists(st.floats(0.01, LIMIT_SECONDS / 4), min_size=1, max_size=300), st.data())
def test_it_expires_exactly_when_nothing_moved_for_the_limit(gaps: list[float], data: st.DataObject) -> None:
    deadline = StartDeadline(LIMIT_SECONDS, 0.0)
    now = moved_at = 0.0
    for gap in gaps:
        now += gap
        if data.draw(st.booleans()):
            deadline.note_output(now, now)
            moved_at = now
        if abs(now - moved_at - LIMIT_SECONDS) > 1e-6:
            assert deadline.expired(now) == (now - moved_at > LIMIT_SECONDS)
