"""What every clock of the cache does: the one over a wall clock that may be set, and the one of the tests."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cache.clock import CacheClock, Clock

NOON = 1_700_000_000.0
PRECISION = 1e-6  # seconds: a float of so many seconds has no more digits


@dataclass(frozen=True)
class Driven:
    """A clock, and how its time passes."""

    clock: Clock
    advance: Callable[[float], None]


def over_a_wall_clock() -> Driven:
    wall, elapsed = FakeClock(NOON), FakeClock(500.0)

    def advance(seconds: float) -> None:
        wall.advance(seconds)
        elapsed.advance(seconds)

    return Driven(CacheClock(wall, elapsed), advance)


def over_a_wall_clock_that_is_set() -> Driven:
    wall, elapsed = FakeClock(NOON), FakeClock(500.0)

    def advance(seconds: float) -> None:
        wall.advance(-1000.0 if seconds > 50 else seconds)
        elapsed.advance(seconds)

    return Driven(CacheClock(wall, elapsed), advance)


def of_the_tests() -> Driven:
    clock = FakeClock(NOON)
    return Driven(clock, clock.advance)


CLOCKS = (over_a_wall_clock, over_a_wall_clock_that_is_set, of_the_tests)
steps = st.lists(st.floats(0, 100), max_size=30)


@pytest.mark.parametrize("make", CLOCKS)
@given(passing=steps)
def test_it_never_goes_back_or_stands(make: Callable[[], Driven], passing: list[float]) -> None:
    """The clock advances at least as far as time does, and never back (I7)."""
    driven = make()
    before = driven.clock()
    for seconds in passing:
        driven.advance(seconds)
        assert driven.clock() >= before + seconds - PRECISION
        before = driven.clock()


@pytest.mark.parametrize("make", CLOCKS)
@given(passing=steps, seconds=st.floats(0, 1000), more=st.floats(0, 1000))
def test_times_in_the_past(make: Callable[[], Driven], passing: list[float], seconds: float, more: float) -> None:
    """A time in the past is not after now, and not after one that is less long ago."""
    driven = make()
    for each in passing:
        driven.advance(each)
    now = driven.clock()
    assert driven.clock.ago(0) == pytest.approx(now, abs=PRECISION)
    assert driven.clock.ago(seconds) <= now - seconds + PRECISION
    assert driven.clock.ago(seconds + more) <= driven.clock.ago(seconds) + PRECISION


@each_row("make", CLOCKS)
def test_what_was_read_is_found_again(make: Callable[[], Driven]) -> None:
    """The clock returns for a time in the past what it returned then."""
    driven = make()
    driven.advance(10)
    then = driven.clock()
    driven.advance(20)
    assert driven.clock.ago(20) == pytest.approx(then, abs=PRECISION)
