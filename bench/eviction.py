"""Replay traces through the eviction policies, and write docs/eviction.md: `make eviction`.

The replay drives the cache's own `EntryTable` with the product's policies. Only files and the network are left out.
libCacheSim simulates the same traces, as far as it is installed (`pip install -e '.[bench]'`), and Belady's algorithm
shows what a policy could reach that knew all later requests.
"""

import argparse
import heapq
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from traces import BLOCK, Request, Trace, traces

from bucketfront.cache.entries.budget import Budget
from bucketfront.cache.entries.entry import ENTRY_BYTES
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.entries.eviction import EvictionPolicy, KnownEntries, PolicyFactory
from bucketfront.cache.entries.lru_with_probation import LruWithProbation
from bucketfront.cache.entries.removals import Removals
from bucketfront.cache.entries.s3_fifo import S3Fifo
from bucketfront.cache.storage import blocks
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.storage import Region, StoredFile
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

PAGE = Path(__file__).parent.parent / "docs" / "eviction.md"
SIZES = (1, 3, 10, 30)  # percent of the bytes of all objects
LENGTH = 30_000
_FOREVER = Freshness(1e12)


@dataclass(slots=True)
class Hits:
    """The requests and bytes of a replay, and those of them that the cache had."""

    requests: int = 0
    bytes: int = 0
    hits: int = 0
    hit_bytes: int = 0

    def count(self, request: Request, *, is_hit: bool) -> None:
        self.requests += 1
        self.bytes += request.size
        if is_hit:
            self.hits += 1
            self.hit_bytes += request.size

    @property
    def ratio(self) -> float:
        return self.hits / self.requests

    @property
    def byte_ratio(self) -> float:
        return self.hit_bytes / self.bytes


def plain_lru(known: KnownEntries) -> EvictionPolicy:
    return known.recency


class Replay:
    """An entry table without files. Time advances by a second with each request."""

    def __init__(self, folder: Path, limit: int, policy: PolicyFactory) -> None:
        self._index = Index(folder / "index.db", "replay", block_size=BLOCK)
        self._index.open_in_memory()
        self._budget = Budget(limit)
        self.entries = EntryTable(
            self._index,
            self._budget,
            lambda *_: _FOREVER,
            block_size=BLOCK,
            hot_limit=1 << 62,
            removals=Removals(lambda: self._now),
            eviction=policy,
        )
        self.entries.open()
        self._now = 0.0

    def close(self) -> None:
        self._index.abandon()

    def request(self, request: Request) -> bool:
        """Serve one request for a whole object. Returns whether the cache had it."""
        self._now += 1
        key = ObjectKey("bucket", str(request.object))
        entry = self.entries.hot(key)  # all entries are in memory
        if entry is not None:
            self.entries.use(entry, self._now)
            return True
        if request.size <= self._budget.limit:
            self._store(key, request.size)
        return False

    def _store(self, key: ObjectKey, size: int) -> None:
        while (missing := size - self._budget.available) > 0:
            for victim in self.entries.evict(missing):
                self.entries.free_space(victim)
        entry = self.entries.create(key, Metadata('"1"', size - ENTRY_BYTES), self._now)
        self.entries.publish(entry)
        self._budget.take(size)
        sums = dict.fromkeys(range(blocks.block_count(size - ENTRY_BYTES, BLOCK)), 0)
        self.entries.attach_complete(entry, StoredFile("0" * 26, Region(-1, 0, 0)), sums, size)
        self.entries.touch(entry, self._now)


def replay(requests: Iterable[Request], limit: int, policy: PolicyFactory) -> Hits:
    found = Hits()
    with tempfile.TemporaryDirectory() as folder:
        made = Replay(Path(folder), limit, policy)
        try:
            for request in requests:
                found.count(request, is_hit=made.request(request))
        finally:
            made.close()
    return found


def belady(requests: tuple[Request, ...], limit: int) -> Hits:
    """Remove what is requested again last. That is optimal for objects of one size, and close to it for others."""
    upcoming = [math.inf] * len(requests)
    latest: dict[int, int] = {}
    for at in reversed(range(len(requests))):
        upcoming[at] = latest.get(requests[at].object, math.inf)
        latest[requests[at].object] = at
    found, used = Hits(), 0
    cached: dict[int, tuple[float, int]] = {}  # the next request and the size
    order: list[tuple[float, int]] = []  # a heap, the last request first
    for at, request in enumerate(requests):
        is_hit = request.object in cached
        found.count(request, is_hit=is_hit)
        used += 0 if is_hit else request.size
        cached[request.object] = upcoming[at], request.size
        heapq.heappush(order, (-upcoming[at], request.object))
        while used > limit:
            when, name = heapq.heappop(order)
            if name in cached and cached[name][0] == -when:
                used -= cached.pop(name)[1]
    return found


def simulated(requests: Iterable[Request], limit: int, algorithm: str) -> Hits | None:
    """Return what libCacheSim's `LRU` or `S3FIFO` reaches. Returns None if it is not installed."""
    try:
        import libcachesim  # noqa: PLC0415 - optional
    except ImportError:
        return None
    cache = getattr(libcachesim, algorithm)(limit, hashpower=16)
    found = Hits()
    wanted = libcachesim.Request()
    for request in requests:
        wanted.obj_id, wanted.obj_size = request.object, request.size
        found.count(request, is_hit=cache.get(wanted))
    return found


RUNS: dict[str, Callable[[tuple[Request, ...], int], Hits | None]] = {
    "plain LRU": lambda requests, limit: replay(requests, limit, plain_lru),
    "`lru`": lambda requests, limit: replay(requests, limit, LruWithProbation),
    "`s3-fifo`": lambda requests, limit: replay(requests, limit, S3Fifo),
    "libCacheSim LRU": lambda requests, limit: simulated(requests, limit, "LRU"),
    "libCacheSim S3FIFO": lambda requests, limit: simulated(requests, limit, "S3FIFO"),
    "Belady": belady,
}


def table(trace: Trace, sizes: Iterable[int]) -> list[str]:
    """Return the lines of a trace's table: hit ratios by requests and by bytes."""
    lines = [f"| cache | {' | '.join(RUNS)} |", f"|---|{'---|' * len(RUNS)}"]
    for percent in sizes:
        limit = trace.footprint * percent // 100
        cells = [_cell(run(trace.requests, limit)) for run in RUNS.values()]
        lines.append(f"| {percent} % | {' | '.join(cells)} |")
        print(trace.name, lines[-1], flush=True)
    return lines


def _cell(found: Hits | None) -> str:
    return "not run" if found is None else f"{100 * found.ratio:.1f} / {100 * found.byte_ratio:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay traces through the eviction policies; write docs/eviction.md.")
    parser.add_argument("--length", type=int, default=LENGTH, help="requests of one trace")
    parser.add_argument("--only", help="print the figures of one trace, and write nothing")
    options = parser.parse_args()
    began = time.monotonic()
    sections = []
    for trace in traces(options.length):
        if options.only in (None, trace.name):
            heading = f"{trace.what[0].upper()}{trace.what[1:]}: {len(trace.requests)} requests"
            lines = table(trace, SIZES)
            sections.append("\n".join((f"### {trace.name}", "", f"{heading}.", "", *lines)))
    if options.only is None:
        begin, end = "<!-- figures: make eviction -->\n", "<!-- end of figures -->"
        before, rest = PAGE.read_text().split(begin)
        PAGE.write_text(before + begin + "\n" + "\n\n".join(sections) + "\n\n" + end + rest.split(end)[1])
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
