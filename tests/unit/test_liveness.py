"""The judges of a ready server. Each verdict has its negative twin: the slow but healthy case is left alone."""

from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.process.liveness import Counters, LivenessJudge, Observation, ProgressJudge, Verdict

WEDGE_SECONDS = 60.0
BUSY_SECONDS = 600.0
INTERVAL_SECONDS = 5.0
HOUR_SECONDS = 3_600
STUCK = Counters(advancing=100.0, busy=1.0, free_slots=1)
ALL_TAKEN = Counters(advancing=100.0, busy=4.0, free_slots=0)
SILENT = Counters(answered=False)
IDLE_CPU = 0.01
FULL_CORE = 1.0


def judge() -> ProgressJudge:
    return ProgressJudge(WEDGE_SECONDS, BUSY_SECONDS)


def observe_every_interval(
    counters_at: Callable[[float], Counters | None],
    *,
    active: int = 1,
    cores: float = IDLE_CPU,
    last_byte_at: Callable[[float], float] = lambda now: float("-inf"),
) -> Iterator[Observation]:
    """An hour of observations of a server; `cores` is how much processor it uses, 0 for a server whose processes we cannot see."""
    for count in range(1, int(HOUR_SECONDS / INTERVAL_SECONDS)):
        now = count * INTERVAL_SECONDS
        yield Observation(now, counters_at(now), active, cores * (1_000.0 + now) if cores else 0.0, last_byte_at(now))


def first_verdict(observations: Iterable[Observation], judge: ProgressJudge) -> tuple[Verdict, float] | None:
    """The first verdict other than OK, and how many seconds after the first observation."""
    began: float | None = None
    for observation in observations:
        began = observation.now if began is None else began
        verdict = judge.observe(observation)
        if verdict is not Verdict.OK:
            return verdict, observation.now - began
    return None


class TestLiveness:
    def test_misses_in_a_row_are_unresponsive(self) -> None:
        judge = LivenessJudge(3)
        assert [judge.observe(False) for _ in range(4)] == [
            Verdict.OK,
            Verdict.OK,
            Verdict.UNRESPONSIVE,
            Verdict.UNRESPONSIVE,
        ]

    def test_flapping_is_left_alone(self) -> None:
        judge = LivenessJudge(3)
        assert all(judge.observe(count % 3 == 0) is Verdict.OK for count in range(300))

    @given(st.integers(1, 5), st.lists(st.booleans(), max_size=60))
    def test_unresponsive_exactly_when_the_last_probes_all_missed(self, allowed: int, probes: list[bool]) -> None:
        judge = LivenessJudge(allowed)
        for count, ok in enumerate(probes, start=1):
            last = probes[max(0, count - allowed) : count]
            expected = len(last) == allowed and not any(last)
            assert (judge.observe(ok) is Verdict.UNRESPONSIVE) == expected


class TestWedged:
    def test_counters_that_stand_still_with_a_slot_free_are_in_doubt(self) -> None:
        assert first_verdict(observe_every_interval(lambda _: STUCK), judge()) == (Verdict.DOUBT, WEDGE_SECONDS)

    def test_with_every_slot_taken_there_is_no_canary_to_ask(self) -> None:
        assert first_verdict(observe_every_interval(lambda _: ALL_TAKEN), judge()) == (Verdict.WEDGED, WEDGE_SECONDS)

    def test_a_page_that_stays_silent_is_in_doubt_even_if_nothing_is_known_to_be_active(self) -> None:
        observations = observe_every_interval(lambda now: STUCK if now < 10 else SILENT, active=0)
        assert first_verdict(observations, judge()) == (Verdict.DOUBT, WEDGE_SECONDS)

    def test_requests_of_others_count_as_active(self) -> None:
        assert first_verdict(observe_every_interval(lambda _: STUCK, active=0), judge()) is not None

    def test_without_counters_our_own_traffic_tells(self) -> None:
        assert first_verdict(observe_every_interval(lambda _: None), judge()) == (Verdict.DOUBT, WEDGE_SECONDS)

    def test_a_loop_that_spins_is_given_the_time_of_a_long_prompt(self) -> None:
        observations = observe_every_interval(lambda _: ALL_TAKEN, cores=FULL_CORE)
        assert first_verdict(observations, judge()) == (Verdict.WEDGED, BUSY_SECONDS)

    def test_a_server_whose_processor_time_nobody_knows_gets_its_canary_in_time(self) -> None:
        assert first_verdict(observe_every_interval(lambda _: STUCK, cores=0), judge()) == (
            Verdict.DOUBT,
            WEDGE_SECONDS,
        )


class TestSlowButHealthy:
    def test_one_token_a_minute_is_progress(self) -> None:
        observations = observe_every_interval(lambda now: Counters(now // 55, 1.0, 0))
        assert first_verdict(observations, judge()) is None

    def test_a_long_prompt_in_one_batch_is_not_cut_off(self) -> None:
        def prompt_of_nine_minutes(now: float) -> Counters:
            return Counters(0.0 if now < 540 else now, 1.0, 0)

        observations = observe_every_interval(prompt_of_nine_minutes, cores=FULL_CORE)
        assert first_verdict(observations, judge()) is None

    def test_bytes_that_pass_through_us_are_progress(self) -> None:
        observations = observe_every_interval(lambda _: None, last_byte_at=lambda now: now - 0.1)
        assert first_verdict(observations, judge()) is None

    def test_an_idle_server_stands_still_by_right(self) -> None:
        observations = observe_every_interval(lambda _: Counters(100.0, 0.0, 4), active=0)
        assert first_verdict(observations, judge()) is None

    def test_counters_that_start_anew_have_moved(self) -> None:
        observations = observe_every_interval(lambda now: Counters(100.0 if int(now) % 100 < 50 else 3.0, 1.0, 0))
        assert first_verdict(observations, judge()) is None

    def test_a_server_elsewhere_that_is_full_gets_the_time_of_a_long_prompt(self) -> None:
        observations = observe_every_interval(lambda now: ALL_TAKEN if now < 500 else Counters(now, 4, 0), cores=0)
        assert first_verdict(observations, judge()) is None

    def test_a_page_that_was_silent_for_a_while_is_forgiven(self) -> None:
        observations = observe_every_interval(lambda now: SILENT if now % 60 < 50 else Counters(now, 1.0, 2))
        assert first_verdict(observations, judge()) is None

    def test_row_30_a_suspended_machine_wakes_without_a_verdict(self) -> None:
        subject = judge()
        before = [Observation(now, STUCK, 1, IDLE_CPU) for now in (5.0, 10.0)]
        after = [Observation(100_000.0 + now, STUCK, 1, IDLE_CPU) for now in (0.0, 5.0)]
        assert first_verdict([*before, *after], subject) is None

    def test_observations_that_are_always_far_apart_still_come_to_a_verdict(self) -> None:
        observations = [Observation(count * 30.0, STUCK, 1, IDLE_CPU) for count in range(10)]
        assert first_verdict(observations, judge()) == (Verdict.DOUBT, 90.0)

    def test_a_canary_that_came_back_puts_the_next_doubt_off(self) -> None:
        subject = judge()
        observations = list(observe_every_interval(lambda _: STUCK))
        first = first_verdict(observations[:13], subject)
        assert first == (Verdict.DOUBT, WEDGE_SECONDS)
        subject.canary_answered(66.0)
        assert first_verdict((each for each in observations if each.now > 66), subject) == (Verdict.DOUBT, 60.0)


@given(
    st.lists(
        st.tuples(st.floats(0.1, WEDGE_SECONDS / 4), st.booleans(), st.integers(0, 2), st.integers(0, 2)), max_size=200
    )
)
def test_no_verdict_while_anything_moved_within_the_limit(steps: list[tuple[float, bool, int, int]]) -> None:
    subject = judge()
    now = advancing = moved_at = 0.0
    subject.observe(Observation(now, Counters(advancing, 0.0, 1), 0, IDLE_CPU))
    for gap, moves, active, free_slots in steps:
        now += gap
        if moves or not active:
            moved_at = now
        advancing += moves
        verdict = subject.observe(Observation(now, Counters(advancing, float(active), free_slots), active, IDLE_CPU))
        if abs(now - moved_at - WEDGE_SECONDS) > 1e-6:
            assert (verdict is not Verdict.OK) == (now - moved_at > WEDGE_SECONDS)


@pytest.mark.parametrize("cores", [IDLE_CPU, 0.09])
def test_less_than_a_tenth_of_a_core_is_not_busy(cores: float) -> None:
    assert first_verdict(observe_every_interval(lambda _: ALL_TAKEN, cores=cores), judge()) == (Verdict.WEDGED, 60.0)
