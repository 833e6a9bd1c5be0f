"""The budget: what may be taken, as bounded by `max_size` and by the free space of the disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.cache.entries.budget import Budget

amounts = st.integers(0, 1 << 40)


def test_room_is_what_the_limit_leaves() -> None:
    """Bytes in use and the space of the index count against `max_size` (I17)."""
    budget = Budget(100, used=30, overhead=20)
    assert budget.available == 50
    budget.take(60)
    assert budget.available == -10
    budget.give_back(60)
    assert budget.available == 50
    assert not budget.is_bound_by_disk


def test_more_than_was_taken_cannot_be_given_back() -> None:
    """Giving back more bytes than were taken is a bug, which fails at once."""
    with pytest.raises(AssertionError):
        Budget(100, used=3).give_back(4)


def test_a_small_disk_binds() -> None:
    """If the disk has less free space than `max_size` leaves, the free space above the floor is available."""
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
    """Bytes that were taken before the disk was sampled, and are written after it, are not available (I17)."""
    budget = Budget(1000, floor=50)
    budget.take(30)
    budget.sample(100, promised=20)
    assert budget.available == 30
    budget.take(10)
    assert budget.available == 20
    assert budget.taken == 40


def test_a_disk_below_its_floor_has_negative_room() -> None:
    """With less free space than `min_free`, the available bytes are negative, so that entries are evicted."""
    budget = Budget(1000, used=100, floor=50)
    budget.sample(20)
    assert budget.available == -30


def test_free_inodes_are_counted_as_free_bytes_are() -> None:
    """A file needs a free inode above the floor. A file system without a number of inodes has no floor (I17)."""
    budget = Budget(1000, inode_floor=5)
    budget.sample_inodes(8, promised=1)
    assert budget.available_files == 2
    assert not budget.is_bound_by_disk
    budget.take_files(2)
    assert budget.available_files == 0
    assert budget.is_bound_by_disk
    assert not budget.is_overdrawn
    budget.sample_inodes(4)
    assert budget.is_overdrawn
    budget.sample_inodes(None)
    assert budget.available_files > 1 << 60
    assert not budget.is_bound_by_disk


@given(amounts, st.lists(amounts, max_size=5), amounts, amounts, amounts)
def test_room_never_exceeds_either_bound(limit: int, taken: list[int], free: int, floor: int, overhead: int) -> None:
    """Available bytes are within `max_size`, and within the free space less what was taken since the sample (I17)."""
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
