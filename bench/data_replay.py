"""Replay the requests of programs that read data through the cache's door, over an origin that counts.

The cache is the product's, with its files in a temporary folder. Only the listener and the network are left out. The
origin has no bytes of its own, so that objects may be large, and waits a few turns of the event loop.
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from data_trace import DataTrace, Request

from bucketfront.cache import CacheOptions, Reader
from bucketfront.cache.assembly import CacheAssembly, assemble
from bucketfront.cache.clock import CacheClock, boottime
from bucketfront.cache.origin import NotModified, OriginResponse
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.file_storage import FileStorage
from bucketfront.cache.storage.index import Index
from bucketfront.config.cache_settings import CacheSettings
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import ObjectNotFound, RangeUnsatisfiable
from bucketfront.http import ranges
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.http.plan import RequestHead, plan
from bucketfront.http.ranges import FromTo, Span, Suffix
from bucketfront.keys import ObjectKey

PIECE_BYTES = 256 << 10  # of a body
LATENCY_TURNS = 20  # of the event loop
REST_TURNS = 50  # without a part fetch, after which none will begin
_FOREVER = Freshness(1e12)
_ZEROS = bytes(PIECE_BYTES)


@dataclass(slots=True)
class CountingOrigin:
    """Objects without content, by key. It counts requests, and the bytes that were taken of its responses."""

    sizes: dict[ObjectKey, int]
    sent: int = 0
    gets: int = 0
    heads: int = 0

    async def get(
        self,
        key: ObjectKey,
        part: FromTo | Suffix,
        *,
        if_match: str | None = None,  # noqa: ARG002 - there is one version
        if_none_match: str | None = None,  # noqa: ARG002
    ) -> OriginResponse | NotModified:
        self.gets += 1
        await _turns(LATENCY_TURNS)
        metadata = self._metadata(key)
        span = part.within(metadata.size)
        if span is None:
            raise RangeUnsatisfiable("no such range")
        return OriginResponse(metadata, span.start, span.stop, _Zeros(self, span.length))

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:  # noqa: ARG002
        self.heads += 1
        await _turns(LATENCY_TURNS)
        return self._metadata(key)

    def admit(self, key: ObjectKey, *, joins: bool) -> None:
        """Admit each client."""

    def _metadata(self, key: ObjectKey) -> Metadata:
        if key not in self.sizes:
            raise ObjectNotFound(f"{key}")
        return Metadata('"1-1"', self.sizes[key], "Sun, 06 Nov 1994 08:49:37 GMT")


class _Zeros:
    def __init__(self, origin: CountingOrigin, count: int) -> None:
        self._origin = origin
        self._left = count

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        data = _ZEROS[: self._left]
        self._left -= len(data)
        self._origin.sent += len(data)
        return data

    def close(self) -> None:
        """Do nothing, because there is no connection."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trace cost.

    `read` is the bytes that the program read, each once, and `blocks` those of the whole blocks around them. `sent` is
    the bytes that the origin sent, `unread` those of the blocks among them of which the program read no byte, and
    `requests` the requests that the origin got.
    """

    trace: DataTrace
    read: int
    blocks: int
    sent: int
    unread: int
    requests: int

    @property
    def ratio(self) -> float:
        """Return the bytes of the origin for each byte that was read."""
        return self.sent / self.read

    @property
    def ratio_of_blocks(self) -> float:
        """Return the bytes of the origin for each byte of the blocks that were needed."""
        return self.sent / self.blocks

    @property
    def requested(self) -> int:
        """Return how many requests the program itself sent."""
        return len(self.trace.requests)


@dataclass(slots=True)
class _Replay:
    trace: DataTrace
    assembly: CacheAssembly
    spans: dict[int, list[Span]] = field(default_factory=dict)
    ended: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for request in self.trace.requests:
                async with self.changed:
                    await self.changed.wait_for(lambda least=request.ended: self.ended >= least)  # type: ignore[misc]
                group.create_task(self._serve(request))
        rest = 0
        while rest < REST_TURNS:
            rest = 0 if self.assembly.fetch_context.stats.running else rest + 1
            await asyncio.sleep(0)

    async def _serve(self, request: Request) -> None:
        header = None if request.range is None else f"bytes={request.range}"
        found = await self.assembly.cache.lookup(
            key_of(request.object), wants_body=request.method == "GET", part=ranges.requested(header)
        )
        if isinstance(found, Reader):
            with found:
                response = plan(RequestHead(request.method, range=header), found.metadata, time.time())
                for span in response.spans:
                    self.spans.setdefault(request.object, []).append(span)
                    found.expect(span, response.demand)
                    offset = span.start
                    while offset < span.stop:
                        upto = await found.readable(offset)
                        found.note_sent(Span(offset, upto))
                        offset = upto
        async with self.changed:
            self.ended += 1
            self.changed.notify_all()


async def replayed(trace: DataTrace, block_size: int = CacheSettings().block_size) -> Outcome:
    """Replay a trace over an empty cache."""
    sizes = {key_of(number): size for number, size in enumerate(trace.sizes) if size is not None}
    origin = CountingOrigin(sizes)
    with tempfile.TemporaryDirectory() as folder:
        assembly = _open(Path(folder), origin, block_size)
        replay = _Replay(trace, assembly)
        try:
            await replay.run()
            unread = sum(
                blocks.byte_count(entry.unread & entry.present, entry.metadata.size, block_size)
                for entry in assembly.entries.hot_entries()
            )
        finally:
            await assembly.close()
            assembly.store.close()
    read = sum(_union(spans) for spans in replay.spans.values())
    whole = sum(_whole_blocks(spans, trace.sizes[number] or 0, block_size) for number, spans in replay.spans.items())
    return Outcome(trace, read, whole, origin.sent, unread, origin.gets + origin.heads)


def key_of(number: int) -> ObjectKey:
    return ObjectKey("data", str(number))


def _open(folder: Path, origin: CountingOrigin, block_size: int) -> CacheAssembly:
    cache, remote = CacheSettings(), OriginSettings()
    store = FileStorage(folder, time.monotonic)
    store.open()
    index = Index(folder / "index.db", "replay", block_size=block_size)
    index.open()
    options = CacheOptions(
        max_size=cache.max_size, block_size=block_size, part_size=remote.part_size,
        parallel_parts=remote.parallel_parts, read_ahead_limit=remote.max_connections * 3 // 4,
        read_ahead_max=cache.read_ahead_max, hot_limit=1000, memory=0, policy=lambda *_: _FOREVER,
        negative_ttl=lambda _: 1e6, idle_timeout=1e6, reader_timeout=60.0, min_free=lambda _: 0,
        after_disconnect=cache.after_disconnect,
    )  # fmt: skip
    return assemble(origin, store, index, CacheClock(time.time, boottime, index.newest_access()), options)


def _union(spans: list[Span]) -> int:
    """Return how many bytes lie in at least one of the spans."""
    count = reached = 0
    for span in sorted(spans, key=lambda one: one.start):
        count += max(0, span.stop - max(span.start, reached))
        reached = max(reached, span.stop)
    return count


def _whole_blocks(spans: list[Span], size: int, block_size: int) -> int:
    needed = 0
    for span in spans:
        needed |= blocks.mask(blocks.covering(span, block_size))
    return blocks.byte_count(needed, size, block_size)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
