"""Everything at once: readers, writes, purges, evictions, failures and upkeep, interleaved by a seed.

No thread and no sleep takes part, so a seed that fails fails again.
"""

import asyncio
import errno
import shutil
from pathlib import Path
from typing import Literal

import pytest
from cache_harness import NEVER, PART, Rig, steady, turns
from fake_origin import BLOCK, content

from bucketfront.cache.lookup_flow import Absent
from bucketfront.errors import AccessDenied, OriginError, OriginTimeout, OriginUnavailable
from bucketfront.http.ranges import Demand, FromTo, Suffix
from bucketfront.keys import ObjectKey

pytestmark = pytest.mark.long

KEYS = [ObjectKey("bucket", name) for name in ("a/1", "a/2", "b/1", "ü")]
POLICIES: tuple[Literal["finish", "stop", "auto"], ...] = ("finish", "stop", "auto")


class World:
    """What the origin ever held, and the oldest version that a request which begins now may get."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.chance = rig.chance
        self.versions: dict[str, tuple[int, bytes]] = {}
        self.floor = dict.fromkeys(KEYS, 0)
        self.reads = 0
        self.failures = 0
        for key in KEYS:
            self.put(key)

    def put(self, key: ObjectKey) -> int:
        number = len(self.versions) + 1
        size = self.chance.choice([1, BLOCK, PART - 1, 2 * PART + 5, 3 * PART])
        data = content(size, seed=number)
        etag = f'"{number}"'
        self.versions[etag] = number, data
        headers = {"Cache-Control": "no-store"} if self.chance.random() < 0.1 else {}
        self.rig.origin.store(key, data, headers, etag=etag)
        return number

    async def read(self) -> None:
        """Send a GET. All its bytes are of one version, which is no older than the last write that had its response."""
        key = self.chance.choice(KEYS)
        floor = self.floor[key]
        start = self.chance.randrange(2 * PART)
        part = self.chance.choice([None, FromTo(start), FromTo(start, start + BLOCK), Suffix(BLOCK)])
        try:
            found = await self.rig.cache.lookup(key, wants_body=True, part=part)
            if isinstance(found, Absent):
                return
            with found as reader:
                number, data = self.versions[reader.metadata.etag]
                assert number >= floor, "read your writes (I5)"
                assert reader.metadata.size == len(data)
                span = FromTo(0).within(len(data)) if part is None else part.within(len(data))
                if span is None:
                    return
                got = await self.rig.read(reader, span.start, span.stop, demand=Demand.WHOLE if part is None else None)
                assert got == data[span.start : span.stop], f"version purity (I1): {key} {reader.metadata.etag}"
                self.reads += 1
        except OriginError:
            self.failures += 1

    async def head(self) -> None:
        key = self.chance.choice(KEYS)
        floor = self.floor[key]
        try:
            found = await self.rig.cache.lookup(key, wants_body=False)
        except OriginError:
            return
        if not isinstance(found, Absent):
            with found as reader:
                number, data = self.versions[reader.metadata.etag]
                assert number >= floor
                assert reader.metadata.size == len(data)

    async def cancelled_read(self) -> None:
        task = asyncio.create_task(self.read())
        await turns(self.chance.randrange(40))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result()

    async def write(self) -> None:
        """Write as an upload does, with an invalidation before and after."""
        key = self.chance.choice(KEYS)
        await self.rig.cache.invalidate(key)
        number = self.put(key)
        await turns(self.chance.randrange(5))
        await self.rig.cache.invalidate(key)
        self.floor[key] = max(self.floor[key], number)

    async def change_elsewhere(self) -> None:
        self.put(self.chance.choice(KEYS))

    async def purge(self) -> None:
        prefix = ObjectKey("bucket", self.chance.choice(["", "a/", "ü"]))
        await self.rig.cache.purge(prefixes=[prefix], soft=self.chance.random() < 0.5)

    async def upkeep(self) -> None:
        await self.rig.housekeeper.step()

    async def time_passes(self) -> None:
        self.rig.wall.now += self.chance.choice([1.0, 20.0, 100.0])
        self.rig.monotonic.now += self.chance.choice([0.01, 0.2, 10.0])

    async def trouble(self) -> None:
        origin, store = self.rig.origin, self.rig.store
        match self.chance.randrange(4):
            case 0:
                error = self.chance.choice([OriginUnavailable("503"), OriginTimeout("slow"), AccessDenied("403")])
                origin.errors.extend([error] * self.chance.randrange(5))
            case 1:
                origin.cuts.append(self.chance.randrange(3 * PART))
            case 2:
                store.errors.append(OSError(self.chance.choice([errno.ENOSPC, errno.EIO]), "trouble"))
            case _:
                origin.chunk = self.chance.choice([BLOCK // 3, BLOCK, BLOCK + 1, PART])

    async def act(self, count: int, *, with_trouble: bool) -> None:
        for _ in range(count):
            action = self.chance.choice(
                [self.read] * 8 + [self.head, self.cancelled_read, self.write, self.change_elsewhere, self.purge,
                 self.upkeep, self.time_passes] + [self.trouble] * with_trouble
            )  # fmt: skip
            await action()
            budget = self.rig.budget
            assert 0 <= budget.used <= budget.limit, "the budget is a hard bound (I17)"
            await turns(self.chance.randrange(4))


@pytest.mark.parametrize("with_trouble", [False, True])
@pytest.mark.parametrize("has_hedges", [False, True])
@pytest.mark.parametrize("is_versioned", [False, True])
@pytest.mark.parametrize("seed", range(10))
async def test_nothing_goes_wrong_together(
    tmp_path: Path, seed: int, is_versioned: bool, has_hedges: bool, with_trouble: bool
) -> None:
    """Eight clients read while objects are written, purged and evicted, and calls fail.

    Every byte is of its reader's version, no write is lost, the budget holds at every step, and no task, pin or file is
    left at rest (I1, I5, I6, I12, I17). With hedges, a second request is sent for every late byte. With versions, no
    write ends a read.
    """
    async with Rig(
        tmp_path,
        seed=seed,
        max_size=24 * BLOCK if seed % 3 else 1 << 30,
        hot_limit=seed % 4,
        after_disconnect=POLICIES[seed % len(POLICIES)],
        policy=steady(60.0, revalidate=30.0, error=60.0),
        idle_timeout=150.0,
        hedge_after=0.0 if has_hedges else NEVER,
    ) as rig:
        rig.origin.jitter = 12 if has_hedges else 3
        rig.origin.is_versioned = is_versioned
        world = World(rig)
        await asyncio.gather(*(world.act(40, with_trouble=with_trouble) for _ in range(8)))
        assert world.reads > 50
        if not with_trouble:
            assert rig.entries.corrupt_blocks == 0
            assert rig.store.failures == 0
            assert world.failures == 0 or not is_versioned
            assert rig.stats.hedges_won or not has_hedges
        rig.origin.errors.clear()
        rig.store.errors.clear()
        rig.origin.cuts.clear()
        rig.monotonic.now += 60.0
        await rig.audit(begun=PART)
        await rig.housekeeper.step()
        await rig.audit(begun=PART)
        await rig.cache.purge(prefixes=[ObjectKey("bucket", "")])
        await rig.audit()
        assert (rig.budget.used, len(rig.entries), rig.stored_files()) == (0, 0, {})


@pytest.mark.parametrize("seed", range(10))
async def test_a_kill_at_any_time_loses_no_truth(tmp_path: Path, seed: int) -> None:
    """A copy of the folder, taken at any time as a kill leaves it, opens by itself and gives only right bytes (I1, I2,
    I14, I15).
    """
    root, copy = tmp_path / "root", tmp_path / "copy"
    async with Rig(root, seed=seed, max_size=1 << 30, hot_limit=2, idle_timeout=1e6) as rig:
        world = World(rig)
        clients = [asyncio.create_task(world.act(20, with_trouble=False)) for _ in range(4)]
        for _ in range(rig.chance.randrange(5, 40)):
            await turns(20)
            await rig.flusher.flush()
        shutil.copytree(root, copy)
        await asyncio.gather(*clients)
        await turns()
    async with Rig(copy, seed=seed, origin=rig.origin) as again:
        later = World.__new__(World)
        later.rig, later.chance, later.versions = again, again.chance, world.versions
        later.floor, later.reads, later.failures = dict.fromkeys(KEYS, 0), 0, 0
        await asyncio.gather(*(later.act(20, with_trouble=False) for _ in range(4)))
        await turns()
        again.store.folder.opened_at = float("inf")
        await again.housekeeper.sweep()
        await again.audit(begun=3 * PART)
