"""The cache's clock, made of a wall clock that is set and of one that never is."""

import itertools

from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cache.clock import JUMP_S, MAX_TIME, CacheClock

DAY = 86400.0
NOON = 1_700_000_000.0


class Time:
    """Two clocks that pass together. The wall clock may be set."""

    def __init__(self, newest: float | None = None) -> None:
        self.wall, self.elapsed = FakeClock(NOON), FakeClock(500.0)
        self.cache = CacheClock(self.wall, self.elapsed, newest)

    def advance(self, seconds: float) -> None:
        self.wall.advance(seconds)
        self.elapsed.advance(seconds)


def test_as_the_wall_clock() -> None:
    """Without jumps the cache's clock equals the wall clock."""
    time = Time()
    time.advance(10)
    assert time.cache() == NOON + 10
    assert time.cache.ago(4) == NOON + 6
    assert not time.cache.went_back


def test_wall_clock_set_back() -> None:
    """The cache's clock continues when the wall clock is set back."""
    time = Time()
    time.wall.advance(-DAY)
    assert time.cache() == NOON
    time.advance(10)
    assert time.cache() == NOON + 10
    assert time.cache.ago(10) == NOON


def test_wall_clock_set_ahead() -> None:
    """The cache's clock jumps ahead with the wall clock, because the time may have passed. The idle timer does not."""
    time = Time()
    time.advance(100)
    time.wall.advance(DAY)
    assert time.cache() == NOON + DAY + 100
    assert time.cache.ago(60) == NOON + 40
    time.advance(50)
    assert time.cache.ago(60) == NOON + 90
    time.advance(20)
    assert time.cache.ago(60) == NOON + DAY + 110


def test_small_differences() -> None:
    """A difference below JUMP_S is no jump, because two clocks are never equal."""
    time = Time()
    time.wall.advance(JUMP_S / 2)
    assert time.cache() == NOON


def test_after_another_run() -> None:
    """The time between two runs counts for freshness, not for the idle timer."""
    time = Time(newest=NOON - DAY)
    assert (time.cache(), time.cache.went_back) == (NOON, False)
    time.advance(10)
    assert time.cache.ago(60) == NOON - DAY - 50


def test_set_back_between_two_runs() -> None:
    """The clock continues from the end of the former run, and notes that the time since then is unknown."""
    time = Time(newest=NOON + DAY)
    assert (time.cache(), time.cache.went_back) == (NOON + DAY, True)
    time.advance(10)
    assert time.cache() == NOON + DAY + 10
    assert time.cache.ago(60) == NOON + DAY - 50


@each_row("newest", [MAX_TIME * 2, 1e300, float("inf")])
def test_what_was_no_time(newest: float) -> None:
    """A stored time that no clock can show does not stop the cache's clock."""
    time = Time(newest=newest)
    time.advance(1)
    assert time.cache() == NOON + 1


@given(
    st.lists(st.tuples(st.floats(0, 3 * DAY), st.floats(-2 * DAY, 2 * DAY)), max_size=20),
    st.none() | st.floats(NOON - 9 * DAY, NOON + 9 * DAY),
)
def test_never_slower_than_time(steps: list[tuple[float, float]], newest: float | None) -> None:
    """However the wall clock is set, the cache's clock never goes back and is at least as fast as time.

    It is never behind the wall clock by more than JUMP_S (I7). `ago` is never after now, and never goes back either.
    """
    time = Time(newest)
    readings = [(time.cache(), time.cache.ago(100))]
    for passed, jump in steps:
        time.advance(passed)
        time.wall.advance(jump)
        readings.append((time.cache(), time.cache.ago(100)))
        assert readings[-1][0] >= readings[-2][0] + passed - 1e-3
        assert time.wall() <= readings[-1][0] + JUMP_S
    for (_, before), (now, after) in itertools.pairwise(readings):
        assert before <= after + 1e-3
        assert after <= now
