"""The number of files that the cache keeps open (I21)."""

import asyncio
from pathlib import Path

from cache_harness import Rig, turns
from fake_origin import BLOCK, content

from bucketfront.keys import ObjectKey

LIMIT = 8
COUNT = 60


async def test_a_rush_of_new_objects(tmp_path: Path) -> None:
    """Objects that come faster than the housekeeper's rounds open few more files than the limit. They may be new or
    come from the disk.
    """
    keys = [ObjectKey("bucket", f"k{number}") for number in range(COUNT)]
    async with Rig(tmp_path, hot_limit=LIMIT) as rig:
        bodies = {key: rig.origin.put(content(BLOCK, seed=number), key=key) for number, key in enumerate(keys)}
        for _ in range(2):
            for at in range(0, COUNT, 4):
                some = keys[at : at + 4]
                got = await asyncio.gather(*(rig.get(key=key) for key in some))
                assert got == [bodies[key] for key in some]
                assert len(rig.open_files()) <= LIMIT * 5 // 4 + 2 * len(some)
            await turns()
        await rig.audit()
        assert rig.origin.gets == COUNT
