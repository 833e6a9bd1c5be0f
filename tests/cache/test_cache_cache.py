"""`Cache` as the server sees it: lookups, freshness, purges, restarts, eviction; and what is left at rest."""

import asyncio
import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_harness import PART, Rig, Turns, others, runs, steady, turns
from fake_origin import BLOCK, KEY, content
from rows import each_row

from bucketfront.cache.entries.entry import ENTRY_BYTES
from bucketfront.cache.lookup_flow import Absent
from bucketfront.cache.storage.folder import Folder
from bucketfront.errors import AccessDenied, OriginTimeout, OriginUnavailable, StoreError
from bucketfront.http.cache_status import Forward
from bucketfront.http.ranges import FromTo, Span, Suffix
from bucketfront.keys import ObjectKey

SIZE = 5 * BLOCK + 77
OTHER = KEY._replace(key="a/c.mp4")

# --- one lookup for all ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wants_body", [True, False])
async def test_a_cold_key_is_looked_up_once(tmp_path: Path, wants_body: bool) -> None:
    """Fifty requests at once for an unknown object send one to the origin, and each holds a pin of its own (I10)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        readers = await asyncio.gather(*(rig.reader(wants_body=wants_body) for _ in range(50)))
        assert rig.origin.gets + rig.origin.heads == 1
        entry = rig.entry()
        await turns()
        assert entry.pins == 50
        assert {reader.metadata.etag for reader in readers} == {'"1"'}
        for reader in readers:
            reader.close()
            reader.close()
        await rig.audit()
        assert await rig.get() == data
        assert rig.cache.statistics().lookups_joined == 49
        await rig.audit()


async def test_a_request_that_comes_while_the_file_is_made_shares_it(tmp_path: Path) -> None:
    """A request that finds an entry before its file exists waits for that file, and none makes a second (I10, I12)."""
    for after, seed in itertools.product(range(12), range(4)):
        async with Rig(tmp_path / f"{after}-{seed}", seed=seed) as rig:
            rig.origin.jitter = 0
            data = rig.origin.put(content(SIZE))
            first = asyncio.create_task(rig.get())
            await turns(after)
            assert list(await asyncio.gather(rig.get(), rig.get(BLOCK))) == [data, data[BLOCK:]]
            assert await first == data
            await rig.audit()
            assert runs(rig.origin.reads) == [(0, SIZE)]
            assert len(rig.stored_files()) == 1


async def test_a_get_that_joins_a_head(tmp_path: Path) -> None:
    """A GET may join a HEAD's lookup: it gets its file afterwards, once."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        head = asyncio.create_task(rig.reader(wants_body=False))
        gets = [asyncio.create_task(rig.get()) for _ in range(5)]
        assert await asyncio.gather(*gets) == [data] * 5
        (await head).close()
        await rig.audit()
        assert rig.origin.heads == 1
        assert runs(rig.origin.reads) == [(0, SIZE)]


@each_row("after", range(40), few=14)
async def test_a_cancelled_waiter_gives_its_pin_back(tmp_path: Path, after: int) -> None:
    """A waiter that is cancelled at any turn leaves no pin, also between the result and its own turn.

    Others continue (I12).
    """
    async with Rig(tmp_path, seed=after) as rig:
        rig.origin.put(content(BLOCK))
        doomed = asyncio.create_task(rig.reader())
        other = asyncio.create_task(rig.reader())
        await turns(after)
        doomed.cancel()
        (await other).close()
        done = await asyncio.gather(doomed, return_exceptions=True)
        if not isinstance(done[0], BaseException):
            done[0].close()
        await rig.audit()


async def test_a_waiter_cancelled_in_the_turn_of_its_result(tmp_path: Path) -> None:
    """A waiter that is cancelled after its result was set gives its pin back (I12)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        rig.origin.door = asyncio.Event()
        doomed = asyncio.create_task(rig.reader())
        await turns()
        (lookup,) = rig.lookups._shared.values()
        (waiter,) = lookup.waiters
        rig.origin.door.set()
        while not waiter.done():  # noqa: ASYNC110 - turn by turn: the turn of its end is what is tested
            await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)
        assert doomed.cancelled()
        await rig.audit()


@each_row(
    ("part", "asked"),
    [
        (None, (0, PART)),
        (FromTo(0, None), (0, BLOCK)),
        (FromTo(0, PART + 1), (0, PART + BLOCK)),
        (FromTo(1, PART + 2 * BLOCK), (0, SIZE)),
        (FromTo(1, PART + 2 * BLOCK + 1), (0, PART)),
        (FromTo(5, 6), (0, BLOCK)),
        (FromTo(BLOCK + 5, 3 * BLOCK - 1), (BLOCK, 3 * BLOCK)),
        (FromTo(3 * BLOCK + 1, None), (3 * BLOCK, 4 * BLOCK)),
        (Suffix(10), (SIZE - 10 - BLOCK, SIZE)),
        (Suffix(10 * SIZE), (SIZE - PART - BLOCK, SIZE)),
    ],
)
async def test_the_lookup_brings_the_first_part(
    tmp_path: Path, part: FromTo | Suffix | None, asked: tuple[int, int]
) -> None:
    """A first GET needs no HEAD, because whole blocks around its range come with the metadata.

    A range that may be dropped at any time gets only a few blocks (I4, I10).
    """
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        span = Span(0, SIZE) if part is None else part.within(SIZE)
        assert span is not None
        with await rig.reader(part=part) as reader:
            assert await rig.read(reader, span.start, span.stop) == data[span.start : span.stop]
        assert rig.origin.requested[0] == (max(0, asked[0]), asked[1])
        assert rig.origin.heads == 0
        await rig.audit()
        assert runs(rig.store.writes)
        assert await rig.get() == data
        await rig.audit()


async def test_a_range_beyond_the_end_gets_the_size(tmp_path: Path) -> None:
    """A first range beyond the object's end, or of an empty object, gets a response with its metadata."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(10))
        rig.origin.put(b"", key=OTHER)
        with await rig.reader(part=FromTo(BLOCK * 99)) as reader:
            assert reader.metadata.size == 10
        with await rig.reader(OTHER) as reader:
            assert reader.metadata.size == 0
            assert await rig.read(reader) == b""
        with await rig.reader(part=FromTo(1 << 60)) as reader:
            assert reader.metadata.size == 10
        await rig.audit()


# --- I6: an invalidation during a lookup -------------------------------------------------------------------


@each_row("before", range(30), few=10)
@each_row("kind", ["purge", "prefix"])
async def test_an_invalidated_lookup_is_not_kept(tmp_path: Path, before: int, kind: str) -> None:
    """After a purge at any turn of a lookup, its waiters get one whole version, later requests get the new one, and the
    old one is not kept (I1, I5, I6).
    """
    async with Rig(tmp_path, seed=before) as rig:
        old = rig.origin.put(content(PART))
        early = asyncio.create_task(rig.get())
        await turns(before)
        new = rig.origin.put(content(PART, seed=1), '"2"')
        if kind == "purge":
            await rig.cache.purge([KEY])
        else:
            await rig.cache.purge(prefixes=[KEY._replace(key="a/")])
        assert await rig.get() == new
        (result,) = await asyncio.gather(early, return_exceptions=True)
        if not isinstance(result, BaseException):
            assert result in (old, new)
        # If the early lookup ended during the later one, either of them may have the newer result.
        assert await rig.get() == new
        await rig.audit()
        assert rig.entry().metadata.etag == '"2"'
        assert len(rig.stored_files()) == 1


@each_row("answer", ["body", "304", "404"])
async def test_the_result_of_an_invalidated_lookup_is_not_published(tmp_path: Path, answer: str) -> None:
    """The waiters of an invalidated lookup get its result, and no other request does (I6)."""
    async with Rig(tmp_path) as rig:
        if answer == "304":
            rig.origin.put(content(BLOCK))
            await rig.get()
            rig.wall.now += 61.0
        elif answer == "body":
            rig.origin.put(content(BLOCK))
        asked = rig.origin.gets
        door = rig.origin.door = asyncio.Event()
        waiting = asyncio.create_task(rig.cache.lookup(KEY, wants_body=True))
        await turns()
        assert rig.origin.gets == asked + 1
        await rig.cache.invalidate(KEY)
        rig.origin.door = None
        door.set()
        found = await waiting
        if not isinstance(found, Absent):
            found.close()
        await turns()
        new = rig.origin.put(content(BLOCK, seed=2), '"2"')
        if answer == "304":
            # The version that a 304 confirms was removed: its waiter started another lookup, and that is published.
            await rig.cache.invalidate(KEY)
        assert await rig.get() == new
        await rig.audit()


@pytest.mark.parametrize("is_gone", [False, True])
async def test_the_result_of_an_invalidated_lookup_may_be_newer(tmp_path: Path, is_gone: bool) -> None:
    """An invalidated lookup may have the newest result. Clients that got it get no older version afterwards (I7)."""
    async with Rig(tmp_path) as rig:
        old = rig.origin.put(content(BLOCK))
        door = rig.origin.door = asyncio.Event()
        waiting = asyncio.create_task(rig.cache.lookup(KEY, wants_body=True))
        await turns()
        await rig.cache.invalidate(KEY)
        rig.origin.door = None
        assert await rig.get() == old
        new = rig.origin.put(content(BLOCK, seed=2), '"2"')
        if is_gone:
            del rig.origin.objects[KEY]
        door.set()
        found = await waiting
        if is_gone:
            assert isinstance(found, Absent)
            assert isinstance(await rig.cache.lookup(KEY, wants_body=True), Absent)
        else:
            assert not isinstance(found, Absent)
            assert found.metadata.etag == '"2"'
            found.close()
            assert await rig.get() == new
        await rig.audit()


async def test_a_soft_purge_during_a_revalidation_counts(tmp_path: Path) -> None:
    """A 304 to a request that was sent before a soft purge does not make the entry fresh again (I6, I27)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(BLOCK))
        await rig.get()
        rig.wall.now += 61.0
        door = rig.origin.door = asyncio.Event()
        waiting = asyncio.create_task(rig.get())
        await turns()
        assert await rig.cache.purge([KEY], soft=True) == 1
        rig.origin.door = None
        door.set()
        assert await waiting == data
        asked = rig.origin.conditional
        assert await rig.get() == data
        assert rig.origin.conditional == asked + 1
        await rig.audit()


# --- freshness ---------------------------------------------------------------------------------------------


async def test_a_304_keeps_the_bytes(tmp_path: Path) -> None:
    """A revalidation confirms a stale entry without a byte, and the entry is fresh for its whole lifetime then (I7)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        assert await rig.get() == data
        read = len(rig.origin.reads)
        rig.wall.now += 60.0
        with await rig.reader() as reader:
            assert (reader.status.fwd, reader.status.fwd_status) == (Forward.STALE, 304)
            assert await rig.read(reader) == data
        rig.wall.now += 59.0
        with await rig.reader() as reader:
            assert reader.status.hit
            assert reader.age == 59.0
        assert len(rig.origin.reads) == read
        assert rig.origin.conditional == 1
        await rig.audit()


async def test_a_new_version_replaces_the_stale_one(tmp_path: Path) -> None:
    """A revalidation that finds another version serves that one, and the old file is removed (I1, I7)."""
    async with Rig(tmp_path) as rig:
        old = rig.origin.put(content(SIZE))
        with await rig.reader() as reader:
            assert await rig.read(reader) == old
            new = rig.origin.put(content(SIZE, seed=1), '"2"')
            rig.wall.now += 60.0
            assert await rig.get() == new
            assert await rig.read(reader) == old
        await rig.audit()
        assert len(rig.stored_files()) == 1


async def test_a_404_is_remembered_for_a_while(tmp_path: Path) -> None:
    """Only S3's 404 is absence, and for `negative_ttl` only (I13)."""
    async with Rig(tmp_path, negative_ttl=10.0) as rig:
        assert await rig.is_absent()
        assert await rig.is_absent()
        assert rig.origin.gets == 1
        data = rig.origin.put(content(BLOCK))
        rig.wall.now += 9.9
        assert await rig.is_absent()
        rig.wall.now += 0.1
        assert await rig.get() == data
        await rig.audit()


async def test_a_deleted_object_is_removed(tmp_path: Path) -> None:
    """A 404 to a revalidation removes the entry and its file (I13)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(SIZE))
        await rig.get()
        rig.origin.objects.clear()
        assert not await rig.is_absent()
        rig.wall.now += 60.0
        assert await rig.is_absent()
        await rig.audit()
        assert rig.stored_files() == {}
        assert len(rig.entries) == 0


async def test_a_purge_forgets_a_404(tmp_path: Path) -> None:
    """A write or a purge ends a remembered absence (I5)."""
    async with Rig(tmp_path) as rig:
        assert await rig.is_absent()
        data = rig.origin.put(content(BLOCK))
        await rig.cache.invalidate(KEY)
        assert await rig.get() == data
        await rig.audit()


@each_row("error", [AccessDenied("403"), OriginUnavailable("503"), OriginTimeout("slow")])
async def test_other_errors_are_not_remembered(tmp_path: Path, error: Exception) -> None:
    """All present waiters get a 403, 5xx or timeout, and no later request does (I13)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(BLOCK))
        rig.origin.errors = deque([error])
        got = await asyncio.gather(*(rig.get() for _ in range(5)), return_exceptions=True)
        assert got == [error] * 5
        assert await rig.get() == data
        await rig.audit()


@pytest.mark.parametrize("control", ["no-store", "private"])
async def test_what_may_not_be_stored_is_gone_at_rest(tmp_path: Path, control: str) -> None:
    """Requests that wait together share a no-store object, which leaves no file and no entry (RFC 9111 section 5.2)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE), Cache_Control=control)
        assert list(await asyncio.gather(rig.get(), rig.get(BLOCK))) == [data, data[BLOCK:]]
        await rig.audit()
        assert rig.stored_files() == {}
        assert (len(rig.entries), rig.budget.used) == (0, 0)
        before = rig.origin.gets
        assert await rig.get() == data
        assert rig.origin.gets > before
        await rig.audit()


async def test_an_object_that_becomes_no_store_replaces_its_old_version(tmp_path: Path) -> None:
    """The old version is never served after a newer one was seen, even if the new one must not be stored (I7)."""
    async with Rig(tmp_path, policy=steady(60.0, revalidate=600.0, error=6000.0)) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        new = rig.origin.put(content(BLOCK, seed=1), '"2"', Cache_Control="no-store")
        rig.wall.now += 700.0
        assert await rig.get() == new
        rig.wall.now -= 600.0
        assert await rig.get() == new
        await rig.audit()


async def test_stale_while_revalidate_sends_one_request_in_the_background(tmp_path: Path) -> None:
    """Within the window the stale entry serves every request at once, and one of them starts a lookup (RFC 5861)."""
    async with Rig(tmp_path, policy=steady(60.0, revalidate=30.0)) as rig:
        old = rig.origin.put(content(BLOCK))
        await rig.get()
        rig.wall.now += 70.0
        new = rig.origin.put(content(BLOCK, seed=1), '"2"')
        door = rig.origin.door = asyncio.Event()
        asked = rig.origin.heads
        assert await asyncio.gather(*(rig.get() for _ in range(10))) == [old] * 10
        assert rig.origin.heads == asked + 1
        rig.origin.door = None
        door.set()
        await turns()
        assert await rig.get() == new
        await rig.audit()


async def test_beyond_the_window_a_request_waits(tmp_path: Path) -> None:
    """After stale-while-revalidate the old version is not served without a validation (I7)."""
    async with Rig(tmp_path, policy=steady(60.0, revalidate=30.0)) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        rig.wall.now += 90.0
        new = rig.origin.put(content(BLOCK, seed=1), '"2"')
        assert await rig.get() == new
        await rig.audit()


async def test_stale_if_error_covers_an_outage(tmp_path: Path) -> None:
    """While the origin fails, a stale entry is served within its window and marked as stale.

    A 403 is no outage (RFC 5861).
    """
    async with Rig(tmp_path, policy=steady(60.0, error=100.0)) as rig:
        data = rig.origin.put(content(BLOCK))
        await rig.get()
        rig.wall.now += 159.0
        rig.origin.errors = deque([OriginUnavailable("503")])
        with await rig.reader() as reader:
            assert reader.status.fwd is Forward.STALE
            assert reader.status.detail == "stale-if-error"
            assert await rig.read(reader) == data
        rig.origin.errors = deque([AccessDenied("403")])
        with pytest.raises(AccessDenied):
            await rig.get()
        rig.wall.now += 1.0
        rig.origin.errors = deque([OriginUnavailable("503")])
        with pytest.raises(OriginUnavailable):
            await rig.get()
        await rig.audit()


async def test_a_failed_background_revalidation_is_quiet(tmp_path: Path) -> None:
    """A failed background lookup reaches no client, and the next request sends another one (I13)."""
    async with Rig(tmp_path, policy=steady(60.0, revalidate=30.0)) as rig:
        data = rig.origin.put(content(BLOCK))
        await rig.get()
        rig.wall.now += 70.0
        rig.origin.errors = deque([OriginUnavailable("503")])
        assert await rig.get() == data
        await turns()
        assert await rig.get() == data
        assert rig.origin.heads == 2
        await rig.audit()


async def test_age_counts_from_the_request(tmp_path: Path) -> None:
    """Age counts from when the request was sent, so that a slow response is no fresher (I7)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        door = rig.origin.door = asyncio.Event()
        waiting = asyncio.create_task(rig.reader())
        await turns()
        rig.wall.now += 30.0
        door.set()
        with await waiting as reader:
            assert reader.age == 30.0
        await rig.audit()


# --- the disk ----------------------------------------------------------------------------------------------


def vanish(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 7)


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("spoil", [vanish, truncate])
async def test_a_spoilt_file_is_fetched_again(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """An entry whose file is gone or short is removed, and the same request gets the right bytes (I15)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        await rig.get()
        await rig.close()
    (path,) = rig.stored_files().values()
    spoil(path)
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert await again.get() == data
        await again.audit()
        assert len(again.entries) == 1


async def test_a_sick_disk_passes_bytes_through(tmp_path: Path) -> None:
    """While the disk is not used, hits and misses continue uncached. Later the cache is used again (I16)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        rig.store.note_failure("test")
        assert list(await asyncio.gather(rig.get(), rig.get(BLOCK, 2 * BLOCK))) == [data, data[BLOCK : 2 * BLOCK]]
        await rig.audit()
        assert rig.stored_files() == {}
        rig.monotonic.now += 60.0
        assert await rig.get() == data
        assert await rig.get() == data
        await rig.audit()
        assert len(rig.stored_files()) == 1


async def test_a_broken_index_is_a_miss(tmp_path: Path) -> None:
    """An index that cannot be read or written costs the cache, and never a response (I16)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        reader = rig.index._reader
        assert reader is not None
        reader.execute("PRAGMA query_only = OFF")
        reader.execute("ALTER TABLE entries RENAME TO elsewhere")
        assert await rig.get() == data
        await rig.flusher.flush()
        assert await rig.get() == data
        reader.execute("ALTER TABLE elsewhere RENAME TO entries")
        rig.monotonic.now += 60.0
        assert await rig.get() == data
        await rig.audit()


async def test_an_object_larger_than_the_cache_streams(tmp_path: Path) -> None:
    """An object that can never fit passes through whole, and evicts no entry (I17)."""
    async with Rig(tmp_path, max_size=4 * BLOCK) as rig:
        small = rig.origin.put(content(BLOCK), key=OTHER)
        assert await rig.get(key=OTHER) == small
        data = rig.origin.put(content(SIZE))
        assert await rig.get() == data
        with await rig.reader() as reader:
            assert reader.region is None
        await rig.audit()
        assert rig.entries.get(OTHER) is not None
        assert rig.entries.evicted == 0


async def test_a_passed_through_body_goes_on_after_a_cut(tmp_path: Path) -> None:
    """A stream past the cache continues where the origin broke off, and ends if the version is gone (I1, I3)."""
    async with Rig(tmp_path, max_size=BLOCK) as rig:
        data = rig.origin.put(content(SIZE))
        rig.origin.cuts = [5, BLOCK + 1]
        assert await rig.get() == data
        await rig.audit()


# --- purging -----------------------------------------------------------------------------------------------


async def test_a_purge_is_complete_when_it_returns(tmp_path: Path) -> None:
    """A purge unlinks files by key and prefix, in memory or not, and returns their number.

    A second one returns 0 (I27).
    """
    async with Rig(tmp_path, hot_limit=0) as rig:
        names = ["a", "a/1", "a/2", "b/1", "ü"]
        for name in names:
            rig.origin.put(content(BLOCK), key=ObjectKey("bucket", name))
            await rig.get(key=ObjectKey("bucket", name))
        await rig.housekeeper.step()
        await rig.get(key=ObjectKey("bucket", "a/1"))
        assert await rig.cache.purge([ObjectKey("bucket", "b/1"), ObjectKey("bucket", "none")]) == 1
        assert len(rig.stored_files()) == 4
        assert await rig.cache.purge(prefixes=[ObjectKey("bucket", "a/")]) == 2
        assert len(rig.stored_files()) == 2
        assert await rig.cache.purge(prefixes=[ObjectKey("bucket", "a/")]) == 0
        assert await rig.cache.purge([ObjectKey("bucket", "a")], [ObjectKey("bucket", "")]) == 2
        assert rig.stored_files() == {}
        await rig.audit()
        assert rig.budget.used == 0


async def test_a_purge_by_key_waits_for_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge of an object in memory returns once its file is unlinked, and not before (I27)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        remove, goes_on = rig.store.remove, asyncio.Event()

        async def held(name: str) -> None:
            await goes_on.wait()
            await remove(name)

        monkeypatch.setattr(rig.store, "remove", held)
        purging = asyncio.create_task(rig.cache.purge([KEY]))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not purging.done()
        goes_on.set()
        assert await purging == 1
        assert rig.stored_files() == {}


async def test_a_purge_leaves_readers_alone(tmp_path: Path) -> None:
    """A running reader continues with the version that was purged (I1, I18)."""
    async with Rig(tmp_path) as rig:
        old = rig.origin.put(content(2 * PART))
        with await rig.reader() as reader:
            reader.expect(Span(0, 2 * PART))
            assert await reader.readable(0) > 0
            await rig.cache.purge([KEY])
            assert rig.stored_files() == {}
            new = rig.origin.put(content(2 * PART), '"2"')
            assert await rig.get() == new
            del old
        await rig.audit()


async def test_a_soft_purge_revalidates(tmp_path: Path) -> None:
    """An entry that was marked stale is revalidated before it serves, whatever its windows (I27)."""
    async with Rig(tmp_path, policy=steady(60.0, revalidate=900.0, error=900.0), hot_limit=0) as rig:
        data = rig.origin.put(content(BLOCK))
        await rig.get()
        assert await rig.cache.purge([KEY], soft=True) == 1
        await rig.housekeeper.step()
        assert await rig.get() == data
        assert rig.origin.conditional == 1
        assert await rig.get() == data
        assert rig.origin.conditional == 1
        assert runs(rig.origin.reads) == [(0, BLOCK)]
        await rig.audit()


@each_row("soft", [False, True])
@each_row("wants_body", [False, True])
async def test_a_purge_survives_a_kill(tmp_path: Path, soft: bool, wants_body: bool) -> None:
    """After `kill -9` right after a purge, neither GET nor HEAD gets the purged version (I5, I27)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        await rig.flusher.flush()
        await rig.cache.purge([KEY], soft=soft)
        await turns()
        rig.abandon()
    rig.origin.put(content(BLOCK, seed=1), '"2"')
    async with Rig(tmp_path, origin=rig.origin) as again:
        with await again.reader(wants_body=wants_body) as reader:
            assert reader.metadata.etag == '"2"'
        await again.audit()


@pytest.mark.parametrize("soft", [False, True])
async def test_a_purge_that_the_disk_refuses_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soft: bool) -> None:
    """If a file cannot be unlinked, a hard purge raises, removes the entry, and leaks no descriptor (I12)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        await turns()

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "no")

        with monkeypatch.context() as broken:
            broken.setattr(Folder, "unlink", refuse)
            if soft:
                assert await rig.cache.purge([KEY], soft=True) == 1
            else:
                with pytest.raises(StoreError):
                    await rig.cache.purge([KEY])
                assert rig.entries.get(KEY) is None
                assert rig.open_files() == []
        await turns()
        rig.monotonic.now += 60.0
        new = rig.origin.put(content(BLOCK, seed=1), '"2"')
        assert await rig.get() == new


# --- starting again ----------------------------------------------------------------------------------------


async def test_a_clean_restart_is_warm(tmp_path: Path) -> None:
    """After a clean stop every entry is there, complete or in part, and none is verified or revalidated (I14)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        part = rig.origin.put(content(4 * PART), key=OTHER)
        await rig.get()
        await rig.get(PART, 2 * PART, key=OTHER)
        await rig.audit()
        used = rig.budget.used
        await rig.close()
    gets = rig.origin.gets
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert (again.budget.used, len(again.entries)) == (used, 2)
        assert await again.get() == data
        assert await again.get(PART, 2 * PART, key=OTHER) == part[PART : 2 * PART]
        assert again.entry().unverified == 0
        assert again.origin.gets == gets
        assert await again.get(key=OTHER) == part
        await again.audit()


async def test_an_unclean_restart_verifies(tmp_path: Path) -> None:
    """After a kill every block is verified before its first byte is served.

    Sound blocks are kept. A corrupt one is counted, and fetched again within the request (I15).
    """
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(SIZE))
        await rig.get()
        await rig.audit()
        rig.abandon()
    (path,) = rig.stored_files().values()
    with path.open("r+b") as file:
        file.seek(2 * BLOCK + 99)
        file.write(bytes((data[2 * BLOCK + 99] ^ 1,)))
    reads = len(rig.origin.reads)
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert list(await asyncio.gather(again.get(), again.get(2 * BLOCK + 5), again.get(SIZE - 1))) == [
            data, data[2 * BLOCK + 5 :], data[-1:],
        ]  # fmt: skip
        assert again.entries.corrupt_blocks == 1
        assert runs(again.origin.reads[reads:]) == [(2 * BLOCK, 3 * BLOCK)]
        await again.audit()
        assert again.entry().unverified == 0
        await again.close()
    async with Rig(tmp_path, origin=rig.origin) as third:
        assert await third.get() == data
        assert third.entries.corrupt_blocks == 0
        await third.audit()


async def test_a_kill_during_a_fill_costs_its_unrecorded_blocks(tmp_path: Path) -> None:
    """Bytes that were written and not recorded are given back and fetched again (I2, I14, I17)."""
    async with Rig(tmp_path) as rig:
        data = rig.origin.put(content(PART))
        gate = rig.origin.gate(2 * BLOCK + 9)
        reading = asyncio.create_task(rig.get())
        await turns()
        await rig.flusher.flush()
        folder = tmp_path / "copy"
        folder.mkdir()
        shutil.copytree(tmp_path / "objects", folder / "objects")
        for file in rig.index.files:
            shutil.copy(file, folder)
        gate.set()
        await reading
    async with Rig(folder, origin=rig.origin) as again:
        assert again.entry().present == 0b11
        assert await again.get() == data
        assert again.entries.corrupt_blocks == 0
        await again.audit()


async def test_a_row_without_its_file_and_a_file_without_its_row(tmp_path: Path) -> None:
    """Half of what a kill left is a miss or is swept, without an operator (I14)."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        orphan = rig.origin.put(content(BLOCK, seed=1), key=OTHER)
        await rig.get()
        await rig.audit()
        await rig.get(key=OTHER)
        await turns()
        rig.abandon()
    row_file = {row["file"] for row in rig.rows()}
    assert len(rig.stored_files()) == 2
    for name in row_file:
        rig.stored_files()[name].unlink()
    (lost,) = rig.stored_files().values()
    os.utime(lost, (1.0, 1.0))
    async with Rig(tmp_path, origin=rig.origin) as again:
        await again.housekeeper.sweep()
        assert again.stored_files() == {}
        assert await again.get(key=OTHER) == orphan
        assert len(await again.get()) == BLOCK
        await again.housekeeper.sweep()
        await again.audit()
        assert len(again.stored_files()) == 2


async def test_a_close_ends_whatever_runs(tmp_path: Path) -> None:
    """A stop in the middle of lookups, openings and fills leaves no task and no descriptor (I12)."""
    for after in range(0, 60, 4):
        async with Rig(tmp_path / str(after), seed=after) as rig:
            rig.origin.put(content(2 * PART))
            rig.origin.put(content(2 * PART), key=OTHER)
            readers = [asyncio.create_task(rig.get(key=key)) for key in (KEY, KEY, OTHER)]
            await turns(after)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            await rig.close()


# --- space -------------------------------------------------------------------------------------------------


def _keys(count: int) -> list[ObjectKey]:
    return [ObjectKey("bucket", f"{number:03d}") for number in range(count)]


async def test_entries_do_not_cool_while_they_are_being_written_down(tmp_path: Path) -> None:
    """An entry in a running flush stays in memory, because the index does not have it yet (I2, I6)."""
    async with Rig(tmp_path, hot_limit=0) as rig:
        data = rig.origin.put(content(PART))
        await rig.get()
        await turns()
        flushing = asyncio.create_task(rig.flusher.flush())
        await asyncio.sleep(0)
        assert rig.entries.cool() == []
        assert rig.entry().present == 0b1111
        await flushing
        assert await rig.get() == data
        assert rig.origin.gets == 1
        await rig.audit()


async def test_an_entry_that_cools_before_its_revalidation_is_not_used_twice(tmp_path: Path) -> None:
    """An entry that leaves memory between a request and its lookup is read again.

    Two entries never share a file, and each is closed (I2, I12).
    """
    async with Rig(tmp_path, hot_limit=0) as rig:
        data = rig.origin.put(content(PART))
        await rig.get()
        await rig.audit()
        rig.wall.now += 61.0
        waiting = asyncio.create_task(rig.get())
        # The request has found its entry and made the lookup, which has not begun yet.
        await asyncio.sleep(0)
        for entry in rig.entries.cool():
            if entry.file is not None:
                os.close(entry.file.region.fd)
                entry.file = None
        assert await waiting == data
        assert (rig.origin.conditional, len(rig.open_files())) == (1, 1)
        await rig.audit()


async def test_hot_entries_cool_and_come_back(tmp_path: Path) -> None:
    """Beyond `hot_limit` the least recently used descriptors are closed, and their objects stay hits (I19, I21)."""
    async with Rig(tmp_path, hot_limit=3) as rig:
        bodies = {key: rig.origin.put(content(SIZE, seed=number), key=key) for number, key in enumerate(_keys(10))}
        for key, body in bodies.items():
            assert await rig.get(key=key) == body
        await rig.audit()
        await rig.housekeeper.step()
        assert len(rig.open_files()) == 3
        assert set(rig.entries._hot) == set(_keys(10)[-3:])
        gets = rig.origin.gets
        for key, body in bodies.items():
            assert await rig.get(key=key) == body
        assert rig.origin.gets == gets
        await rig.housekeeper.step()
        await rig.audit()
        assert len(rig.open_files()) == 3


@pytest.mark.parametrize("hot_limit", [0, 64])
async def test_the_least_recently_used_makes_room(tmp_path: Path, hot_limit: int) -> None:
    """Without free space the oldest entries are evicted, in memory or not, and `max_size` is never exceeded (I17)."""
    cost = 2 * BLOCK + ENTRY_BYTES
    async with Rig(tmp_path, max_size=5 * cost, hot_limit=hot_limit) as rig:
        keys = _keys(8)
        for number, key in enumerate(keys):
            data = rig.origin.put(content(2 * BLOCK, seed=number), key=key)
            rig.wall.now += 1.0
            assert await rig.get(key=key) == data
            assert rig.budget.used <= rig.budget.limit
            await rig.get(key=keys[0])
            await rig.housekeeper.step()
        await rig.audit()
        assert {row["key"].decode() for row in rig.rows()} >= {"000", "007", "006"}
        assert "001" not in {row["key"].decode() for row in rig.rows()}
        assert rig.entries.evicted >= 3


async def test_pressure_never_touches_what_is_read(tmp_path: Path) -> None:
    """Pinned entries are never evicted, and an object without room is streamed (I16, I18)."""
    async with Rig(tmp_path, max_size=7 * BLOCK) as rig:
        pinned = rig.origin.put(content(3 * BLOCK))
        with await rig.reader() as reader:
            assert await rig.read(reader) == pinned
            for number, key in enumerate(_keys(6)):
                data = rig.origin.put(content(3 * BLOCK, seed=number), key=key)
                assert await rig.get(key=key) == data
            assert await rig.read(reader) == pinned
            assert not rig.entry().is_removed
        await rig.audit()


@each_row("after", range(1, 12))
async def test_an_eviction_outlives_its_caller(tmp_path: Path, after: int) -> None:
    """A part fetch that is cancelled while others are evicted for it leaves no entry half removed.

    The file, descriptor and bytes of each are given back (I12, I17).
    """
    async with Rig(tmp_path, seed=after) as rig:
        for number, key in enumerate(_keys(3)):
            rig.origin.put(content(BLOCK, seed=number), key=key)
            await rig.get(key=key)
        await turns()
        evicting = asyncio.create_task(rig.space.unlink_evicted(rig.entries.evict(2 * BLOCK)))
        await turns(after)
        evicting.cancel()
        await asyncio.gather(evicting, return_exceptions=True)
        await rig.audit()
        assert len(rig.entries) == 1


@each_row("after", range(12))
async def test_a_purge_outlives_its_caller(tmp_path: Path, after: int) -> None:
    """A purge that is cancelled at any turn completes what it began: file, descriptor and bytes (I12)."""
    async with Rig(tmp_path, seed=after) as rig:
        for number, key in enumerate(_keys(3)):
            rig.origin.put(content(BLOCK, seed=number), key=key)
            await rig.get(key=key)
        purging = asyncio.create_task(rig.cache.purge(prefixes=[ObjectKey("bucket", "")]))
        await turns(after)
        purging.cancel()
        await asyncio.gather(purging, return_exceptions=True)
        await rig.audit()


async def test_idle_entries_go(tmp_path: Path) -> None:
    """An object without a request for `idle_timeout` is removed, and each access resets the timer."""
    async with Rig(tmp_path, idle_timeout=100.0) as rig:
        for number, key in enumerate(_keys(3)):
            rig.origin.put(content(BLOCK, seed=number), key=key)
            await rig.get(key=key)
        used, read, never = _keys(3)
        rig.wall.now += 60.0
        await rig.get(key=used)
        with await rig.reader(read):
            rig.wall.now += 50.0
            await rig.housekeeper.step()
            assert rig.entries.get(never) is None
            assert rig.entries.get(used) is not None
            assert rig.entries.get(read) is not None
        await rig.housekeeper.step()
        assert rig.entries.get(read) is not None
        await rig.audit()


async def test_a_floor_of_free_disk_is_kept(tmp_path: Path) -> None:
    """If the disk has less free than `min_free`, entries are removed until it has, or none is left."""
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        await rig.audit()
        rig.housekeeper._min_free = lambda total: total
        await rig.housekeeper.step()
        assert len(rig.entries) == 0
        await rig.audit()


async def test_threads_are_no_different(tmp_path: Path) -> None:
    """The same holds on real threads, with many readers of many objects, evictions, and an audit at the end."""
    async with Rig(tmp_path, max_size=20 * BLOCK, hot_limit=2, has_threads=True) as rig:
        assert not isinstance(rig.store._threads, Turns)
        bodies = {key: rig.origin.put(content(SIZE, seed=number), key=key) for number, key in enumerate(_keys(6))}

        async def ask(key: ObjectKey, start: int) -> None:
            assert await rig.get(start, key=key) == bodies[key][start:]

        for _ in range(5):
            keys = rig.chance.choices(_keys(6), k=20)
            await asyncio.gather(*(ask(key, rig.chance.randrange(SIZE)) for key in keys))
            await rig.housekeeper.step()
        while others():
            await asyncio.wait(others())
        await rig.audit()
