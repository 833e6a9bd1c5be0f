"""The index on disk: rows come back as they were, totals add up, and no damage keeps it from opening."""

import asyncio
import dataclasses
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import each_row, examples

from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import PAGE_BLOCKS, Changes, Row
from bucketfront.errors import StoreError
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

KEY = ObjectKey("bucket", "a/b.mp4")
BLOCK = 65536


def opened(folder: Path, origin: str = "one", block_size: int = BLOCK) -> Index:
    index = Index(folder / "index.db", origin, block_size=block_size)
    index.open()
    return index


@contextmanager
def running(folder: Path, origin: str = "one") -> Iterator[Index]:
    index = opened(folder, origin)
    try:
        yield index
    finally:
        index.abandon()


def row(
    number: int, key: ObjectKey = KEY, *, charged: int = 4096, at: float = 1.0, epoch: int = 0, etag: str = '"1"'
) -> Row:
    headers = (("Content-Type", "video/mp4"), ("x-amz-meta-ü", "ü\r"))
    metadata = Metadata(
        etag, 12345, "Tue, 15 Nov 1994 08:12:31 GMT", headers, age=7, date="Wed, 16 Nov 1994 08:12:31 GMT"
    )
    return Row(number, key, f"{number:026d}", metadata, at, at + 1, at + 2, charged, epoch)


def flush(index: Index, changes: Changes) -> None:
    asyncio.run(index.flush(changes))


@each_row("checksum", [None, ("crc64nvme", "AAAAAAAAAAA=")])
@each_row("has_opaque_etag", [True, False])
def test_what_is_known_of_the_bytes_comes_back(
    tmp_path: Path, checksum: tuple[str, str] | None, has_opaque_etag: bool
) -> None:
    """S3's checksum, whether the ETag is an MD5, and the response's Date are the same after a restart (I7, I15)."""
    with running(tmp_path) as index:
        entry = row(index.new_id(), etag='"d41d8cd98f00b204e9800998ecf8427e"')
        told = dataclasses.replace(entry.metadata, checksum=checksum, has_opaque_etag=has_opaque_etag)
        flush(index, Changes((dataclasses.replace(entry, metadata=told),)))
    with running(tmp_path) as index:
        found = index.load(KEY)
        assert found is not None
        assert found.metadata == told
        assert found.metadata.date == told.date
        assert (found.metadata.content_md5 is None) == has_opaque_etag


def test_a_row_that_does_not_say_what_its_etag_is(tmp_path: Path) -> None:
    """A row of an old release does not have the field, and then no ETag counts as an MD5 (I15)."""
    with running(tmp_path) as index:
        flush(index, Changes((row(index.new_id(), etag='"d41d8cd98f00b204e9800998ecf8427e"'),)))
    with closing(sqlite3.connect(tmp_path / "index.db")) as database:
        database.execute("UPDATE entries SET metadata = json_remove(metadata, '$.checksum', '$.opaque_etag')")
        database.commit()
    with running(tmp_path) as index:
        found = index.load(KEY)
        assert found is not None
        assert (found.metadata.checksum, found.metadata.content_md5) == (None, None)


@each_row("count", [0, 1, 255, 256, 257, 600])
def test_an_entry_comes_back_as_it_was(tmp_path: Path, count: int) -> None:
    """Metadata, times, charge, blocks and checksums survive a restart, over however many pages the blocks reach."""
    blocks = [block for block in range(count) if block % 7 != 3]
    with running(tmp_path) as index:
        entry = row(index.new_id())
        flush(index, Changes((entry,), tuple((entry.id, block, block * 7919 + 2**31) for block in blocks)))
    with running(tmp_path) as index:
        found = index.load(KEY)
        assert found is not None
        assert found.present == sum(1 << block for block in blocks)
        assert dataclasses.replace(found, present=0) == entry
        assert [index.checksum(entry.id, block) for block in blocks] == [b * 7919 + 2**31 for b in blocks]
        assert index.new_id() > entry.id


def test_blocks_are_added_and_lost_one_by_one(tmp_path: Path) -> None:
    """A later flush changes the blocks that it names, and no others."""
    with running(tmp_path) as index:
        entry = row(index.new_id())
        flush(index, Changes((entry,), tuple((entry.id, block, block + 1) for block in range(300))))
        flush(index, Changes((), ((entry.id, 300, 9), (entry.id, 5, 77)), lost=((entry.id, 0), (entry.id, 299))))
        found = index.load(KEY)
        assert found is not None
        assert found.present == sum(1 << block for block in range(1, 299)) | 1 << 300
        assert [index.checksum(entry.id, block) for block in (5, 6, 298, 300)] == [77, 7, 299, 9]


def test_blocks_of_an_entry_that_is_gone_are_not_kept(tmp_path: Path) -> None:
    """Checksums that arrive after the removal of their entry leave no block to the next entry of that id."""
    with running(tmp_path) as index:
        entry = row(index.new_id())
        flush(index, Changes((entry,), ((entry.id, 0, 1),)))
        flush(index, Changes(removed=(entry.id,)))
        flush(index, Changes(sums=((entry.id, 1, 1),)))
        flush(index, Changes((entry,)))
        found = index.load(KEY)
        assert found is not None
        assert found.present == 0


def test_a_new_entry_supersedes_the_old_one_of_its_key(tmp_path: Path) -> None:
    """One key has one entry: a second one with a new id replaces the first, with its blocks and bytes."""
    with running(tmp_path) as index:
        old, new = row(1, charged=100), row(2, charged=30, etag='"2"')
        flush(index, Changes((old,), ((1, 0, 5),)))
        flush(index, Changes((new,)))
        assert index.load(KEY) == new
        assert index.totals() == (30, 1)


def test_two_origins_share_nothing(tmp_path: Path) -> None:
    """Entries of another endpoint are not found, by key or by prefix, though their space counts (I25)."""
    with running(tmp_path) as index:
        flush(index, Changes((row(1),)))
    with running(tmp_path, "two") as index:
        assert index.load(KEY) is None
        assert index.with_prefix("bucket", "", b"", 9) == []
        flush(index, Changes((row(2, etag='"two"'),)))
        assert index.totals() == (8192, 2)
        assert [found.id for found in index.oldest(9)] == [1, 2]
    with running(tmp_path) as index:
        found = index.load(KEY)
        assert found is not None
        assert found.metadata.etag == '"1"'


LAST = "\U0010ffff"
NAMES = ["a", "a/", "a/b", "a0", "b", "ü", "üa", "\u00fd", "\uffff", LAST, LAST + "a", LAST * 2, "a\u0001"]


@each_row("prefix", ["", "a", "a/", "a/b", "ü", "\uffff", LAST, LAST * 2, "c", "a\u0001", "\x7f"])
@each_row("page", [1, 3, 100])
def test_a_prefix_finds_what_begins_with_it(tmp_path: Path, prefix: str, page: int) -> None:
    """Every key with the prefix is found once, whatever the code points, over however many pages."""
    with running(tmp_path) as index:
        rows = tuple(row(number + 1, ObjectKey("bucket", name)) for number, name in enumerate(NAMES))
        flush(index, Changes((*rows, row(99, ObjectKey("other", prefix or "a")))))
        found: list[str] = []
        while rows_found := index.with_prefix("bucket", prefix, found[-1].encode() if found else b"", page):
            found += [item.key.key for item in rows_found]
        assert found == sorted((name for name in NAMES if name.startswith(prefix)), key=str.encode)


def test_a_page_deep_in_a_prefix_costs_as_much_as_the_first(tmp_path: Path) -> None:
    """A page is found by its first key, so the pages of a million entries take no longer than others (I22)."""
    with running(tmp_path) as index:
        names = [f"{number:04d}" for number in range(2000)]
        flush(index, Changes(tuple(row(at + 1, ObjectKey("bucket", name)) for at, name in enumerate(names))))
        assert index._reader is not None
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        def cost(after: bytes) -> int:
            nonlocal steps
            steps = 0
            assert len(index.with_prefix("bucket", "", after, 10)) == 10
            return steps

        index._reader.set_progress_handler(count, 1)  # each instruction of SQLite's machine
        assert cost(b"1900") <= 2 * cost(b"")


def test_the_oldest_come_first(tmp_path: Path) -> None:
    """Entries come in the order of their last access; a touch moves them, and never backwards."""
    with running(tmp_path) as index:
        flush(index, Changes(tuple(row(number, ObjectKey("b", str(number)), at=number) for number in (1, 2, 3, 4))))
        flush(index, Changes(touched=((50.0, 2), (1.0, 4))))
        first, *others = index.oldest(10)
        assert [first.id, *(found.id for found in others)] == [1, 3, 4, 2]
        assert [found.id for found in index.oldest(2, after=first)] == [3, 4]
        assert index.oldest(2, after=others[-1]) == []


def test_files_are_known_by_shard(tmp_path: Path) -> None:
    """The sweep finds the files that belong to entries by folder, those of all origins."""
    with running(tmp_path, "two") as index:
        flush(index, Changes((row(107, ObjectKey("b", "x")),)))
    with running(tmp_path) as index:
        flush(index, Changes((row(7), row(8, ObjectKey("b", "y")))))
        files = [{f"{number:026d}": (number, row(number).bytes)} for number in (7, 107)]
        assert list(index.files_of_shard("07", 1)) == files
        assert list(index.files_of_shard("07", 100)) == [files[0] | files[1]]
        assert list(index.files_of_shard("ZZ", 100)) == []


operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 4), st.integers(0, 10**6)),
        st.tuples(st.just("grow"), st.integers(0, 30), st.integers(0, 10**6)),
        st.tuples(st.just("remove"), st.integers(0, 30), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=examples(12, 40), deadline=None)
@given(operations)
def test_totals_are_the_sums(work: list[tuple[str, int, int]]) -> None:
    """The bytes and entries that triggers count are the sums over the rows, after any changes and a restart."""
    with TemporaryDirectory() as folder:
        with running(Path(folder)) as index:
            model: dict[int, Row] = {}
            for what, which, charged in work:
                if what == "put":
                    new = row(index.new_id(), ObjectKey("b", str(which)), charged=charged)
                    model = {number: old for number, old in model.items() if old.key != new.key} | {new.id: new}
                    flush(index, Changes((new,), ((new.id, PAGE_BLOCKS, 1),)))
                elif what == "grow" and which in model:
                    model[which] = row(which, model[which].key, charged=charged)
                    flush(index, Changes((model[which],)))
                else:
                    model.pop(which, None)
                    flush(index, Changes(removed=(which,)))
            assert index.totals() == (sum(entry.bytes for entry in model.values()), len(model))
        with running(Path(folder)) as index:
            assert index.totals() == (sum(entry.bytes for entry in model.values()), len(model))
        with closing(sqlite3.connect(Path(folder) / "index.db")) as database:
            assert {entry for (entry,) in database.execute("SELECT DISTINCT entry FROM pages")} == set(model)


async def test_the_epoch_grows_with_each_start(tmp_path: Path) -> None:
    """Each start moves the epoch on, so that blocks of the runs before are verified. A kill is seen (I14, I15)."""
    index = opened(tmp_path)
    assert (index.was_clean, index.epoch) == (True, 1)
    await index.close(Changes((row(1),)))
    index = opened(tmp_path)
    assert (index.was_clean, index.epoch) == (True, 2)
    assert index.load(KEY) is not None
    index.abandon()
    for epoch in (3, 4):
        index = opened(tmp_path)
        assert (index.was_clean, index.epoch) == (False, epoch)
        index.abandon()
    index = opened(tmp_path)
    await index.close(Changes())
    index = opened(tmp_path)
    assert (index.was_clean, index.epoch) == (True, 6)
    index.abandon()


def damage_garbage(path: Path) -> None:
    path.write_bytes(os.urandom(50_000))


def damage_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def damage_head(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4080 + path.read_bytes()[4096:])


def damage_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 1")  # never released: there is no migration from it


def damage_text(path: Path) -> None:
    path.write_text("not a database")


@pytest.mark.parametrize("damage", [damage_garbage, damage_short, damage_head, damage_schema, damage_text])
async def test_a_damaged_index_is_begun_anew(tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture) -> None:
    """An empty index replaces one that is unreadable or of a schema that was never released (I14)."""
    index = opened(tmp_path)
    await index.close(Changes((row(1),)))
    assert callable(damage)
    damage(tmp_path / "index.db")
    index = opened(tmp_path)
    assert "of no use" in caplog.text
    assert index.load(KEY) is None
    assert index.totals() == (0, 0)
    await index.flush(Changes((row(1),)))
    await index.close(Changes())
    with running(tmp_path) as index:
        assert index.load(KEY) == row(1)


async def test_damage_that_shows_later_does_not_outlast_the_next_start(tmp_path: Path) -> None:
    """Damaged pages that only a read reveals are gone after the next start (I14)."""
    index = opened(tmp_path)
    rows = tuple(row(number + 1, ObjectKey("b", f"{number:0500d}")) for number in range(200))
    await index.close(Changes(rows))
    path = tmp_path / "index.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: 10 * 4096] + b"\xa5" * (20 * 4096) + whole[30 * 4096 :])
    for _ in range(2):
        index = Index(path, "one", block_size=BLOCK)
        index.open()
        try:
            for entry in rows:
                index.load(entry.key)
            await index.flush(Changes((row(500, ObjectKey("b", "new")),)))
        except StoreError:
            pass
        else:
            break
        finally:
            index.abandon()
    else:
        pytest.fail("still damaged after a restart")


def test_an_unusable_path_is_a_store_error(tmp_path: Path) -> None:
    """A folder in the place of the database is a StoreError that names the path."""
    (tmp_path / "index.db").mkdir()
    with pytest.raises(StoreError, match=r"index\.db"):
        Index(tmp_path / "index.db", "one", block_size=BLOCK).open()


async def test_a_failed_flush_writes_nothing(tmp_path: Path) -> None:
    """A flush is one transaction: a bad row keeps all of it out, and the index goes on."""
    index = opened(tmp_path)
    with pytest.raises(StoreError):
        await index.flush(Changes((row(1), row(2, ObjectKey(None, "x")))))  # type: ignore[arg-type]
    assert index.totals() == (0, 0)
    await index.flush(Changes((row(1),)))
    assert index.totals() == (4096, 1)
    index.abandon()


async def test_other_blocks_begin_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With another `cache.block_size` a bit stands for other bytes, so a new index replaces the old one (I2)."""
    index = opened(tmp_path)
    await index.close(Changes((row(1),), sums=((1, 0, 5),)))
    index = opened(tmp_path, block_size=2 * BLOCK)
    assert index.load(KEY) is None
    assert index.totals() == (0, 0)
    assert f"its blocks have {BLOCK} bytes" in caplog.text
    await index.close(Changes((row(2),)))
    index = opened(tmp_path, block_size=2 * BLOCK)
    assert index.load(KEY) == row(2)
    index.abandon()
