"""A reader that comes to a part fetch which is failing already."""

import asyncio
from collections import deque
from pathlib import Path

from cache_harness import PART, Rig, turns
from fake_origin import content

from bucketfront.cache.fetch.body_stream import MAX_FAILURES
from bucketfront.errors import OriginUnavailable


async def test_a_reader_of_a_failing_part_gets_another(tmp_path: Path) -> None:
    """The reader that a part fetch was started for fails with it.

    A later reader gets another part fetch and its own time (I11).
    """
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(2 * PART))
        assert await rig.get(0, PART) == data[:PART]
        door = rig.origin.door = asyncio.Event()
        rig.origin.errors = deque([OriginUnavailable("503")] * MAX_FAILURES)
        first = asyncio.create_task(rig.get(PART, 2 * PART))
        await turns()
        rig.monotonic.now += 1.0
        second = asyncio.create_task(rig.get(PART, 2 * PART))
        await turns()
        door.set()
        got = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(each) for each in got] == [OriginUnavailable, bytes]
        assert got[1] == data[PART:]
        await rig.audit()
