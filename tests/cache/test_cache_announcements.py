"""What the cache announces to other caches, and what it does with their announcements."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cache_harness import Rig, steady
from fake_origin import BLOCK, KEY, content

from bucketfront.cache import Cause, Invalidation, KeyRange, PathGlob, PurgeMode, PurgeSelection
from bucketfront.errors import StoreError


@dataclass
class Heard:
    """An announcer that notes what it gets, and when it was waited for."""

    invalidations: list[Invalidation] = field(default_factory=list)
    waits: int = 0  # for as many announcements as there were then

    def announce(self, invalidation: Invalidation) -> None:
        self.invalidations.append(invalidation)

    async def published(self) -> None:
        self.waits = len(self.invalidations)


def listening(rig: Rig) -> Heard:
    heard = Heard()
    rig.cache.announce_to(heard)
    return heard


SELECTION = PurgeSelection.of(
    [KEY], [KeyRange("bucket", "a/"), KeyRange("bucket", "", PathGlob("*.ts", "/m/", 2))], tags=["t"], versions=True
)


async def test_purges_are_announced(tmp_path: Path) -> None:
    """Each purge is announced as it was requested, and its caller waits until others can learn of it."""
    async with Rig(tmp_path) as rig:
        heard = listening(rig)
        await rig.cache.purge_selected(SELECTION, PurgeMode.REMOVE)
        await rig.cache.purge_selected(SELECTION, PurgeMode.EXPIRE)
        assert heard.invalidations == [
            Invalidation(SELECTION, Cause.PURGED), Invalidation(SELECTION, Cause.PURGED, is_soft=True)
        ]  # fmt: skip
        assert heard.waits == 2
        rig.cache.purge_later(PurgeSelection.of(everything=True), PurgeMode.REMOVE)
        await rig.assembly.purges.running.wait()
        assert heard.invalidations[2].selection.everything


async def test_a_dry_run_is_not_announced(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        heard = listening(rig)
        await rig.cache.purge_selected(SELECTION, PurgeMode.COUNT)
        assert heard.invalidations == []


async def test_a_purge_that_the_disk_refuses_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a purge removes is invalid elsewhere as well, whatever the disk of this cache does."""

    async def refuse() -> None:
        raise StoreError("no")

    async with Rig(tmp_path) as rig:
        heard = listening(rig)
        monkeypatch.setattr(rig.assembly.purges, "finish_discarding", refuse)
        with pytest.raises(StoreError):
            await rig.cache.purge_selected(SELECTION, PurgeMode.REMOVE)
        assert [each.selection for each in heard.invalidations] == [SELECTION]
        assert heard.waits == 1


async def test_a_write_is_announced_once_s3_has_it(tmp_path: Path) -> None:
    """The invalidation before a write is of no use to other caches, and that after it is announced (I5)."""
    async with Rig(tmp_path) as rig:
        heard = listening(rig)
        await rig.cache.invalidate(KEY, announces=False)
        assert heard.invalidations == []
        await rig.cache.invalidate(KEY)
        assert [each.cause for each in heard.invalidations] == [Cause.WRITTEN]
        assert KEY in heard.invalidations[0].selection.keys


async def test_another_version_is_announced_with_its_etag(tmp_path: Path) -> None:
    """A revalidation that finds another version announces it, and one that finds the same version does not."""
    async with Rig(tmp_path, policy=steady(ttl=60)) as rig:
        heard = listening(rig)
        rig.origin.put(content(BLOCK), '"1"')
        await rig.get()
        rig.wall.advance(60)
        await rig.get()
        assert heard.invalidations == []
        rig.origin.put(content(BLOCK + 1), '"2"')
        rig.wall.advance(60)
        await rig.get()
        changed = Invalidation(PurgeSelection.of([KEY]), Cause.CHANGED, is_soft=True, etag='"2"')
        assert heard.invalidations == [changed]


async def test_an_object_that_is_gone_is_announced(tmp_path: Path) -> None:
    """A revalidation that finds no object announces that without an ETag."""
    async with Rig(tmp_path, policy=steady(ttl=60)) as rig:
        heard = listening(rig)
        rig.origin.put(content(BLOCK))
        await rig.get()
        await rig.origin.delete(KEY)
        rig.wall.advance(60)
        assert await rig.is_absent()
        assert heard.invalidations == [Invalidation(PurgeSelection.of([KEY]), Cause.CHANGED, is_soft=True)]


@pytest.mark.parametrize("is_soft", [False, True])
async def test_what_is_applied_is_not_announced_again(tmp_path: Path, is_soft: bool) -> None:
    """An announcement of another cache has its effect here, and no loop can begin."""
    async with Rig(tmp_path) as rig:
        heard = listening(rig)
        rig.origin.put(content(BLOCK))
        await rig.get()
        await rig.cache.apply(Invalidation(PurgeSelection.of([KEY]), Cause.WRITTEN, is_soft=is_soft))
        assert rig.cache.lease(KEY) is None
        await rig.get()
        assert (rig.origin.gets, rig.origin.conditional) == ((2, 1) if is_soft else (2, 0))
        assert heard.invalidations == []


async def test_a_version_that_is_known_stays(tmp_path: Path) -> None:
    """A cache that has the announced version goes on with it, and one that has another asks S3 (I7)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK), '"2"')
        await rig.get()
        await rig.audit()
        selection = PurgeSelection.of([KEY])
        await rig.cache.apply(Invalidation(selection, Cause.CHANGED, is_soft=True, etag='"2"'))
        assert rig.cache.lease(KEY) is not None
        await rig.cache.apply(Invalidation(selection, Cause.CHANGED, is_soft=True, etag='"3"'))
        assert rig.cache.lease(KEY) is None
