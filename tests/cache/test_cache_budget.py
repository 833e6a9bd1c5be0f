"""The budget: what may be taken, by `max_size` and by the free space of the disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.cache.entries.budget import Budget

amounts = st.integers(0, 1 << 40)


def test_room_is_what_the_limit_leaves() -> None:
    """Bytes in use and the index's own count against `max_size` (I17)."""
    budget = Budget(100, used=30, overhead=20)
    assert budget.available == 50
    budget.take(60)
    assert budget.available == -10
    budget.give_back(60)
    assert budget.available == 50
    assert not budget.is_bound_by_disk


def test_more_than_was_taken_cannot_be_given_back() -> None:
    """Giving back what was never taken is a mistake that shows at once."""
    with pytest.raises(AssertionError):
        Budget(100, used=3).give_back(4)


def test_a_small_disk_binds() -> None:
    """Where the disk has less free than `max_size` leaves, room is what is free above the floor."""
    budget = Budget(1000, used=100, floor=50)
    budget.sample(80)
    assert budget.available == 30
    assert budget.is_bound_by_disk
    budget.take(30)
    assert budget.available == 0
    budget.sample(5000)
    assert budget.available == 870
    assert not budget.is_bound_by_disk


def test_what_is_not_written_yet_counts() -> None:
    """Bytes that were taken before the disk was asked, and will be written after it, are not free (I17)."""
    budget = Budget(1000, floor=50)
    budget.take(30)
    budget.sample(100, promised=20)
    assert budget.available == 30
    budget.take(10)
    assert budget.available == 20
    assert budget.taken == 40


def test_a_disk_below_its_floor_has_negative_room() -> None:
    """With less free than `min_free`, something has to go."""
    budget = Budget(1000, used=100, floor=50)
    budget.sample(20)
    assert budget.available == -30


@given(amounts, st.lists(amounts, max_size=5), amounts, amounts, amounts)
def test_room_never_exceeds_either_bound(limit: int, taken: list[int], free: int, floor: int, overhead: int) -> None:
    """Room is within `max_size` and within the free space less what was taken since it was sampled (I17)."""
    budget = Budget(limit, floor=floor, overhead=overhead)
    budget.sample(free)
    for count in taken:
        budget.take(count)
    assert budget.used == sum(taken)
    assert budget.available == min(limit - sum(taken) - overhead, free - sum(taken) - floor)
    assert budget.is_bound_by_disk == (free - floor < limit - overhead)
    for count in taken:
        budget.give_back(count)
    assert budget.used == 0
