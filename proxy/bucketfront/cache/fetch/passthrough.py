"""Streams bytes straight from the origin, if the disk or the budget refuses them.

See docs/invariants.md#disk-faults-degrade.

Theory of operation
-------------------
A stream that waits for its client holds no origin connection. So a task reads ahead of the client into memory. It
requests one part of the bytes after another, with If-Match, and holds a connection only while it receives a part. A
part fits into the memory that the stream may use, so the task receives it at the origin's speed.

That alone would cost a request for each of those few bytes. A client that keeps pace with the origin gets longer parts,
by a share of what it has taken since it last kept the task waiting. If it stops within a longer part, the connection is
closed, and the bytes that were already on their way are lost. All that a stream may lose is a twentieth of what its
client requested (docs/invariants.md#single-flight).

The response of the lookup is the first part, so that its bytes do not come twice. The first stream takes it.

Bytes of a version without a strong ETag can only come from one response. Those of an origin without ranges should: each
request would send all bytes before the part again. Such a stream holds its connection to the end.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from http import HTTPStatus

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.fetch.body_stream import BodyStream
from bucketfront.cache.fetch.part_fetch import FetchContext
from bucketfront.cache.fetch.traffic import Cause, Waste
from bucketfront.cache.fetch.version import Version
from bucketfront.cache.origin import OriginResponse
from bucketfront.errors import OriginUnavailable
from bucketfront.http.ranges import Span

CLIENT_WAIT_S = 0.25  # of one part, in all: longer than the gaps of a client that reads all the time
LOST_SHARE = 20  # one byte in so many may be received twice: 1.05 of the bytes requested
GROWTH_SHARE = 4  # a part is longer by one byte in so many of what came: 1 GiB takes about 35 requests
MAX_AHEAD_BYTES = 1 << 20  # while few streams run: a request for each MiB costs a fast client little time
MIN_AHEAD_BYTES = 64 << 10  # while many do: together with MAX_PIECE_BYTES, 128 KiB (docs/invariants.md#memory)
ALL_AHEAD_BYTES = 16 << 20  # of all streams, as long as each may have its minimum
MAX_PIECE_BYTES = 64 << 10  # of the pieces that the client gets


async def stream(
    entry: Entry, span: Span, context: FetchContext, on_status: Callable[[int | None], None], *, continues: bool
) -> AsyncGenerator[bytes, None]:
    """Yield `span` of the entry's version, in order. Close the generator when done, because a task works for it.

    `on_status` gets the status of the origin's responses. `continues`: other bytes of the version were sent before.
    Without that, a version without a strong ETag is cut out of one response that has all of it.

    Raises ObjectChanged and the other OriginErrors.
    """
    passthrough = Passthrough(entry, span, context, on_status, continues=continues)
    task = context.tasks.start(passthrough.receive(), name=f"stream of {entry.key}")
    task.add_done_callback(passthrough.end)
    context.stats.streams += 1
    try:
        while piece := await passthrough.piece():
            yield piece
        if task.cancelled():
            raise OriginUnavailable(f"the stream of {entry.key} was stopped")
        task.result()
    finally:
        task.cancel()
        try:
            await asyncio.gather(task, return_exceptions=True)
        finally:
            context.stats.streams -= 1
            passthrough.drop()


@dataclass(frozen=True, slots=True)
class Spare:
    """The open response of a lookup, of an object that gets no file. The first stream of it takes the response."""

    response: OriginResponse

    def close(self) -> None:
        self.response.body.close()


def _taken_spare(entry: Entry, start: int) -> OriginResponse | None:
    """Return the entry's spare response if it has the byte at `start`. Otherwise close it."""
    spare, entry.spare = entry.spare, None
    if not isinstance(spare, Spare):
        return None
    if spare.response.start <= start < spare.response.stop:
        return spare.response
    spare.close()
    return None


class Passthrough:
    """The bytes of one stream, between the task that receives them and the client that takes them."""

    def __init__(
        self,
        entry: Entry,
        span: Span,
        context: FetchContext,
        on_status: Callable[[int | None], None],
        *,
        continues: bool,
    ) -> None:
        self._span = span
        self._context = context
        self._on_status = on_status
        size = entry.metadata.size
        self._is_one_response = not entry.metadata.is_strong
        start = 0 if self._is_one_response and not continues else span.start
        self._stop = size if self._is_one_response and not continues else span.stop
        response = _taken_spare(entry, start)
        self._part_stop = start if response is None else min(self._stop, response.stop)
        version = Version(entry, context.origin, context.replaced)
        account = context.traffic.of(entry.key)
        self._account = account
        self._body = BodyStream(
            version, context, start, lambda: self._part_stop, lambda _, count: account.add(Cause.PASS_THROUGH, count),
            response, on_wasted=account.waste,
        )  # fmt: skip
        self._pieces: deque[bytes] = deque()
        self._ahead = 0  # bytes in the pieces
        self._may_lose = span.length // LOST_SHARE  # bytes
        self._keeps_pace_since = start  # the offset from which on the client has not kept the task waiting
        self._waited = 0.0  # seconds for the client, since the latest part began
        self._has_more = asyncio.Event()  # pieces, or the end
        self._has_room = asyncio.Event()
        self._has_ended = False

    async def piece(self) -> bytes:
        """Return the next bytes for the client, or `b""` once `receive` has ended and all were returned."""
        while not self._pieces:
            if self._has_ended:
                return b""
            self._has_more.clear()
            await self._has_more.wait()
        piece = self._pieces.popleft()
        self._ahead -= len(piece)
        self._has_room.set()
        return piece

    def end(self, _: object) -> None:
        """Note that no more bytes come."""
        self._body.close()  # because a task that is cancelled before its first step never runs any of its own code
        self._has_ended = True
        self._has_more.set()

    def drop(self) -> None:
        """Count what the client did not take any more."""
        self._account.waste(Waste.UNREAD, self._ahead)

    async def receive(self) -> None:
        """Receive all bytes, part after part, as the client takes them. Raises as `stream`."""
        body = self._body
        try:
            while body.at < self._span.stop:
                if body.at == self._part_stop:
                    await self._begin_part()
                while data := await body.read():
                    self._on_status(body.status)
                    self._add(data)
                    if body.status == HTTPStatus.OK:  # an origin without ranges
                        self._is_one_response, self._part_stop = True, self._stop
                    if body.at < self._part_stop and not await self._wait_for_room(self._limit):
                        await self._pause()
                        break
                body.close()
        finally:
            body.close()

    @property
    def _limit(self) -> int:
        """Return how many bytes the stream may have in memory."""
        return max(MIN_AHEAD_BYTES, min(MAX_AHEAD_BYTES, ALL_AHEAD_BYTES // self._context.stats.streams))

    async def _begin_part(self) -> None:
        """Wait until there is room for a part, and decide where it ends."""
        if not await self._wait_for_room(self._limit // 2):
            await self._pause()
        self._waited = 0.0
        if self._is_one_response:
            self._part_stop = self._stop
        else:
            extra = min(self._may_lose, (self._body.at - self._keeps_pace_since) // GROWTH_SHARE)
            self._part_stop = min(self._stop, self._body.at + self._limit - self._ahead + extra)

    async def _wait_for_room(self, most: int) -> bool:
        """Wait until at most so many bytes are in memory. Returns False if that takes longer than the part may wait."""
        if self._ahead <= most:
            return True
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(None if self._is_one_response else CLIENT_WAIT_S - self._waited):
                await self._wait_until_at_most(most)
        except TimeoutError:
            return False
        finally:
            self._waited += clock() - began
        return True

    async def _pause(self) -> None:
        """Hold no connection until the client has taken all that is in memory, so that it costs few requests."""
        before = self._ahead
        while (excess := self._ahead - self._limit) > 0:
            last = self._pieces.pop()
            if kept := last[:-excess]:
                self._pieces.append(kept)
            self._ahead -= len(last) - len(kept)
        self._body.rewind(self._body.at - before + self._ahead)
        self._account.waste(Waste.TWICE, before - self._ahead)
        self._may_lose = max(0, self._may_lose - (self._part_stop - self._body.at))
        self._part_stop = self._keeps_pace_since = self._body.at
        self._context.stats.pauses += 1
        await self._wait_until_at_most(0)

    async def _wait_until_at_most(self, most: int) -> None:
        """Wait until at most so many bytes are in memory."""
        while self._ahead > most:
            self._has_room.clear()
            await self._has_room.wait()

    def _add(self, data: bytes | memoryview) -> None:
        """Add received bytes, which end at the body's position. Those outside of the span are not for the client."""
        begin, came = self._body.at - len(data), len(data)
        data = data[max(0, self._span.start - begin) : max(0, self._span.stop - begin)]
        for at in range(0, len(data), MAX_PIECE_BYTES):
            self._pieces.append(bytes(data[at : at + MAX_PIECE_BYTES]))
        self._account.waste(Waste.CUT_OFF, came - len(data))
        self._ahead += len(data)
        self._has_more.set()
