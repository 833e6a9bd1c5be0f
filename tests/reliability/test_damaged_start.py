"""A start on a million entries of which some are damaged."""

import asyncio
import json
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import chaos_content
import pytest
from chaos_client import ChaosClient
from chaos_origin import VERSION_HEADER
from evidence import Evidence
from history import bytes_checked, violations
from origin_process import OriginProcess
from proxy_process import FreshStarts, Running
from runs import configuration
from stopwatch import on_this_machine
from wire import fetch

from bucketfront.cache.storage.boot import boot_id
from bucketfront.cache.storage.index import Index

sys.path.append(str(Path(__file__).parents[2] / "bench"))
import scale_folder

ENTRIES = 1_000_000
DAMAGED = ENTRIES // 100
CHECKED, SOAK_CHECKED = 1_000, DAMAGED  # damaged entries to request, and as many sound ones
BLOCK = 64 << 10
SIZE = 20_000
START_TIMEOUT_S = 2.0  # seconds from the start of the command (I14)
STARTS = 8  # at most: the quickest start counts, because another process may delay one
CLIENTS = 8
NAMES = {True: "damaged", False: "sound"}


@pytest.fixture
def origin() -> Iterator[OriginProcess]:
    with OriginProcess() as process:
        yield process


def key_of(number: int) -> str:
    return f"{NAMES[number < DAMAGED]}/{number}"


def version_of(number: int) -> int:
    """Return the version's number. The origin numbers all versions in the order in which they were stored."""
    return number + 1


def content_of(number: int) -> bytes:
    return chaos_content.read(key_of(number), version_of(number), 0, SIZE)


def rows(origin: OriginProcess, now: float) -> Iterator[tuple[object, ...]]:
    dates = origin.call("last_modified")
    for number in range(ENTRIES):
        key, file = key_of(number), scale_folder.file_of(number)
        etag = chaos_content.etag(key, version_of(number), SIZE) if number < 2 * DAMAGED else f'"{number}"'
        headers = [[VERSION_HEADER, str(version_of(number))]]
        metadata = json.dumps(
            {
                "last_modified": dates.get(key),
                "headers": headers,
                "age": 0,
                "version": None,
                "checksum": None,
                "opaque_etag": False,
            }
        )
        yield (
            number + 1, origin.endpoint_url, origin.bucket, key.encode(), file, etag, SIZE, metadata,
            now, now, now, scale_folder.CHARGED,
        )  # fmt: skip


def pages() -> Iterator[tuple[int, bytes, bytes]]:
    present = (1).to_bytes(32, "little")
    for number in range(ENTRIES):
        is_kept = number < 2 * DAMAGED
        checksum = zlib.crc32(content_of(number)) if is_kept else 1
        yield number + 1, present, checksum.to_bytes(4, "little")


def damage(folder: Path, number: int) -> None:
    """Damage each file in one of eight ways, in turn."""
    path = _path(folder, number)
    data = path.read_bytes()
    at = number * 7919 % SIZE
    match number % 8:
        case 0:
            path.write_bytes(data[:at] + bytes((data[at] ^ 0x10,)) + data[at + 1 :])
        case 1:
            path.write_bytes(data[:4096] + bytes(4096) + data[8192:])
        case 2:
            os.truncate(path, at)
        case 3:
            os.truncate(path, SIZE + 1)
        case 4:
            path.unlink()
        case 5:
            path.write_bytes(bytes(SIZE))
        case 6:
            path.write_bytes(chaos_content.read(key_of(number), ENTRIES, 0, SIZE))  # a version that never existed
        case 7:
            other = _path(folder, number - 1)  # two files in exchanged places
            mine = other.read_bytes()
            other.write_bytes(data)
            path.write_bytes(mine)


def _path(folder: Path, number: int) -> Path:
    name = scale_folder.file_of(number)
    return folder / "objects" / name[-2:] / name


def make(folder: Path, origin: OriginProcess) -> None:
    """Make a folder as a kill leaves it, without the mark of a clean stop."""
    index = Index(folder / "index.db", origin.endpoint_url, block_size=BLOCK, boot=boot_id())
    folder.mkdir()
    index.open()
    index.abandon()
    scale_folder.fill(folder, rows(origin, time.time()), pages(), ENTRIES, ENTRIES * scale_folder.CHARGED)
    for number in range(2 * DAMAGED):
        _path(folder, number).write_bytes(content_of(number))
    for number in range(DAMAGED):
        damage(folder, number)
    with closing(sqlite3.connect(folder / "index.db")) as database, database:
        database.execute("UPDATE state SET value = 0 WHERE name = 'clean'")


async def test_a_million_entries_some_damaged(
    tmp_path: Path, origin: OriginProcess, is_soak: bool, evidence: Evidence
) -> None:
    """With 1,000,000 entries of which 1 % are damaged, the start takes less than 2 s. No wrong byte is served: exactly
    the damaged blocks are fetched again, within the request (I1, I2, I14, I15).
    """
    for number in range(2 * DAMAGED):
        assert origin.call("store", key_of(number), SIZE) == version_of(number)
    make(tmp_path / "cache", origin)
    cache = {"max_size": "1TiB", "block_size": BLOCK, "idle_timeout": "30d"}
    config = configuration(tmp_path, origin, cache=cache, freshness={"default_ttl": "30d"})
    starter = FreshStarts()
    ready: list[float] = []
    while not ready or (ready[-1] >= on_this_machine(START_TIMEOUT_S) and len(ready) < STARTS):
        await starter.kill()
        await starter.begin(config)
        running = await starter.ready()
        ready.append(running.ready_after)
    try:
        assert min(ready) < on_this_machine(START_TIMEOUT_S), f"ready after {ready} s"
        step = DAMAGED // (SOAK_CHECKED if is_soak else CHECKED)
        damaged, sound = range(0, DAMAGED, step), range(DAMAGED, 2 * DAMAGED, step)
        await read_all(running, origin, [*damaged, *sound], evidence)
        figures = json.loads((await fetch(running.admin_address, "/api/v1/stats")).body)
        found = figures["corrupt_blocks"] - sum(number % 8 not in (2, 3, 4) for number in damaged)
        assert 0 <= found <= figures["scrubbed_blocks"]  # on a slow machine the scrubber finds some more
        assert figures["flights"] == len(damaged)
    finally:
        await starter.kill()
    evidence.add("entries at the start", ENTRIES)
    evidence.add("of these damaged", DAMAGED)
    evidence.add("damaged ones asked for", len(damaged))
    evidence.add("quickest start, ms", round(min(ready) * 1000))


async def read_all(running: Running, origin: OriginProcess, numbers: list[int], evidence: Evidence) -> None:
    """Request each object once and check every byte."""
    clients = [ChaosClient(running.address, number) for number in range(CLIENTS)]
    left = iter(numbers)

    async def work(client: ChaosClient) -> None:
        for number in left:
            record = await client.get(key_of(number))
            assert (record.outcome, record.received) == ("done", SIZE), record
        await client.close()

    await asyncio.gather(*map(work, clients))
    records = [record for client in clients for record in client.records]
    assert len(records) == len(numbers)
    assert violations(records, origin.call("drain_history"), 0.0) == []
    evidence.add("bytes checked", bytes_checked(records))
