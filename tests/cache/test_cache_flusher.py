"""Changes reach the index even if the caller of a flush leaves."""

import asyncio
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, content

from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Changes
from bucketfront.errors import StoreError


@pytest.mark.parametrize("fails", [False, True])
async def test_a_flush_outlives_its_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """A caller that is cancelled during a flush loses no change, whether the disk takes it then or later (I12)."""
    flush, is_well = Index.flush, not fails

    async def flushed(self: Index, changes: Changes) -> None:
        await turns(5)
        if not is_well:
            raise StoreError("the disk failed")
        await flush(self, changes)

    monkeypatch.setattr(Index, "flush", flushed)
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(2 * BLOCK))
        await rig.get()
        caller = asyncio.create_task(rig.flusher.flush())
        await turns(2)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await turns()
        assert len(rig.rows()) == (0 if fails else 1)
        is_well = True
        await rig.flusher.flush()
        assert len(rig.rows()) == 1
        await rig.audit()
