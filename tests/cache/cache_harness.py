"""A cache in one process, over an origin whose responses wait, break and change as a test decides.

There are no threads, and no time passes. `Turns` replaces the threads of the disk and the index. It runs their work in
the event loop, some turns later, so that the same seed gives the same interleaving.
"""

import asyncio
import os
import random
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

from fake_origin import BLOCK, KEY, FakeOrigin
from fakes import FakeClock

from bucketfront.cache.assembly import CacheOptions, assemble
from bucketfront.cache.entries.entry import ENTRY_BYTES, Entry
from bucketfront.cache.entries.entry_table import FreshnessOf
from bucketfront.cache.fetch import body_stream
from bucketfront.cache.fetch.fill import Fill
from bucketfront.cache.lookup_flow import Absent
from bucketfront.cache.reader import Reader
from bucketfront.cache.scrubber import Scrubber
from bucketfront.cache.storage.file_storage import FileStorage
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.storage import Storage, StoredFile
from bucketfront.config.cache_settings import CacheSettings
from bucketfront.errors import (
    StoreError,
)
from bucketfront.http import freshness
from bucketfront.http.cache_tags import TagFields
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Demand, FromTo, Span, Suffix
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget

P = ParamSpec("P")
T = TypeVar("T")

PART = 4 * BLOCK
NEVER = 1e6  # seconds
MANY = 1_000_000  # tokens of a retry budget that does not limit a test
TAG_FIELDS = TagFields(CacheSettings().tag_headers)
TURNS = 300  # more turns of the loop than any chain of work in these tests takes


async def turns(count: int = TURNS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Turns(Executor):
    """Runs work in the event loop a few turns after it was submitted, with `in_order` in the order of submission."""

    def __init__(self, chance: random.Random, *, in_order: bool = False) -> None:
        self._chance = chance
        self._in_order = in_order
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        done: Future[T] = Future()
        if self._in_order:
            self._queue.append((done, lambda: call(*args, **kwargs)))
            self._after(self._chance.randrange(4), self._next)
        else:
            self._after(self._chance.randrange(4), lambda: _settle(done, lambda: call(*args, **kwargs)))
        return done

    def _after(self, count: int, call: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        if count:
            loop.call_soon(self._after, count - 1, call)
        else:
            loop.call_soon(call)

    def _next(self) -> None:
        _settle(*self._queue.popleft())


def _settle(done: "Future[Any]", call: Callable[[], Any]) -> None:
    try:
        result = call()
    except Exception as error:  # noqa: BLE001 - the waiter gets it
        done.set_exception(error)
    else:
        done.set_result(result)


class WatchedStore(FileStorage):
    """A disk that keeps a list of its writes, and fails if a test wants it."""

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        super().__init__(root, clock)
        self.writes: list[tuple[int, int]] = []
        self.errors: deque[OSError | None] = deque()  # raised by the next writes, one each
        self.hold: asyncio.Event | None = None  # writes wait for it

    async def write(
        self, file: StoredFile, offset: int, data: bytes | memoryview, checksum: int, block_size: int
    ) -> list[int]:
        error = self.errors.popleft() if self.errors else None
        if error is not None:

            def fail() -> None:
                raise error

            await self._run(fail)
        if self.hold is not None:
            await self.hold.wait()
        self.writes.append((offset, offset + len(data)))
        return await super().write(file, offset, data, checksum, block_size)


class WeightlessIndex(Index):
    """An index that takes no space, because it would be larger than the caches of these tests."""

    async def space(self) -> int:
        return 0


def steady(ttl: float = 60.0, revalidate: float = 0.0, error: float = 0.0, outage: float = 0.0) -> FreshnessOf:
    """Return the freshness policy that production has, with these defaults, in seconds."""

    def policy(_: ObjectKey, metadata: Metadata, now: float) -> freshness.Freshness:
        return freshness.policy(metadata, freshness.Defaults(ttl, revalidate, error, outage), now)

    return policy


def fill_of(entry: Entry) -> Fill | None:
    """Return the entry's fill, None if nothing of it was fetched yet."""
    fill = entry.fill
    assert fill is None or isinstance(fill, Fill)
    return fill


class Rig:
    """A cache over a fake origin, without its upkeep tasks. As a context manager it is closed cleanly at the end."""

    def __init__(
        self,
        root: Path,
        *,
        origin: FakeOrigin | None = None,
        seed: int = 0,
        max_size: int = 1 << 30,
        parallel_parts: int = 3,
        read_ahead_limit: int = 8,
        read_ahead_max: int = 1 << 30,
        after_disconnect: Literal["finish", "stop", "auto"] = "finish",
        policy: FreshnessOf | None = None,
        negative_ttl: float = 10.0,
        idle_timeout: float = 3600.0,
        memory: int = 1 << 20,
        hot_limit: int = 64,
        reader_timeout: float = 20.0,
        clock: FakeClock | None = None,
        has_threads: bool = False,
        is_durable: bool = False,
        boot: int = 1,
        hedge_after: float = NEVER,
        storage: Storage | None = None,
        min_free: Callable[[int], int] = lambda _: 0,
        eviction: Literal["lru", "s3-fifo"] = "lru",
        retries: RetryBudget | None = None,
        hedges: RetryBudget | None = None,
    ) -> None:
        self.root = root
        self.chance = random.Random(seed)
        self.origin = origin or FakeOrigin(self.chance)
        self.wall = clock or FakeClock(1_700_000_000.0)
        self.monotonic = FakeClock(50.0)
        self.store = WatchedStore(root, self.monotonic)
        self.index = WeightlessIndex(
            root / "index.db", origin="fake", block_size=BLOCK, is_durable=is_durable, boot=boot,
            started_at=self.wall(), tag_fields=TAG_FIELDS,
        )  # fmt: skip
        self._open(has_threads=has_threads)
        options = CacheOptions(
            max_size=max_size, block_size=BLOCK, part_size=PART, parallel_parts=parallel_parts,
            read_ahead_limit=read_ahead_limit, read_ahead_max=read_ahead_max, hot_limit=hot_limit, memory=memory,
            policy=policy or steady(),
            negative_ttl=lambda _: negative_ttl, idle_timeout=idle_timeout, reader_timeout=reader_timeout,
            min_free=min_free, after_disconnect=after_disconnect, is_durable=is_durable,
            eviction=eviction, tag_fields=TAG_FIELDS,
        )  # fmt: skip
        self.assembly = assemble(
            self.origin, self.store, self.index, self.wall, options, storage=storage,
            retries=retries or RetryBudget(MANY), hedges=hedges or RetryBudget(MANY), monotonic=self.monotonic,
        )  # fmt: skip
        self.cache = self.assembly.cache
        self.entries = self.assembly.entries
        self.budget = self.entries.budget
        self.stats = self.assembly.fetch_context.stats
        self.lookups = self.assembly.lookups
        self.flusher = self.assembly.flusher
        self.space = self.assembly.space
        self.housekeeper = self.assembly.housekeeper
        self.complaints: list[dict[str, Any]] = []  # exceptions that asyncio logs because they were never retrieved
        self._is_closed = False
        self._hedge_after = hedge_after

    def _open(self, *, has_threads: bool) -> None:
        """Open the files. Without threads their work runs in the event loop."""
        self.store.open()
        self.index.open()
        if not has_threads:
            self.store._threads = self.store._scrubbing = self.store._reading = Turns(self.chance)  # type: ignore[assignment]
            self.store._writing = [Turns(self.chance, in_order=True)]  # type: ignore[list-item]
            self.index._thread = Turns(self.chance, in_order=True)  # type: ignore[assignment]

    async def __aenter__(self) -> Self:
        self._constants = body_stream.RETRY_PAUSE_S, body_stream.HEDGE_AFTER_S
        # Retries at once; the number of them is the same. Hedges at once or never.
        body_stream.RETRY_PAUSE_S, body_stream.HEDGE_AFTER_S = 0.0, self._hedge_after
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.complaints.append(context))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_closed:
            if error is None:
                await self.close()
            else:
                self.abandon()
        body_stream.RETRY_PAUSE_S, body_stream.HEDGE_AFTER_S = self._constants

    async def close(self) -> None:
        """Stop cleanly. Nothing is open afterwards."""
        self._is_closed = True
        await self.assembly.close()
        await turns()
        self.store.close()
        assert self.open_files() == []
        assert others() == set()
        assert self.complaints == []

    def abandon(self) -> None:
        """Stop as `kill -9` does, with no further write to the index. Call it at rest."""
        self._is_closed = True
        for entry in self.entries.close():
            if entry.file is not None:
                os.close(entry.file.region.fd)
        self.index.abandon()
        self.store.close()

    # --- requests ------------------------------------------------------------------------------------------

    async def reader(
        self, key: ObjectKey = KEY, part: FromTo | Suffix | None = None, *, wants_body: bool = True
    ) -> Reader:
        found = await self.cache.lookup(key, wants_body=wants_body, part=part)
        assert isinstance(found, Reader), found
        return found

    async def get(self, start: int = 0, stop: int | None = None, key: ObjectKey = KEY) -> bytes:
        """Return what a client gets for `bytes=start-`, or for the whole object."""
        part = FromTo(start, stop) if start or stop else None
        with await self.reader(key, part) as reader:
            return await self.read(reader, start, stop, demand=Demand.WHOLE if part is None else None)

    async def read(
        self, reader: Reader, start: int = 0, stop: int | None = None, *, demand: Demand | None = None
    ) -> bytes:
        """Read as `server/send/sender.py` does: from the file, and straight from the origin if the disk fails."""
        span = Span(start, reader.metadata.size if stop is None else min(stop, reader.metadata.size))
        reader.expect(span, demand or (Demand.OPEN if stop is None else Demand.BOUNDED))
        got = bytearray()
        offset = span.start
        while offset < span.stop:
            try:
                upto = await reader.readable(offset)
            except StoreError:
                chunks = reader.stream(Span(offset, span.stop))
                async for chunk in chunks:
                    got += chunk
                break
            await self.origin.pause()
            assert reader.region is not None
            got += os.pread(reader.region.fd, upto - offset, reader.region.offset + offset)
            offset = upto
        return bytes(got)

    def scrubber(self, slept: list[float] | None = None) -> Scrubber:
        """Return the cache's scrubber. It appends its pauses to `slept` and does not sleep."""

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(0)
            if slept is not None:
                slept.append(seconds)

        self.assembly.scrubber._sleep = sleep
        return self.assembly.scrubber

    async def is_absent(self, key: ObjectKey = KEY) -> bool:
        found = await self.cache.lookup(key, wants_body=True)
        if isinstance(found, Reader):
            found.close()
        return isinstance(found, Absent)

    def entry(self, key: ObjectKey = KEY) -> Entry:
        found = self.entries.get(key)
        assert found is not None
        return found

    # --- checking ------------------------------------------------------------------------------------------

    def open_files(self) -> list[str]:
        """Return the names of this cache's objects that are open, once for each descriptor."""
        found = []
        for descriptor in Path("/proc/self/fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except FileNotFoundError:
                continue  # a descriptor of the listing itself
            if target.startswith(str(self.root / "objects") + "/"):
                found.append(target)
        return found

    def stored_files(self) -> dict[str, Path]:
        return {path.name: path for path in (self.root / "objects").glob("*/*")}

    async def audit(self, *, begun: int = 0) -> None:
        """Check the invariants of a cache at rest: I12, I17, and that memory, index and disk agree.

        `begun` bytes of an entry may be charged for blocks that a failure left unfinished, or empty.
        """
        await turns()
        assert others() == set(), "tasks at rest"
        assert self.origin.bodies == 0, "bodies not closed"
        assert self.stats.running == 0
        assert self.complaints == []
        hot = list(self.entries.hot_entries())
        assert [entry for entry in hot if entry.pins] == []
        assert len(self.open_files()) == sum(entry.file is not None for entry in hot)
        await self.flusher.flush()
        rows = self.rows()
        assert len(rows) == len(self.entries)
        assert sum(row["bytes"] for row in rows) == self.budget.used, "bytes charged and bytes of the entries"
        ids = {entry.id for entry in hot}
        assert self.entries._cold_bytes == sum(row["bytes"] for row in rows if row["id"] not in ids)
        files = self.stored_files()
        assert sorted(files) == sorted(row["file"] for row in rows)
        for row in rows:
            on_disk = files[row["file"]].stat().st_blocks * 512
            spare = row["bytes"] - on_disk
            # The file system may need a block for the map of a file with many holes; the overhead covers it.
            assert 0 <= spare <= ENTRY_BYTES + begun, (
                f"{row['key']} takes {on_disk} bytes and is charged {row['bytes']}"
            )

    def rows(self) -> list[sqlite3.Row]:
        with sqlite3.connect(self.root / "index.db") as database:
            database.row_factory = sqlite3.Row
            found = database.execute("SELECT * FROM entries").fetchall()
        database.close()
        return found

    def check_readable(self, entry: Entry, data: bytes) -> None:
        """Check that every readable byte is the object's (I2)."""
        fill = fill_of(entry)
        if entry.file is None or fill is None:
            return
        for offset in range(0, len(data), BLOCK // 2):
            upto = fill.readable(offset, len(data))
            assert os.pread(entry.file.region.fd, upto - offset, offset) == data[offset:upto]


def others() -> "set[asyncio.Task[Any]]":
    return asyncio.all_tasks() - {task for task in (asyncio.current_task(),) if task}


def runs(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans where they touch. Fails if two overlap, because then a byte was read or written twice (I10)."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start < joined[-1][1]:
            raise AssertionError(f"{start}-{stop} overlaps {joined[-1]}")
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
