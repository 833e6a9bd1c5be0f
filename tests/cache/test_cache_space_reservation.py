"""When bytes are taken from the budget."""

from pathlib import Path

import pytest
from cache_harness import Rig
from fake_origin import BLOCK, KEY, content

from bucketfront.cache.entries.entry import ENTRY_BYTES


async def test_room_is_made_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget never exceeds its limit: entries are evicted first, and the bytes are taken then (I17)."""
    async with Rig(tmp_path, max_size=3 * (BLOCK + ENTRY_BYTES)) as rig:
        take, rooms = rig.budget.take, list[int]()

        def watched(count: int) -> None:
            take(count)
            rooms.append(rig.budget.available)

        monkeypatch.setattr(rig.budget, "take", watched)
        for number in range(6):
            key = KEY._replace(key=f"{number}")
            data = rig.origin.put(content(BLOCK, seed=number), key=key)
            assert await rig.get(key=key) == data
        assert len(rooms) == 12
        assert min(rooms) == 0
        await rig.audit()
