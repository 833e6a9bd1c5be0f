"""`verify` finds damage of each kind, names its place, and repairs it on request."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, content
from rows import each_row

from bucketfront.cache.storage import verification
from bucketfront.cache.storage.verification import Damage, Report, verify
from bucketfront.errors import CacheInUse, StoreError
from bucketfront.keys import ObjectKey

OTHER = ObjectKey("bucket", "other")
SIZE = 5 * BLOCK + 7
ORPHAN = "0" * 26


async def filled(root: Path) -> Rig:
    """Fill a cache with two objects, one of them with holes, and close it cleanly. The origin still has them."""
    async with Rig(root) as rig:
        rig.origin.put(content(SIZE))
        rig.origin.put(content(SIZE, seed=1), key=OTHER)
        await rig.get()
        await rig.get(BLOCK, 2 * BLOCK, key=OTHER)
        await rig.flusher.flush()
    return rig


async def verified(root: Path, *, repair: bool = False) -> Report:
    """Verify in a thread, because a repair has an event loop of its own."""
    return await asyncio.to_thread(verify, root, BLOCK, repair=repair)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        for at in (BLOCK + 5, 3 * BLOCK):
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes((byte[0] ^ 1,)))


def miscount(path: Path) -> None:
    with closing(sqlite3.connect(path.parents[2] / "index.db")) as database, database:
        database.execute("UPDATE state SET value = value + 1 WHERE name IN ('bytes', 'entries')")


def orphan(path: Path) -> None:
    shard = path.parents[1] / ORPHAN[-2:]
    shard.mkdir(exist_ok=True)
    (shard / ORPHAN).write_bytes(b"x")


CASES: list[tuple[Callable[[Path], None], list[tuple[Damage, str, tuple[int, ...]]]]] = [
    (lambda path: None, []),
    (flip, [(Damage.CORRUPT, "bucket/a/b.mp4", (1, 3))]),
    (lambda path: os.truncate(path, SIZE - 1), [(Damage.GONE, "bucket/a/b.mp4", ())]),
    (lambda path: path.unlink(), [(Damage.GONE, "bucket/a/b.mp4", ())]),
    (orphan, [(Damage.ORPHAN, f"objects/00/{ORPHAN}", ())]),
    (miscount, [(Damage.TOTALS, "", ())]),
]


@each_row(("harm", "expected"), CASES, ids=["sound", "rot", "cut", "gone", "orphan", "miscounted"])
async def test_damage_is_found_and_put_right(
    tmp_path: Path, harm: Callable[[Path], None], expected: list[tuple[Damage, str, tuple[int, ...]]]
) -> None:
    """Verification finds the damage and changes no byte. A repair reports the same. After it no damage is found, every
    byte is right, and the space adds up (I15, I17).
    """
    rig = await filled(tmp_path)
    harm(next(rig.stored_files()[row["file"]] for row in rig.rows() if row["key"] == b"a/b.mp4"))
    for repair in (False, False, True):
        report = await verified(tmp_path, repair=repair)
        found = [(f.damage, "" if f.damage is Damage.TOTALS else f.where, f.blocks) for f in report.findings]
        assert found == expected
        assert report.is_repaired == (repair and bool(expected))
        assert report.entries == 2
    assert (await verified(tmp_path)).findings == ()
    async with Rig(tmp_path, origin=rig.origin) as again:
        assert await again.get() == content(SIZE)
        assert await again.get(key=OTHER) == content(SIZE, seed=1)
        assert again.entries.corrupt_blocks == 0
        await again.audit()


async def test_a_folder_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a running cache is only read. Its unflushed changes do not count as damage, and real damage does
    (I15).
    """
    monkeypatch.setattr(verification, "SETTLING_S", 0.0)
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(SIZE))
        rig.origin.put(content(SIZE, seed=1), key=OTHER)
        await rig.get()
        await rig.flusher.flush()
        await rig.get(key=OTHER)  # a file without a row
        with pytest.raises(CacheInUse):
            verify(tmp_path, BLOCK, repair=True)
        inspect = verification._Inspection.run_again

        def flushed_first(self: verification._Inspection) -> None:
            rig.index._write(rig.entries.changes(), clean=False)
            inspect(self)

        monkeypatch.setattr(verification._Inspection, "run_again", flushed_first)
        assert verify(tmp_path, BLOCK, repair=False).findings == ()
        flip(rig.stored_files()[rig.entry().file_name or ""])
        (finding,) = verify(tmp_path, BLOCK, repair=False).findings
        assert (finding.damage, finding.blocks) == (Damage.CORRUPT, (1, 3))
        await turns()


async def test_what_cannot_be_verified_says_so(tmp_path: Path) -> None:
    """A missing cache, an index of another block size and a damaged one are errors with a reason, not findings."""
    with pytest.raises(StoreError, match="no cache in"):
        verify(tmp_path / "none", BLOCK, repair=False)
    await filled(tmp_path)
    with pytest.raises(StoreError, match=f"blocks have {BLOCK} bytes, cache.block_size is {2 * BLOCK}"):
        verify(tmp_path, 2 * BLOCK, repair=False)
    (tmp_path / "index.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError, match="cannot use the cache index"):
        verify(tmp_path, BLOCK, repair=False)
    assert (tmp_path / "index.db").read_bytes().startswith(b"garbage")


async def test_a_key_is_told_in_printable_characters(tmp_path: Path) -> None:
    """Clients choose keys, so the report shows them in printable characters that move no terminal's cursor (I28)."""
    key = ObjectKey("bucket", "\x1b[2J\nnone\u202e")
    async with Rig(tmp_path) as rig:
        rig.origin.put(content(SIZE), key=key)
        await rig.get(key=key)
        await rig.flusher.flush()
        (file,) = rig.stored_files().values()
    flip(file)
    (finding,) = (await verified(tmp_path)).findings
    assert finding.where == "bucket/%1B%5B2J%0Anone%E2%80%AE"
