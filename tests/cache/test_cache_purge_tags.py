"""Purges by tag: entries in memory and on disk, lookups that run meanwhile, and a kill at any time (I6, I27)."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, content
from rows import each_row

from bucketfront.cache.fetch.purged_tags import PurgedTags
from bucketfront.cache.reader import Reader
from bucketfront.cache.upkeep.purge import PurgeMode
from bucketfront.cache.upkeep.purge_selection import PurgeSelection
from bucketfront.errors import StoreError
from bucketfront.http.cache_tags import MAX_TAG_CHARS, MAX_TAGS, TagFields
from bucketfront.keys import ObjectKey

OLD, NEW = content(BLOCK), content(BLOCK, seed=1)
MODES = pytest.mark.parametrize("mode", [PurgeMode.REMOVE, PurgeMode.EXPIRE])


def key(number: int) -> ObjectKey:
    return ObjectKey("bucket", f"k/{number:03}")


def put(rig: Rig, number: int, tags: str, data: bytes = OLD, etag: str = '"1"') -> None:
    rig.origin.put(data, etag, key(number), x_amz_meta_cache_tag=tags)


async def stored(rig: Rig, *tags: str) -> None:
    """Store an object for each list of tags."""
    for number, each in enumerate(tags):
        put(rig, number, each)
        await rig.get(key=key(number))
    await turns()


async def purge(rig: Rig, *tags: str, mode: PurgeMode = PurgeMode.REMOVE) -> list[int]:
    """Return the numbers of the objects that were purged."""
    purged = await rig.cache.purge_selected(PurgeSelection.of(tags=tags), mode)
    assert purged.count == len(purged.sample)
    return sorted(int(each.key[2:]) for each in purged.sample)


@each_row(
    ("value", "tags"),
    [
        ("a", {"a"}),
        ("a, b,c", {"a", "b", "c"}),
        ("a b\tc  ", {"a", "b", "c"}),
        (" ,, a ,a", {"a"}),
        ("", set()),
        ("A,a", {"A", "a"}),
        ("x" * MAX_TAG_CHARS + "," + "y" * (MAX_TAG_CHARS + 1), {"x" * MAX_TAG_CHARS}),
        ("\udce4,b", {"b"}),
    ],
)
def test_tags_of_a_header(value: str, tags: set[str]) -> None:
    """A header has tags between commas or white space; those that are too long or no text do not count."""
    fields = TagFields(["X-Amz-Meta-Cache-Tag"])
    assert fields.tags((("x-amz-meta-cache-tag", value), ("Content-Type", "text/z"))) == tags


def test_tags_are_bounded() -> None:
    """The number of an object's tags is bounded, over all headers that name some (I19)."""
    fields = TagFields(["cache-tag", "surrogate-key"])
    many = " ".join(map(str, range(MAX_TAGS + 5)))
    assert fields.tags((("Cache-Tag", "first"), ("Surrogate-Key", many))) == {"first", *map(str, range(MAX_TAGS - 1))}
    assert fields.fingerprint == TagFields(["Surrogate-Key", "Cache-Tag"]).fingerprint != TagFields().fingerprint


def test_purged_tags_are_bounded() -> None:
    """A tag that had to be forgotten counts as purged for lookups that began before it, and for no later ones."""
    purged = PurgedTags(limit=2)
    for tag in "abc":
        purged.add([tag])
    assert purged.has_purged(["x"], 0)
    assert not purged.has_purged([], 0)
    assert [purged.has_purged([tag], 1) for tag in "abcx"] == [False, True, True, False]
    purged.forget(2)
    assert [purged.has_purged([tag], 2) for tag in "abc"] == [False, False, True]
    purged.forget(3)
    assert len(purged) == 0


@each_row("mode", PurgeMode)
@each_row("hot_limit", [0, 1, 500])
@each_row("is_flushed", [False, True])
async def test_objects_with_a_tag(tmp_path: Path, mode: PurgeMode, hot_limit: int, is_flushed: bool) -> None:
    """A purge by tag has each object with one of the tags once, in memory, on disk, or not flushed yet (I27)."""
    async with Rig(tmp_path, hot_limit=hot_limit) as rig:
        await stored(rig, "a", "b,a", "c", "", "b", "ab", "A")
        if is_flushed:
            await rig.flusher.flush()
            await rig.assembly.open_files.cool()
        assert await purge(rig, "b", "a", "none", mode=mode) == [0, 1, 4]
        await rig.flusher.flush()
        again = [] if mode is PurgeMode.REMOVE else [0, 1, 4]
        assert await purge(rig, "a", "b", mode=mode) == again
        for number in range(7):
            await rig.get(key=key(number))
        lookups = {PurgeMode.REMOVE: 10, PurgeMode.EXPIRE: 10, PurgeMode.COUNT: 7}[mode]
        assert rig.lookups.started == lookups


async def test_tags_together_with_other_parts(tmp_path: Path) -> None:
    """An object that a selection has by its key and by its tag counts once."""
    async with Rig(tmp_path, hot_limit=0) as rig:
        await stored(rig, "a", "a", "b")
        await rig.flusher.flush()
        await rig.assembly.open_files.cool()
        wanted = PurgeSelection.of([key(0), key(2)], tags=["a", "b", "a"], versions=True)
        assert (await rig.cache.purge_selected(wanted, PurgeMode.COUNT)).count == 3
        assert (await rig.cache.purge_selected(wanted, PurgeMode.EXPIRE)).count == 3
        assert (await rig.cache.purge_selected(wanted, PurgeMode.REMOVE)).count == 3


@MODES
@pytest.mark.parametrize("after", range(8))
@pytest.mark.parametrize("kind", ["first", "revalidation", "changed tags"])
async def test_a_lookup_that_brings_a_purged_tag(tmp_path: Path, mode: PurgeMode, after: int, kind: str) -> None:
    """A lookup that began before a purge of its object's tag keeps nothing fresh, and serves no later request (I6)."""
    async with Rig(tmp_path) as rig:
        if kind != "first":
            await stored(rig, "a")
            rig.wall.advance(100)
            if kind == "changed tags":
                put(rig, 0, "b", NEW, '"2"')
        else:
            put(rig, 0, "a")
        rig.origin.late = asyncio.Event()
        early = asyncio.create_task(rig.get(key=key(0)))
        await turns(after)
        put(rig, 0, "a", content(BLOCK, seed=9), '"3"')
        await purge(rig, "a", "b", mode=mode)
        rig.origin.late.set()
        rig.origin.late = None
        await early
        assert await rig.get(key=key(0)) == content(BLOCK, seed=9)


async def test_a_request_that_joins_after_the_purge(tmp_path: Path) -> None:
    """A request after a purge gets no response whose lookup began before it and has the tag; others do (I6)."""
    async with Rig(tmp_path) as rig:
        for number, tag in enumerate(("a", "b")):
            put(rig, number, tag)
        rig.origin.late = asyncio.Event()
        early = [asyncio.create_task(rig.get(key=key(number))) for number in (0, 1)]
        await turns()
        assert await purge(rig, "a") == []
        late = [asyncio.create_task(rig.get(key=key(number))) for number in (0, 1)]
        await turns()
        for number, tag in enumerate(("a", "b")):
            put(rig, number, tag, NEW, '"2"')
        rig.origin.late.set()
        rig.origin.late = None
        assert await asyncio.gather(*early) == [OLD, OLD]
        assert await asyncio.gather(*late) == [NEW, OLD]
        assert await rig.get(key=key(0)) == NEW
        assert rig.lookups.started == 3


@MODES
async def test_a_kill_right_after_the_purge(tmp_path: Path, mode: PurgeMode) -> None:
    """After `kill -9` right after a purge by tag, no request gets what was purged without a request to S3 (I27)."""
    async with Rig(tmp_path, hot_limit=1) as rig:
        await stored(rig, "a", "a", "b")
        await rig.flusher.flush()
        await rig.assembly.open_files.cool()
        assert await purge(rig, "a", mode=mode) == [0, 1]
        await turns()
        rig.abandon()
    for number in range(3):
        put(rig, number, "a", NEW, '"2"')
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert [await again.get(key=key(number)) for number in range(3)] == [NEW, NEW, OLD]
        await turns()
        await again.flusher.flush()
        assert await purge(again, "a") == [0, 1]


async def test_tags_follow_the_metadata(tmp_path: Path) -> None:
    """A revalidation that brings other tags changes those of the entry, also before the index knows it."""
    async with Rig(tmp_path) as rig:
        await stored(rig, "a")
        await rig.flusher.flush()
        put(rig, 0, "b")
        found = await rig.cache.lookup(key(0), wants_body=False, revalidate=True)
        assert isinstance(found, Reader)
        found.close()
        assert await purge(rig, "a", mode=PurgeMode.COUNT) == []
        assert await purge(rig, "b", mode=PurgeMode.COUNT) == [0]
        await rig.flusher.flush()
        with closing(sqlite3.connect(tmp_path / "index.db")) as database:
            assert database.execute("SELECT tag FROM tags").fetchall() == [("b",)]
        assert await purge(rig, "b") == [0]
        await rig.flusher.flush()
        with closing(sqlite3.connect(tmp_path / "index.db")) as database:
            assert database.execute("SELECT count(*) FROM tags").fetchone() == (0,)


@pytest.mark.parametrize("is_tagged_before", [False, True])
async def test_rows_without_their_tags(tmp_path: Path, is_tagged_before: bool) -> None:
    """Rows of an older release, and of other `tag_headers`, have their tags once the housekeeper or a purge comes."""
    async with Rig(tmp_path) as rig:
        await stored(rig, "a", "b", "a", "")
    with sqlite3.connect(tmp_path / "index.db") as database:
        database.execute("DELETE FROM tags")
        database.execute("UPDATE state SET value = 0 WHERE name = 'tag_fields'")
        database.execute("UPDATE entries SET metadata = x'00' WHERE key = ?", (key(3).key.encode(),))
    async with Rig(tmp_path, origin=rig.origin) as again:
        while is_tagged_before and await again.index.tag_rows(2):
            pass
        assert await purge(again, "a") == [0, 2]
        assert not await again.index.tag_rows(2)


async def test_an_index_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the index cannot be read, a purge by tag fails after it has had the entries in memory, and can be repeated."""
    async with Rig(tmp_path, hot_limit=1) as rig:
        await stored(rig, "a", "a")
        await rig.flusher.flush()
        await rig.assembly.open_files.cool()

        def fail(*_: object) -> None:
            raise StoreError("the cache index failed: disk I/O error")

        with monkeypatch.context() as broken:
            broken.setattr(rig.index, "_read", fail)
            with pytest.raises(StoreError):
                await purge(rig, "a")
        assert list(rig.entries.hot_entries()) == []
        assert await purge(rig, "a") == [0]
