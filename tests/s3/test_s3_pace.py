"""The pace of requests to a bucket, as S3's SlowDown sets it."""

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.errors import OriginThrottled
from bucketfront.s3.pace import LIMITED_S, MAX_WAIT_S, MEASURED_S, MIN_RATE, RECOVERY_S, SHARE, Pace


def throttled_at(rate: int, clock: FakeClock) -> Pace:
    """Return a pace that was throttled after two periods with `rate` requests a second."""
    pace = Pace(clock)
    for _ in range(2):
        for _ in range(int(rate * MEASURED_S)):
            assert pace.take_turn() == 0
        clock.advance(MEASURED_S)
    pace.throttled()
    return pace


def wait_of(pace: Pace) -> float:
    """Return the wait for the next turn, refused or not."""
    try:
        return pace.take_turn()
    except OriginThrottled as error:
        return error.retry_after or 0.0


def test_no_limit_at_first() -> None:
    """Without a throttled request no request waits, however many there are."""
    pace = Pace(FakeClock())
    assert [pace.take_turn() for _ in range(1000)] == [0.0] * 1000
    assert pace.limit is None


def test_the_limit_grows_and_is_dropped() -> None:
    """A throttled request limits the bucket to a share of its rate, which returns within RECOVERY_S, then ends."""
    clock = FakeClock()
    pace = throttled_at(100, clock)
    assert pace.limit == pytest.approx(100 * SHARE)
    clock.advance(RECOVERY_S)
    assert pace.limit == pytest.approx(100)
    clock.advance(LIMITED_S - RECOVERY_S)
    assert pace.limit is None
    assert [pace.take_turn() for _ in range(500)] == [0.0] * 500


def test_turns_are_evenly_spaced() -> None:
    """Requests that come together get turns one after the other, and the last ones are refused with the time left."""
    pace = throttled_at(100, FakeClock())
    waits = [pace.take_turn() for _ in range(int(MAX_WAIT_S * 100 * SHARE))]
    assert waits == pytest.approx([number / (100 * SHARE) for number in range(len(waits))])
    assert pace.take_turn() == pytest.approx(MAX_WAIT_S)
    with pytest.raises(OriginThrottled) as raised:
        pace.take_turn()
    assert raised.value.retry_after == pytest.approx(MAX_WAIT_S + 1 / (100 * SHARE))


def test_requests_that_were_sent_together_limit_once() -> None:
    """Many requests are throttled at once, and together they are one sign. Later ones lower the limit further."""
    clock = FakeClock()
    pace = throttled_at(100, clock)
    first = pace.limit
    assert first is not None
    for _ in range(50):
        pace.throttled()
    assert pace.limit == first
    clock.advance(2 * MEASURED_S)
    pace.take_turn()
    pace.throttled()
    assert pace.limit is not None
    assert pace.limit < first


@given(st.lists(st.one_of(st.just("throttled"), st.floats(0, 30)), max_size=60))
def test_the_limit_has_a_floor(events: "list[str | float]") -> None:
    """Whatever happens, at least MIN_RATE requests a second may be sent, and no turn is further than MAX_WAIT_S."""
    clock = FakeClock()
    pace = Pace(clock)
    for event in events:
        if isinstance(event, float):
            clock.advance(event)
        else:
            pace.throttled()
        assert pace.limit is None or pace.limit >= MIN_RATE
        assert 0 <= wait_of(pace) <= MAX_WAIT_S + 1 / MIN_RATE
