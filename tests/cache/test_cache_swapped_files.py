"""Files that another process changed or swapped between two runs are found before a byte of them is sent (I15)."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_harness import Rig, turns
from fake_origin import BLOCK, KEY, content
from rows import each_row

from bucketfront.cache.storage.file_storage import punch
from bucketfront.cache.storage.storage import StoredFile
from bucketfront.cache.storage.verification import Damage, verify
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey

OTHER = ObjectKey("bucket", "other")
SIZE = 3 * BLOCK + 7
WRONG = content(SIZE, seed=9)


def symlink(file: Path, folder: Path) -> None:
    target = folder / "target"
    target.write_bytes(WRONG)
    file.unlink()
    file.symlink_to(target)


def dangling(file: Path, folder: Path) -> None:
    file.unlink()
    file.symlink_to(folder / "nowhere")


def hard_link(file: Path, folder: Path) -> None:
    target = folder / "target"
    target.write_bytes(WRONG)
    file.unlink()
    file.hardlink_to(target)


def pipe(file: Path, _: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def bound_socket(file: Path, folder: Path) -> None:
    file.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    (folder / "socket").rename(file)


def empty_folder(file: Path, _: Path) -> None:
    file.unlink()
    file.mkdir()


def full_folder(file: Path, _: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "inside").write_bytes(WRONG)


def shorter(file: Path, _: Path) -> None:
    os.truncate(file, SIZE - 1)


def longer(file: Path, _: Path) -> None:
    os.truncate(file, SIZE + 1)


def emptied(file: Path, _: Path) -> None:
    os.truncate(file, 0)


def other_file(file: Path, folder: Path) -> None:
    fresh = folder / "fresh"
    fresh.write_bytes(WRONG)
    fresh.replace(file)


def in_place(file: Path, _: Path) -> None:
    """Change one byte, and set the times back."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(BLOCK + 5)
        opened.write(b"\x00" if content(SIZE)[BLOCK + 5] else b"\x01")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def last_byte(file: Path, _: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(SIZE - 1)
        opened.write(bytes((content(SIZE)[-1] ^ 1,)))


def holes(file: Path, _: Path) -> None:
    fd = os.open(file, os.O_RDWR)
    punch(fd, Span(BLOCK, 2 * BLOCK))
    os.close(fd)


def swapped(file: Path, folder: Path) -> None:
    """Let two files of the cache change places. Both have the same size."""
    (other,) = (found for found in file.parents[1].glob("*/*") if found != file)
    file.rename(folder / "aside")
    other.rename(file)
    (folder / "aside").rename(other)


def linked_to_each_other(file: Path, _: Path) -> None:
    (other,) = (found for found in file.parents[1].glob("*/*") if found != file)
    file.unlink()
    file.hardlink_to(other)


def linked_shard(file: Path, folder: Path) -> None:
    shutil.move(file.parent, folder / "shard")
    file.parent.symlink_to(folder / "shard")


def file_as_shard(file: Path, _: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.write_bytes(WRONG)


HARMS = [
    symlink, dangling, hard_link, pipe, bound_socket, empty_folder, full_folder, shorter, longer, emptied, other_file,
    in_place, last_byte, holes, swapped, linked_to_each_other, linked_shard, file_as_shard,
]  # fmt: skip
Harm = Callable[[Path, Path], None]


async def filled(root: Path) -> Rig:
    """Fill a cache with two objects of the same size, and stop it cleanly."""
    async with Rig(root) as rig:
        rig.origin.put(content(SIZE))
        rig.origin.put(content(SIZE, seed=1), key=OTHER)
        assert await rig.get() == content(SIZE)
        assert await rig.get(key=OTHER) == content(SIZE, seed=1)
    return rig


def file_of(rig: Rig, key: ObjectKey = KEY) -> Path:
    return next(rig.stored_files()[row["file"]] for row in rig.rows() if row["key"] == key.key.encode())


@each_row("start", [0, SIZE - 1], ids=["whole", "tail"])
@each_row("harm", HARMS)
async def test_a_file_that_was_changed_between_two_runs(tmp_path: Path, harm: Harm, start: int) -> None:
    """After a clean stop, a file that another process swapped or changed harms no response: the right bytes come, the
    disk counts as sound, and the next request is a hit (I14, I15).
    """
    root, aside = tmp_path / "cache", tmp_path / "aside"
    aside.mkdir()
    rig = await filled(root)
    harm(file_of(rig), aside)
    async with Rig(root, origin=rig.origin) as again:
        assert await again.get(start) == content(SIZE)[start:]
        assert await again.get(key=OTHER) == content(SIZE, seed=1)
        assert await again.get() == content(SIZE)
        assert again.store.failures == 0
        await turns()
        calls = again.origin.gets
        for key, seed in ((KEY, 0), (OTHER, 1)):
            assert await again.get(key=key) == content(SIZE, seed=seed)
        assert again.origin.gets == calls
        if harm not in (empty_folder, full_folder, linked_shard):  # what the cache did not make stays there
            await again.audit()
    async with Rig(root, origin=rig.origin) as again:
        assert await again.get() == content(SIZE)
        assert again.origin.gets == calls


@pytest.mark.parametrize("harm", [symlink, hard_link])
async def test_what_a_link_leads_to_is_left_alone(tmp_path: Path, harm: Harm) -> None:
    """A link in the place of a file is removed. The file that it led to keeps its bytes."""
    aside = tmp_path / "aside"
    aside.mkdir()
    rig = await filled(tmp_path / "cache")
    harm(file_of(rig), aside)
    async with Rig(tmp_path / "cache", origin=rig.origin) as again:
        assert await again.get() == content(SIZE)
        await turns()
    assert (aside / "target").read_bytes() == WRONG
    assert (aside / "target").stat().st_nlink == 1


@each_row("harm", [harm for harm in HARMS if harm not in (swapped, linked_to_each_other)])
async def test_verify_finds_the_same_files(tmp_path: Path, harm: Harm) -> None:
    """`bucketfront verify` waits for no pipe, follows no link, and reports the file."""
    aside = tmp_path / "aside"
    aside.mkdir()
    rig = await filled(tmp_path / "cache")
    harm(file_of(rig), aside)
    damage = {
        finding.damage
        for finding in verify(tmp_path / "cache", BLOCK, repair=False).findings
        if finding.where == str(KEY)
    }
    assert damage == {Damage.CORRUPT if harm in (other_file, in_place, last_byte, holes) else Damage.GONE}


async def test_a_copied_folder_is_as_good(tmp_path: Path) -> None:
    """A restored copy has other inodes and times. Its bytes are verified and not fetched again."""
    rig = await filled(tmp_path / "cache")
    shutil.copytree(tmp_path / "cache", tmp_path / "copy", copy_function=shutil.copy)
    for file in (tmp_path / "copy" / "objects").glob("*/*"):
        file.chmod(0o644)
    calls = rig.origin.gets
    async with Rig(tmp_path / "copy", origin=rig.origin) as again:
        assert await again.get() == content(SIZE)
        assert await again.get(key=OTHER) == content(SIZE, seed=1)
        assert rig.origin.gets == calls
        assert {file.stat().st_mode & 0o777 for file in again.stored_files().values()} == {0o600}
        await again.audit()


async def test_a_block_is_verified_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request after a start reads each block once more. Later hits do not, also after the file was closed."""
    rig = await filled(tmp_path)
    async with Rig(tmp_path, origin=rig.origin, hot_limit=1) as again:
        verified: list[Span] = []
        checksums = again.store.checksums

        async def noted(file: StoredFile, span: Span, block_size: int) -> list[int | None]:
            verified.append(span)
            return await checksums(file, span, block_size)

        monkeypatch.setattr(again.store, "checksums", noted)
        assert await again.get(BLOCK, BLOCK + 5) == content(SIZE)[BLOCK : BLOCK + 5]
        assert verified == [Span(BLOCK, 2 * BLOCK)]
        assert await again.get() == content(SIZE)
        assert verified[1:] == [Span(0, BLOCK), Span(2 * BLOCK, SIZE)]
        verified.clear()
        assert await again.get() == content(SIZE)
        await again.flusher.flush()
        await again.get(key=OTHER)
        await again.flusher.flush()
        await again.assembly.open_files.cool()
        verified.clear()
        assert again.entries.hot(KEY) is None
        assert await again.get() == content(SIZE)
        assert verified == []
        assert again.origin.gets == rig.origin.gets
