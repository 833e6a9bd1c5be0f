"""The time of signatures: corrected by the origin's Date, and by nothing else."""

import pytest
from fakes import FakeClock

from bucketfront.s3.signing_clock import MIN_NAMED_SKEW_S, MIN_UNNAMED_SKEW_S, WARNING_INTERVAL_S, SigningClock

HOUR = 3600.0


@pytest.fixture
def wall() -> FakeClock:
    return FakeClock(1_800_000_000.0)


@pytest.fixture
def elapsed() -> FakeClock:
    return FakeClock(100.0)


@pytest.fixture
def clock(wall: FakeClock, elapsed: FakeClock) -> SigningClock:
    return SigningClock(wall, elapsed)


def advance(seconds: float, *clocks: FakeClock) -> None:
    for each in clocks:
        each.advance(seconds)


@pytest.mark.parametrize("skew", [-HOUR, HOUR, -50 * 365 * 24 * HOUR])
def test_a_correction(clock: SigningClock, wall: FakeClock, elapsed: FakeClock, skew: float) -> None:
    """Signatures have the origin's time once it has refused ours, and that time goes on."""
    assert clock() == wall.now
    assert clock.correct(wall.now + skew, wall.now, is_named=True)
    advance(500, wall, elapsed)
    assert clock() == wall.now + skew
    assert clock.skew == skew


@pytest.mark.parametrize(
    ("skew", "is_named", "is_corrected"),
    [
        (MIN_NAMED_SKEW_S - 1, True, False),
        (MIN_NAMED_SKEW_S + 1, True, True),
        (MIN_UNNAMED_SKEW_S - 1, False, False),
        (MIN_UNNAMED_SKEW_S + 1, False, True),
    ],
)
def test_skews_that_count(
    clock: SigningClock, wall: FakeClock, skew: float, *, is_named: bool, is_corrected: bool
) -> None:
    """A skew counts if the origin names it, or if it is one that S3 refuses."""
    for date in (wall.now + skew, wall.now - skew):
        assert clock.correct(date, wall.now, is_named=is_named) == is_corrected
        clock.drop()


def test_refusals_of_one_moment(clock: SigningClock, wall: FakeClock) -> None:
    """A request that was signed before the correction is sent again without another one."""
    signed = wall.now
    for _ in range(3):
        assert clock.correct(signed + HOUR, signed, is_named=True)
    assert clock.corrections == 1
    assert not clock.correct(signed + HOUR, signed + HOUR, is_named=False)


def test_a_wall_clock_that_is_set_right(
    clock: SigningClock, wall: FakeClock, elapsed: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The time stays right while the wall clock is set, and then the wall clock counts again."""
    right = wall.now + HOUR
    clock.correct(right, wall.now, is_named=True)
    wall.now = right
    assert (clock(), clock.skew) == (right, 0)
    assert "agrees" in caplog.text
    advance(10, elapsed)
    wall.now = right + 12  # the wall clock counts, and not the anchor
    assert clock() == right + 12


def test_a_wall_clock_that_is_set_wrong(clock: SigningClock, wall: FakeClock) -> None:
    """A corrected time does not follow a wall clock that is set to another wrong time."""
    right = wall.now + HOUR
    clock.correct(right, wall.now, is_named=True)
    wall.advance(-10 * HOUR)
    assert clock() == right


def test_a_date_by_which_the_origin_does_not_judge(clock: SigningClock, wall: FakeClock) -> None:
    """A correction that the origin refuses in its turn is dropped, and the wall clock counts."""
    false = wall.now + HOUR
    clock.correct(false, wall.now, is_named=True)
    assert clock.correct(false, clock(), is_named=True)
    assert clock() == wall.now


def test_warnings_are_bounded(
    clock: SigningClock, wall: FakeClock, elapsed: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A Date that is wrong in each response leaves one warning a minute."""
    for _ in range(10):
        clock.correct(wall.now + HOUR, wall.now, is_named=True)
        clock.drop()
    assert len(caplog.records) == 1
    assert "3600 s behind" in caplog.text
    advance(WARNING_INTERVAL_S, wall, elapsed)
    clock.correct(wall.now - HOUR, wall.now, is_named=True)
    assert "3600 s ahead of" in caplog.text
