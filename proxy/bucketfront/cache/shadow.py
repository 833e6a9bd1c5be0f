"""The comparison of what the cache would have served with what S3 sends, for `cache.mode: shadow`.

Theory of operation
-------------------
`Bypass` serves the client from S3. Beside it, a task looks the object up in the cache, as the request would have,
and reads the same bytes there, so that the cache fills, revalidates and evicts as ever. The direct response leaves a
CRC-32 of each stretch that it sends, at most MAX_STRETCHES of one response. The task compares those with its own.

Two versions may differ and both be right: within the lifetime the cache may serve an older one, and the object may
change between the two requests. `_of_versions` tells those apart from a version that the cache must not serve.

The client never waits for the task. What the task lags behind when the response has ended is bounded by LAG_TIMEOUT_S.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from zlib_ng import zlib_ng

from bucketfront.cache.clock import Clock
from bucketfront.cache.lookup_flow import Absent, LookupFlow
from bucketfront.cache.reader import Reader
from bucketfront.errors import ObjectChanged, ProxyError, StoreError
from bucketfront.fair_share import acting_for
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Span, Suffix
from bucketfront.keys import ObjectKey
from bucketfront.task_set import TaskSet

MAX_AT_ONCE = 256  # comparisons; each takes 40 KB at most, beside the buffers of the fill that it reads
MAX_STRETCHES = 256  # of one response
MIN_STRETCH_BYTES = 64 << 10
READ_BYTES = 256 << 10  # of the cache at once
LAG_TIMEOUT_S = 60.0  # for the rest of a comparison, once the client has its response
MAX_DIFFERENCES = 20  # that are remembered
REPORT_INTERVAL_S = 10.0  # between two lines of the log about one kind

LookUp = Callable[[], Awaitable[Reader | Absent]]

log = logging.getLogger(__name__)


class Verdict(StrEnum):
    """What one comparison found. The values are labels of a metric."""

    SAME = "same"
    STALE = "stale"  # the cache would have served an older version, within its lifetime
    CHANGED = "changed"  # the object changed between the two requests
    OUTDATED = "outdated"  # the cache would have served an older version, past its lifetime
    HEADERS = "headers"  # the same version with other headers
    BYTES = "bytes"  # the same version with other bytes
    UNSTORED = "unstored"  # the cache would have sent S3's bytes as well, because it does not store the object
    FAILED = "failed"  # the cache would have failed
    SKIPPED = "skipped"  # S3 failed, the client left before the first byte, or too much was being compared


WRONG = frozenset({Verdict.OUTDATED, Verdict.HEADERS, Verdict.BYTES})


@dataclass(frozen=True, slots=True)
class Difference:
    """A response that the cache would have served wrongly. `at` is in seconds since the epoch, by the cache's clock."""

    verdict: Verdict
    key: ObjectKey
    text: str
    at: float


class Shadow:
    """Compares, and counts the verdicts. `clock` is the cache's clock. It belongs to the event loop."""

    def __init__(self, lookups: LookupFlow, clock: Clock) -> None:
        self._lookups = lookups
        self._clock = clock
        self._tasks = TaskSet()
        self.counts = dict.fromkeys(Verdict, 0)
        self.differences: deque[Difference] = deque(maxlen=MAX_DIFFERENCES)
        self._reported: dict[Verdict, tuple[float, int]] = {}  # the time of the last line, and how many came since

    def begin(
        self, key: ObjectKey, part: FromTo | Suffix | None, *, wants_body: bool, revalidate: bool
    ) -> "Comparison | None":
        """Let the cache do what it would do for a request. Returns None if too many are being compared."""
        if len(self._tasks) >= MAX_AT_ONCE:
            self.counts[Verdict.SKIPPED] += 1
            return None
        comparison = Comparison(key, self._clock())
        look_up = partial(self._lookups.lookup, key, wants_body=wants_body, part=part, revalidate=revalidate)
        comparison.task = self._tasks.start(self._compare(comparison, look_up), name=f"shadow of {key}")
        return comparison

    async def close(self) -> None:
        """End all comparisons."""
        await self._tasks.close()

    async def wait(self) -> None:
        """Wait until all comparisons have ended."""
        await self._tasks.wait()

    async def _compare(self, comparison: "Comparison", look_up: LookUp) -> None:
        text = ""
        verdict = Verdict.FAILED
        try:
            with acting_for(None):  # the client has its share of S3 for the direct read
                verdict, text = await comparison.run(look_up)
        except ObjectChanged:
            verdict = Verdict.CHANGED
        except (ProxyError, TimeoutError, EOFError) as error:
            log.info("%s: the cache would have failed: %s", comparison.key, error)
        except asyncio.CancelledError:
            if not comparison.is_overdue:
                raise
        self.counts[verdict] += 1
        if verdict in WRONG:
            self.differences.append(Difference(verdict, comparison.key, text, self._clock()))
            self._report(verdict, f"{comparison.key}: {text}")

    def _report(self, verdict: Verdict, text: str) -> None:
        now = asyncio.get_running_loop().time()
        at, count = self._reported.get(verdict, (-REPORT_INTERVAL_S, 0))
        if now - at < REPORT_INTERVAL_S:
            self._reported[verdict] = at, count + 1
            return
        self._reported[verdict] = now, 0
        more = f"; {count} more of this kind since the last line" if count else ""
        log.error("shadow: the cache would have served other %s than S3: %s%s", verdict, text, more)


class Comparison:
    """One response of S3, and the same from the cache. `began` is when the request came, by the cache's clock."""

    def __init__(self, key: ObjectKey, began: float) -> None:
        self.key = key
        self.task: asyncio.Task[None]
        self.is_overdue = False
        self._began = began
        loop = asyncio.get_running_loop()
        self._direct: asyncio.Future[Metadata | None] = loop.create_future()
        self._stretches = _Stretches()

    # --- the direct response ---------------------------------------------------------------------------------

    def respond(self, metadata: Metadata | None) -> None:
        """Note what S3 has, None for a 404."""
        if not self._direct.done():
            self._direct.set_result(metadata)

    def note(self, span: Span, at: int, data: bytes) -> None:
        """Note the bytes at `at`, of a span that is sent in order."""
        self._stretches.add(span, at, data)

    def end(self) -> None:
        """Note that the direct response has ended, or that there was none."""
        self._direct.cancel()
        self._stretches.end()
        if not self.task.done():
            overdue = asyncio.get_running_loop().call_later(LAG_TIMEOUT_S, self._give_up)
            self.task.add_done_callback(lambda _: overdue.cancel())

    def _give_up(self) -> None:
        self.is_overdue = True
        self.task.cancel()

    # --- the cache -------------------------------------------------------------------------------------------

    async def run(self, look_up: LookUp) -> tuple[Verdict, str]:
        """Return what the comparison found, with the place of a difference. Raises what the cache raises."""
        found = await look_up()
        if isinstance(found, Absent):
            return await self._compare_versions(None, None, is_forwarded=not found.status.hit)
        with found as reader:
            is_forwarded = not reader.status.hit and reader.failure is None
            verdict, text = await self._compare_versions(reader.metadata, reader, is_forwarded=is_forwarded)
            if verdict is not Verdict.SAME:
                return verdict, text
            if reader.region is None and self._stretches.has_any:
                return Verdict.UNSTORED, ""
            return await self._compare_bytes(reader)

    async def _compare_versions(
        self, cached: Metadata | None, reader: Reader | None, *, is_forwarded: bool
    ) -> tuple[Verdict, str]:
        # The entry may be validated anew while this waits.
        was_validated = None if reader is None else reader.validated_at
        lifetime = None if reader is None else reader.lifetime
        try:
            direct = await asyncio.shield(self._direct)
        except asyncio.CancelledError:
            if not self._direct.cancelled():
                raise
            return Verdict.SKIPPED, ""
        if (verdict := _of_same(cached, direct)) is not None:
            return verdict, "" if verdict is Verdict.SAME else _headers_of(cached, direct)
        if is_forwarded:
            return Verdict.CHANGED, ""
        # A hit of a remembered 404 has a lifetime as well, by which the negative cache goes.
        age = 0.0 if was_validated is None else self._began - was_validated
        if lifetime is None or age < lifetime:
            return Verdict.STALE, ""
        return Verdict.OUTDATED, f"the cache has {_name(cached)}, validated {age:.0f} s ago; S3 has {_name(direct)}"

    async def _compare_bytes(self, reader: Reader) -> tuple[Verdict, str]:
        announced: Span | None = None
        while (stretch := await self._stretches.next()) is not None:
            if stretch.of is not announced:
                announced = stretch.of
                reader.expect(announced)
            checksum = 0
            at = stretch.span.start
            while at < stretch.span.stop:
                try:
                    upto = await reader.readable(at)
                    piece = Span(at, min(upto, stretch.span.stop, at + READ_BYTES))
                    data = await reader.read(piece)
                except StoreError:  # the cache would have gone on without the disk
                    return Verdict.UNSTORED, ""
                checksum = zlib_ng.crc32(data, checksum)
                at = piece.stop
            if checksum != stretch.checksum:
                where = f"bytes {stretch.span.start}-{stretch.span.stop - 1}"
                return Verdict.BYTES, f"{where} of {_name(reader.metadata)} have another CRC-32"
        return Verdict.SAME, ""


def _of_same(cached: Metadata | None, direct: Metadata | None) -> Verdict | None:
    """Return SAME or HEADERS if both are of the same version. Returns None if they are not."""
    if cached is None or direct is None:
        return Verdict.SAME if cached is direct else None
    if not cached.is_version(direct):
        return None
    return Verdict.SAME if cached.headers == direct.headers else Verdict.HEADERS


def _headers_of(cached: Metadata | None, direct: Metadata | None) -> str:
    assert cached is not None
    assert direct is not None
    names = sorted({name for name, _ in {*cached.headers} ^ {*direct.headers}})
    return f"{', '.join(names)} of {_name(cached)}"


def _name(metadata: Metadata | None) -> str:
    return "no such object" if metadata is None else f"{metadata.etag} of {metadata.last_modified}"


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Bytes that were sent with their checksum. `of` is the span of the response that they belong to."""

    span: Span
    of: Span
    checksum: int


class _Stretches:
    """The checksums of what is sent, for the comparison that follows it."""

    def __init__(self) -> None:
        self._ready: deque[_Stretch] = deque()
        self._of: Span | None = None
        self._start = self._at = self._checksum = 0
        self._length = MIN_STRETCH_BYTES
        self._has_ended = False
        self._changed = asyncio.Event()

    @property
    def has_any(self) -> bool:
        return self._of is not None

    def add(self, span: Span, at: int, data: bytes) -> None:
        """Add the bytes at `at`, which follow those before, or begin a span."""
        if span is not self._of:
            self._flush()
            self._of, self._start, self._at = span, at, at
            self._length = max(MIN_STRETCH_BYTES, -(-span.length // MAX_STRETCHES))
        self._checksum = zlib_ng.crc32(data, self._checksum)
        self._at += len(data)
        if self._at - self._start >= self._length:
            self._flush()

    def end(self) -> None:
        self._flush()
        self._has_ended = True
        self._changed.set()

    async def next(self) -> _Stretch | None:
        """Return the next stretch, or None once the response has ended and all were returned."""
        while not self._ready:
            if self._has_ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._ready.popleft()

    def _flush(self) -> None:
        if self._of is not None and self._at > self._start:
            self._ready.append(_Stretch(Span(self._start, self._at), self._of, self._checksum))
            self._changed.set()
        self._start, self._checksum = self._at, 0


class ComparedReader(Reader):
    """The reader of a direct response, which hands its bytes to a comparison as well."""

    def __init__(self, *args: Any, comparison: Comparison) -> None:
        super().__init__(*args)
        self._comparison = comparison

    def stream(self, span: Span, *, continues: bool = False) -> AsyncGenerator[bytes, None]:
        return self._noted(span, super().stream(span, continues=continues))

    async def _noted(self, span: Span, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        at = span.start
        try:
            async for chunk in chunks:
                self._comparison.note(span, at, chunk)
                at += len(chunk)
                yield chunk
        finally:
            await chunks.aclose()

    def close(self) -> None:
        super().close()
        self._comparison.end()
