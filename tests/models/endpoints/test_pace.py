from __future__ import annotations

import pytest

from biomistral.models.endpoints.pace import Pace, Stopped


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_no_minute_holds_more_requests_than_are_allowed() -> None:
    pace = Pace(requests_per_minute=30, clock=Clock())
    assert [pace.reserve(1) for _ in range(4)] == [0, 2, 4, 6]


def test_long_prompts_wait_for_the_tokens_of_those_before() -> None:
    pace = Pace(tokens_per_minute=600, clock=Clock())
    assert [pace.reserve(n) for n in (100, 10, 50)] == [0, 10, 11]


def test_the_tighter_of_two_bounds_counts() -> None:
    pace = Pace(requests_per_minute=60, tokens_per_minute=600, clock=Clock())
    assert [pace.reserve(n) for n in (1, 100, 1)] == [0, 1, 11]


def test_time_that_went_by_is_not_waited_for_again() -> None:
    clock = Clock()
    pace = Pace(requests_per_minute=30, clock=clock)
    pace.reserve(1)
    clock.now += 5
    assert pace.reserve(1) == 0


def test_a_pause_that_the_server_asks_for_holds_for_all() -> None:
    pace = Pace(clock=Clock())
    pace.hold(7)
    pace.hold(3)  # a shorter one takes nothing away
    assert pace.reserve(1) == 7


def test_who_waits_is_woken_when_work_is_stopped() -> None:
    pace = Pace()
    pace.hold(1000)
    pace.stop()
    with pytest.raises(Stopped):
        pace.wait(1)
