"""The bound of freshness while changes elsewhere may be missed, for entries, leases and remembered 404s (I7)."""

import asyncio
from pathlib import Path

from cache_harness import Rig, steady, turns
from fake_origin import BLOCK, KEY, content
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.cache.entries.freshness_bound import FreshnessBound

DAY = 86_400.0
GRACE = 10.0


async def bounded(rig: Rig) -> None:
    """Cache an object with a lifetime of a day, as of now."""
    rig.cache.bound.grace = GRACE
    rig.cache.bound.advance(rig.wall())
    rig.origin.put(content(BLOCK))
    await rig.get()
    await rig.audit()


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 200))
def test_nothing_is_fresh_beyond_the_bound(validated: float, lifetime: float, in_step: float, now: float) -> None:
    """What is fresh was validated, or known to be unchanged, within the grace, and within its lifetime (I7)."""
    bound = FreshnessBound(GRACE)
    bound.advance(in_step)
    is_fresh = bound.ttl(validated, validated + lifetime, now) > 0
    assert is_fresh == (now < validated + lifetime and now < max(validated, in_step) + GRACE)


async def test_an_entry_is_stale_once_changes_are_unknown_for_longer_than_the_grace(tmp_path: Path) -> None:
    """Without news of changes the ordinary path revalidates after the grace, and with them it does not (I7)."""
    async with Rig(tmp_path, policy=steady(ttl=DAY)) as rig:
        await bounded(rig)
        for _ in range(3):
            rig.wall.advance(GRACE - 1)
            rig.cache.bound.advance(rig.wall())
            await rig.get()
        assert rig.origin.conditional == 0
        rig.wall.advance(GRACE)
        assert rig.cache.lease(KEY) is None
        await rig.get()
        assert rig.origin.conditional == 1


async def test_a_lease_ends_by_itself(tmp_path: Path) -> None:
    """A lease needs no event to end: its holder sees that the bound has passed, and goes on once it moves (I7)."""
    async with Rig(tmp_path, policy=steady(ttl=DAY)) as rig:
        await bounded(rig)
        lease = rig.cache.lease(KEY)
        assert lease is not None
        assert lease.ttl(rig.wall()) > DAY - 1
        rig.wall.advance(GRACE)
        assert lease.ttl(rig.wall()) <= 0
        assert lease.certain_until <= rig.wall()
        rig.cache.bound.advance(rig.wall())
        assert lease.ttl(rig.wall()) > DAY - GRACE - 1


async def test_an_own_validation_counts_as_well(tmp_path: Path) -> None:
    """What was validated here is fresh for the grace, although changes elsewhere are unknown for long."""
    async with Rig(tmp_path, policy=steady(ttl=DAY)) as rig:
        await bounded(rig)
        rig.wall.advance(DAY / 2)
        await rig.get()
        assert rig.origin.conditional == 1
        rig.wall.advance(GRACE - 1)
        await rig.get()
        assert rig.origin.conditional == 1


async def test_a_remembered_404_ends_as_well(tmp_path: Path) -> None:
    """A 404 is remembered for the grace at most, while changes elsewhere are unknown (I7)."""
    async with Rig(tmp_path, negative_ttl=DAY) as rig:
        rig.cache.bound.grace = GRACE
        rig.cache.bound.advance(rig.wall())
        assert await rig.is_absent()
        absence = rig.cache.absence(KEY)
        assert absence is not None
        assert absence.holds(rig.wall())
        rig.wall.advance(GRACE)
        assert not absence.holds(rig.wall())
        assert rig.cache.absence(KEY) is None


async def test_all_can_be_made_stale_at_once(tmp_path: Path) -> None:
    """What was validated before is stale, also after a kill, and what is validated later is not (I6, I7)."""
    async with Rig(tmp_path, policy=steady(ttl=DAY)) as rig:
        await bounded(rig)
        lease = rig.cache.lease(KEY)
        assert lease is not None
        await rig.flusher.flush()
        rig.wall.advance(2)
        await rig.cache.expire_everything()
        assert not lease.is_valid
        assert rig.entry().ttl(rig.wall()) <= 0
        rig.abandon()
    async with Rig(tmp_path, policy=steady(ttl=DAY)) as rig:
        rig.origin.put(content(BLOCK))
        assert rig.entry().ttl(rig.wall()) <= 0
        await rig.get()
        assert rig.entry().ttl(rig.wall()) > 0


async def test_a_lookup_that_began_before_is_not_kept(tmp_path: Path) -> None:
    """A lookup that runs while all is made stale may have seen an old version, so its result is not kept (I6)."""
    async with Rig(tmp_path, policy=steady(ttl=DAY)) as rig:
        rig.origin.put(content(BLOCK))
        rig.origin.door = asyncio.Event()
        getting = asyncio.create_task(rig.get())
        await turns()
        assert rig.origin.gets == 1
        await rig.cache.expire_everything()
        rig.origin.door.set()
        await getting
        assert rig.cache.lease(KEY) is None
