"""When a reader inside a part gets a part of its own."""

from rows import each_row

from bucketfront.cache.fetch.part_fetch import PartFetch, PartState
from bucketfront.cache.fetch.part_rate import PartRate

RATE = 1000  # bytes a second


def received(delay: float | None, count: int = 5 * RATE) -> PartFetch:
    """Return a part fetch that has received so many bytes by the time of 5 s."""
    return PartFetch(0, 1 << 20, count, count, first_byte_at=0.0, delay=delay, state=PartState.RECEIVING)


@each_row(("delay", "patience"), [(None, 0.2), (0.0, 0.05), (0.04, 0.08), (0.1, 0.2), (3.0, 0.2)])
def test_patience_is_that_of_two_requests(delay: float | None, patience: float) -> None:
    """A reader waits as long as two requests take to a first byte, within bounds, for those bytes that come sooner."""
    fetch, rate = received(delay), PartRate()
    bound = fetch.mark + round(RATE * patience)
    assert not rate.is_too_slow(fetch, bound - 1, 5.0)
    assert rate.is_too_slow(fetch, bound, 5.0)


def test_a_young_part_is_judged_by_the_latest_one() -> None:
    """A part fetch that has received nothing has the rate and the delay of the one that ended last, if there is one."""
    rate, young = PartRate(), PartFetch(0, 1 << 20, 0, 0, state=PartState.REQUESTING)
    assert not rate.is_too_slow(young, 1 << 20, 5.0)
    rate.note_end(received(0.04), 5.0)
    assert not rate.is_too_slow(young, 79, 5.0)
    assert rate.is_too_slow(young, 80, 5.0)
    rate.note_end(received(None), 5.0)  # of a lookup: it says nothing about the delay
    assert rate.is_too_slow(young, 80, 5.0)
    rate.note_end(young, 5.0)
    assert rate.is_too_slow(young, 80, 5.0)
