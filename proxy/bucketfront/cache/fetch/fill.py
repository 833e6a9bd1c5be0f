"""The fill of an entry fetches its bytes once, in parts, as its readers need them.

Theory of operation
-------------------
A fill has the cursors of its readers, and the running part fetches (see `cache.fetch.part_fetch`). A part fetch claims
whole blocks, and no block is claimed twice: single flight (docs/invariants.md#single-flight). A reader waits until the
bytes at its offset are in the file. A byte is there if its block's bit is set, or if a running part fetch has written
beyond it: no holes (docs/invariants.md#no-holes).

A part fetch outlives the reader that started it: cancellation (docs/invariants.md#cancellation). Part fetches start
when readers join, wait or move on, and when another one ends. Readers that join in one turn of the event loop are
planned together, in the order of their ranges. Ranges that are read side by side come in any order. A reader that
waits far inside a slow part splits it. If a part fetch fails, readers that waited before it began get its error. Later
ones start another part fetch.
"""

import asyncio
import logging

from bucketfront.cache.entries.entry import Entry
from bucketfront.cache.entries.removals import RemovalReason, refusal_because_of
from bucketfront.cache.fetch.ahead_credit import AheadCredit
from bucketfront.cache.fetch.block_verification import BlockVerification
from bucketfront.cache.fetch.fill_view import MAX_PARTS, MAX_READERS, MAX_RUNS, FillView, PartView, ReaderView
from bucketfront.cache.fetch.mp4 import index_span
from bucketfront.cache.fetch.part_choice import Claims, Room, admitted_parts, wanted_parts
from bucketfront.cache.fetch.part_fetch import FetchContext, PartFetch, PartOutcome, PartState
from bucketfront.cache.fetch.part_rate import PartRate
from bucketfront.cache.fetch.part_transfer import PartTransfer
from bucketfront.cache.fetch.read_ahead import NOTHING, Window
from bucketfront.cache.fetch.reader_cursor import ReaderCursor, ReadRequest, Waiter
from bucketfront.cache.fetch.version import Version
from bucketfront.cache.fetch.walk import Walks
from bucketfront.cache.origin import OriginResponse
from bucketfront.cache.storage import blocks
from bucketfront.errors import (
    ContentMismatch,
    ObjectChanged,
    OriginError,
    OriginTimeout,
    OriginUnavailable,
    ProxyError,
    StoreError,
)
from bucketfront.fair_share import acting_for, current_client
from bucketfront.http.ranges import Demand, Span
from bucketfront.request_trace import current_trace, tracing

log = logging.getLogger(__name__)

REFUSED_PAUSE_S = 1.0  # without read-ahead after the disk or the budget refused bytes
MAX_BACKGROUND_PARTS = 2  # part fetches of a fill without readers
FIRST_TWO_BYTES = Span(0, 2)  # AVFoundation requests them first, and then ranges to the object's end, which it drops


class Fill:
    """All part fetches of one entry. Lives in the event loop, and all its decisions are synchronous."""

    def __init__(self, entry: Entry, context: FetchContext) -> None:
        self._entry = entry
        self._context = context
        self._version = Version(entry, context.origin, context.replaced)
        self._read_ahead = context.read_ahead
        self._fetches: list[PartFetch] = []
        self._since = 0.0  # of the part fetches that run, by the monotonic clock
        self._cursors: list[ReaderCursor] = []
        self._arrivals: list[ReaderCursor] = []  # that were not planned yet
        self._waiters: dict[asyncio.Future[None], Waiter] = {}
        self._rate = PartRate()
        self._final_error: ObjectChanged | None = None
        self.mismatch: ContentMismatch | None = None
        self._refused_at: float | None = None  # when the disk or the budget last refused bytes
        self._walks = Walks(context.block_size)
        self._credit = AheadCredit(context.block_size)
        self._keeps_ends = True  # clients read ranges up to the object's end, as far as they name it
        self._mp4_index: Span | None = None  # of an MP4, behind its media data, and not fetched yet
        self._is_head_seen = False
        self.origin_status: int | None = None  # of the response that brought the latest bytes
        self.verification = BlockVerification(entry, context)

    @classmethod
    def of(cls, entry: Entry, context: FetchContext) -> "Fill":
        """Return the fill of the entry. The first use creates it."""
        fill = entry.fill
        if fill is None:
            fill = entry.fill = cls(entry, context)
        assert isinstance(fill, cls)
        return fill

    def __repr__(self) -> str:
        parts = ", ".join(f"{fetch.start}-{fetch.mark}-{fetch.stop}" for fetch in self._fetches)
        return f"<Fill {self._entry.key} parts [{parts}] {len(self._cursors)} readers>"

    def view(self) -> FillView:
        """Return the state of this moment, for operators."""
        entry, now, block_size = self._entry, self._context.clock(), self._context.block_size
        running = [fetch for fetch in self._fetches if fetch.state is PartState.RECEIVING]
        unfinished = sum(fetch.mark - max(fetch.start, fetch.mark // block_size * block_size) for fetch in running)
        return FillView(
            key=entry.key,
            etag=entry.metadata.etag,
            size=entry.metadata.size,
            present=blocks.byte_count(entry.present, entry.metadata.size, block_size) + unfinished,
            block_size=block_size,
            runs=blocks.first_runs(entry.present, MAX_RUNS),
            rate=sum((fetch.mark - fetch.start) / max(0.001, now - fetch.first_byte_at) for fetch in running),
            seconds=now - self._since if self._fetches else 0.0,
            parts=tuple(
                PartView(fetch.start, fetch.mark, fetch.stop, fetch.state.name.lower(), now - fetch.began)
                for fetch in self._fetches[:MAX_PARTS]
            ),
            part_count=len(self._fetches),
            readers=tuple(
                ReaderView(
                    cursor.span.start, cursor.offset, cursor.stop, cursor.is_waiting, cursor.request.is_background
                )
                for cursor in self._cursors[:MAX_READERS]
            ),
            reader_count=len(self._cursors),
        )

    # --- readers -------------------------------------------------------------------------------------------

    def join(self, span: Span, demand: Demand) -> ReaderCursor:
        """Add a reader of `span` for a client with this demand."""
        if demand is Demand.BOUNDED and span == FIRST_TWO_BYTES:
            self._keeps_ends = False
        request = ReadRequest(span, demand, self._context.parallel_parts, current_client(), current_trace())
        cursor = ReaderCursor(request, span.start, self._read_ahead.window(0, is_eager=True))
        self._cursors.append(cursor)
        if not self._entry.is_complete(self._context.block_size):
            cursor.is_planned = False
            if not self._arrivals:
                asyncio.get_running_loop().call_soon(self._plan_arrivals)
            self._arrivals.append(cursor)
        return cursor

    def _plan_arrivals(self) -> None:
        """Decide how much to fetch for the readers that joined in this turn, and start it."""
        arrived = sorted((one for one in self._arrivals if one in self._cursors), key=lambda cursor: cursor.span.start)
        self._arrivals.clear()
        for cursor in arrived:
            self._mark_parallel(cursor)
            if cursor.request.demand is Demand.BOUNDED:
                self._walks.add(cursor.span)
        for cursor in arrived:
            self._plan(cursor)
        for cursor in arrived:
            self._launch_for(cursor)
        for waiter in list(self._waiters.values()):
            if waiter.cursor in arrived:
                self._split_for(waiter)

    def _mark_parallel(self, cursor: ReaderCursor) -> None:
        """Mark the reader and its neighbours as parallel, if together they are a download in ranges side by side."""
        for other in self._cursors:
            if other.request.is_background or not self._walks.are_neighbours(cursor.span, other.span):
                continue
            pair = (cursor, other)
            if all(
                one.request.demand is Demand.BOUNDED
                or (one.request.demand is Demand.OPEN and self._read_ahead.is_last(one.span, neighbour.span))
                for one, neighbour in (pair, pair[::-1])
            ):
                cursor.is_parallel = cursor.is_eager = True
                other.is_parallel = other.is_eager = True

    def _plan(self, cursor: ReaderCursor) -> None:
        walk = self._walks.of(cursor.span)
        cursor.is_eager = cursor.is_parallel or self._read_ahead.is_eager(
            cursor.request.demand, cursor.span, self._entry.metadata.size, walk, keeps_ends=self._keeps_ends
        )
        if cursor.request.demand is Demand.BOUNDED and cursor.is_eager:
            self._credit.note_request(cursor.span)
            cursor.walk_window = self._read_ahead.walk_window(walk, is_parallel=cursor.is_parallel)
        cursor.walk_stop = walk.stop if cursor.is_parallel else cursor.stop
        self._set_window(cursor)
        cursor.is_planned = True

    def _set_window(self, cursor: ReaderCursor) -> None:
        cursor.window = self._read_ahead.window(cursor.read, is_eager=cursor.is_eager, is_starved=cursor.is_starved)

    def leave(self, cursor: ReaderCursor) -> None:
        """Remove a reader, whether or not it read all. `after_disconnect` decides about part fetches without a reader.

        `stop`: they end at once. `finish`: the rest of what the last reader wanted is fetched. `auto`: those that no
        other reader needs soon end with their current block, but an object that lacks little is fetched whole.
        """
        if cursor.is_served and not cursor.is_planned:
            self._plan_arrivals()  # all of its range was there already, and its walk goes on
        self._cursors.remove(cursor)
        entry, policy = self._entry, self._context.after_disconnect
        size = entry.metadata.size
        if self._drops_end(cursor):
            self._keeps_ends = False
        if policy == "auto" and (entry.is_removed or not self._lacks_little()):
            self._trim()
        elif self._cursors or entry.is_removed:
            pass
        elif policy == "stop":
            for fetch in self._fetches:
                fetch.cancel()
        elif policy == "auto":
            self._continue_alone(Span(0, size))
        elif cursor.offset < cursor.stop:
            self._continue_alone(Span(cursor.offset, cursor.stop))

    def _drops_end(self, cursor: ReaderCursor) -> bool:
        """Return whether a client that leaves had sent a range up to the object's end, with that end."""
        names_end = cursor.request.demand is Demand.BOUNDED and cursor.stop == self._entry.metadata.size
        return names_end and not cursor.is_served and cursor.stop - cursor.offset > self._context.part_size // 4

    def _lacks_little(self) -> bool:
        size = self._entry.metadata.size
        present = min(size, self._entry.present.bit_count() * self._context.block_size)
        return self._read_ahead.is_worth_the_rest(present, size - present)

    def _continue_alone(self, span: Span) -> None:
        if self.covers(span):
            return
        request = ReadRequest(span, max_parts=MAX_BACKGROUND_PARTS, is_background=True)
        cursor = ReaderCursor(request, span.start, Window(span.length, self._context.part_size))
        self._cursors.append(cursor)
        self._launch_for(cursor)
        self._drop_background()

    def _drop_background(self) -> None:
        """Remove background cursors once their last part fetch runs, or if they may not start a single one.

        Such a cursor would stay for ever, because only the end of a part fetch starts the next one.
        """
        self._cursors = [
            cursor
            for cursor in self._cursors
            if not cursor.request.is_background or (self._fetches and not self.covers(Span(cursor.offset, cursor.stop)))
        ]

    def _trim(self) -> None:
        """End part fetches that no reader needs soon, each with its current block, or at once between two blocks."""
        size = self._context.block_size
        for fetch in self._fetches:
            if fetch.cursor in self._cursors or any(
                _overlap(cursor.ahead, fetch) or _overlap(cursor.ahead_of_walk, fetch) for cursor in self._cursors
            ):
                continue
            is_for_next_reader = fetch.is_of_object or (fetch.cursor is not None and fetch.cursor.is_served)
            if is_for_next_reader and not self._entry.is_removed:
                continue  # an index, or bytes for the walk that the reader was part of
            stop = min(fetch.stop, -(-fetch.writing_to // size) * size)
            if fetch.state is not PartState.RECEIVING or stop == fetch.mark:
                fetch.cancel()
            elif stop < fetch.stop:
                self._context.entries.budget.give_back(self._cut(fetch, stop))

    def _cut(self, fetch: PartFetch, stop: int) -> int:
        """End a part at this end of a block. Return the reserved bytes that it no longer needs."""
        size = self._context.block_size
        tail = range(stop // size, blocks.block_count(fetch.stop, size))
        # A part fetch that is still RESERVING has nothing reserved.
        spare = min(fetch.reserved, self._context.allocated(self._entry, tail))
        fetch.cut(stop)
        fetch.reserved -= spare
        return spare

    def covers(self, span: Span) -> bool:
        """Return whether every byte is present or being fetched."""
        return next(self._claims().missing(span), None) is None

    def holds(self, span: Span) -> bool:
        """Return whether every byte is in the file, verified or not."""
        return self._reaches(span.start, span.stop, self._entry.present) == span.stop

    def readable(self, offset: int, stop: int) -> int:
        """Return how far, up to `stop`, the bytes from `offset` on are in the file and verified."""
        return self._reaches(offset, stop, self._entry.present & ~self._entry.unverified)

    def _reaches(self, offset: int, stop: int, usable: int) -> int:
        """Return how far, up to `stop`, the bytes from `offset` on are in `usable` blocks or below a part's mark."""
        size = self._context.block_size
        last = blocks.block_count(stop, size)
        at = offset
        while at < stop:
            block = at // size
            absent = blocks.first_absent(usable, block, last)
            if absent > block:
                at = absent * size
                continue
            fetch = self._fetch_at(at)
            if fetch is None or fetch.mark <= at:
                break
            at = fetch.mark
        return min(at, stop)

    async def wait_readable(self, cursor: ReaderCursor, offset: int) -> int:
        """Wait for the byte at `offset` and return the first offset after it that is not in the file yet.

        Returns `offset` itself at the end of what the reader wants. Raises ObjectChanged, OriginTimeout,
        OriginUnavailable and the other OriginErrors of a ranged GET. Raises StoreError if only the origin can deliver
        the bytes.
        """
        cursor.read += offset - cursor.offset
        cursor.offset = offset
        self._set_window(cursor)
        if self.mismatch is not None:
            raise self.mismatch
        waiter = Waiter(cursor, offset, self._context.clock())
        try:
            async with asyncio.timeout(self._context.reader_timeout):
                while (upto := self.readable(offset, cursor.stop)) == offset < cursor.stop:
                    await self._wait(cursor, waiter)
        except TimeoutError:
            timeout = self._context.reader_timeout
            raise OriginTimeout(f"no byte {offset} of {self._entry.key} in {timeout:g} s") from None
        cursor.is_served = upto == cursor.stop
        self._launch_for(cursor)
        return upto

    async def _wait(self, cursor: ReaderCursor, waiter: Waiter) -> None:
        self._context.ownership.require()
        block = cursor.offset // self._context.block_size
        if self.verification.is_due(block):
            await self.verification.verify_for(block, cursor.stop)
            return
        if self._final_error is not None:
            raise self._final_error
        progress = asyncio.get_running_loop().create_future()
        self._waiters[progress] = waiter
        cursor.is_waiting = True
        cursor.waited = cursor.read
        try:
            self._launch_for(cursor)
            self._split_for(waiter)
            await progress
        finally:
            cursor.is_waiting = False
            self._waiters.pop(progress, None)

    # --- the start of a part fetch: all synchronous --------------------------------------------------------

    def adopt(self, response: OriginResponse) -> None:
        """Make a part fetch of a response that a lookup got, because the first GET of an object brings bytes."""
        size, total = self._context.block_size, self._entry.metadata.size
        whole = range(-(-response.start // size), blocks.whole_below(response.stop, total, size))
        # Other part fetches may have claimed some blocks meanwhile: the response serves the first run that is left.
        is_wanted = len(whole) > 0 and self._context.ownership.is_held
        left = list(self._claims().missing(blocks.span_of(whole, total, size))) if is_wanted else []
        if not left:
            response.body.close()
            return
        for number, run in enumerate(left):
            self._launch(run, response if number == 0 else None)

    async def supply(self, start: int, data: bytes) -> int:
        """Store blocks of the version that another cache had: those in `data`, the bytes from `start` on.

        Blocks that are present or being fetched stay as they are. Returns how many bytes were stored. Raises
        StoreError, and ContentMismatch if the object is complete with them and does not fit S3's checksum.
        """
        size, total = self._context.block_size, self._entry.metadata.size
        whole = range(-(-start // size), blocks.whole_below(start + len(data), total, size))
        stored = 0
        for run in list(self._claims().missing(blocks.span_of(whole, total, size))):
            if self._entry.is_removed or not self._context.ownership.is_held:
                break
            span = blocks.span_of(run, total, size)
            body = _SuppliedBody(data[span.start - start : span.stop - start])
            self._entry.has_supplied = True
            fetch = self._launch(
                run, OriginResponse(self._entry.metadata, span.start, span.stop, body), is_supplied=True
            )
            assert fetch.task is not None
            await asyncio.wait([fetch.task])
            if not fetch.task.cancelled() and (error := fetch.task.exception()) is not None:
                raise error
            stored += max(0, fetch.mark - span.start)
        return stored

    def _claims(self) -> Claims:
        """Return which blocks are present or being fetched: no block is claimed twice."""
        entry, size = self._entry, self._context.block_size
        claimed = entry.present
        for fetch in self._fetches:
            claimed |= blocks.mask(blocks.covering(fetch.span, size))
        return Claims(entry.metadata.size, size, claimed, entry.charged)

    def _launch_for(self, cursor: ReaderCursor) -> None:
        """Start the part fetches that this reader needs: the awaited part at once, read-ahead within its limits."""
        if not cursor.is_planned or self._final_error is not None or not self._context.ownership.is_held:
            return
        if self._entry.is_removed and not self._entry.pins:
            return
        self._launch_index_for(cursor)
        claims = self._claims()
        self._limit_walk_of(cursor, claims)
        if wanted := wanted_parts(cursor, claims):
            for run in admitted_parts(wanted, cursor, claims, self._room_for(cursor)):
                self._launch(run, None, cursor=cursor)
                if cursor.request.demand is Demand.BOUNDED:
                    self._credit.note_fetch(run)

    def _limit_walk_of(self, cursor: ReaderCursor, claims: Claims) -> None:
        """Fetch no more behind the range of a reader than the object's credit, except for a download."""
        if cursor.walk_window != NOTHING and not self._walks.are_of_download:
            most = self._credit.left(cursor.ahead_of_walk, claims.claimed)
            cursor.walk_window = self._read_ahead.within(cursor.walk_window, most)

    def _room_for(self, cursor: ReaderCursor) -> Room:
        """Return the room of read-ahead for this reader.

        An entry's first part fetch needs no free connection, because its end starts the next ones. Each further reader
        of an entry adds one part, so that it does not pause between two of its parts.
        """
        stats = self._context.stats
        most = max(cursor.request.max_parts, min(cursor.request.max_parts + len(self._cursors) - 1, stats.object_limit))
        parts = min(most - len(self._fetches), stats.read_ahead_limit - stats.running)
        return Room(parts if self._fetches else max(1, parts), self._left_ahead())

    def _left_ahead(self) -> int:
        """Return how many bytes may take space although no reader waits for them. It may be negative."""
        if self._refused_at is not None and self._context.clock() - self._refused_at < REFUSED_PAUSE_S:
            return -1
        return self._context.left_ahead

    def _launch_index_for(self, cursor: ReaderCursor) -> None:
        """Fetch the index of an MP4 early, because a player that begins one reads the index next: see `mp4`."""
        size = self._entry.metadata.size
        if self._mp4_index is None or cursor.span.start or cursor.stop < size:
            return
        span, self._mp4_index = self._mp4_index, None
        claims = self._claims()
        for run in claims.missing_parts(span, self._context.part_size):
            if self._context.stats.has_room and claims.allocated(run) <= self._left_ahead():
                self._launch(run, None, is_of_object=True)

    def _find_index(self, head: bytes) -> None:
        if self._is_head_seen:
            return
        self._is_head_seen = True
        self._mp4_index = index_span(head, self._entry.metadata.size)
        for cursor in self._cursors:
            self._launch_index_for(cursor)

    def _launch(
        self,
        run: range,
        response: OriginResponse | None,
        *,
        reserved: int = 0,
        cursor: ReaderCursor | None = None,
        is_of_object: bool = False,
        is_supplied: bool = False,
    ) -> PartFetch:
        entry, context = self._entry, self._context
        span = blocks.span_of(run, entry.metadata.size, context.block_size)
        fetch = PartFetch(
            span.start, span.stop, span.start, span.start, reserved, began=context.clock(), response=response,
            cursor=cursor, is_of_object=is_of_object or is_supplied, is_supplied=is_supplied,
            state=PartState.REQUESTING if reserved else PartState.RESERVING,
        )  # fmt: skip
        if self not in context.stats.fills:
            self._since = context.clock()
            context.stats.fills[self] = None
        self._fetches.append(fetch)
        context.entries.pin(entry)
        context.stats.fetches.add(fetch)
        context.stats.started += not is_supplied
        transfer = PartTransfer(
            fetch, entry, self._version, context,
            on_head=self._find_index, on_written=self._wake, on_complete=self._compare_later,
        )  # fmt: skip
        client, trace = (
            (current_client(), current_trace()) if cursor is None else (cursor.request.client, cursor.request.trace)
        )
        with acting_for(client), tracing(trace):
            fetch.task = context.tasks.start(transfer.run(), name=f"part {entry.key} {span.start}")
        # A callback, because a task that is cancelled before its first step never runs any of its own code.
        fetch.task.add_done_callback(lambda task: self._end(fetch, task))
        return fetch

    def _split_for(self, waiter: Waiter) -> None:
        """Give a reader a part of its own if the part fetch that will reach its offset is too far behind.

        The older claim ends where the new one begins, so that no block is claimed twice. A download in ranges side by
        side gets no such part, because it would only cost more requests. The neighbours of a range may come later.
        """
        offset = waiter.offset
        fetch = self._fetch_at(offset)
        size = self._context.block_size
        cut = offset // size * size
        reader = waiter.cursor
        if not self._entry.metadata.is_strong or not reader.is_planned or reader.is_parallel:
            return
        if fetch is None or cut < max(fetch.mark + max(size, self._context.split_distance), fetch.writing_to):
            return
        if reader.request.demand is Demand.BOUNDED and fetch.cursor is not None and fetch.cursor.is_parallel:
            return
        if not self._rate.is_too_slow(fetch, offset, self._context.clock()):
            return
        tail = range(cut // size, blocks.block_count(fetch.stop, size))
        moved = self._cut(fetch, cut)
        self._context.stats.split += 1
        self._launch(tail, None, reserved=moved, cursor=fetch.cursor, is_of_object=fetch.is_of_object)

    def _fetch_at(self, offset: int) -> PartFetch | None:
        return next((fetch for fetch in self._fetches if fetch.start <= offset < fetch.stop), None)

    # --- the end of a part fetch ---------------------------------------------------------------------------

    def _end(self, fetch: PartFetch, task: "asyncio.Task[None]") -> None:
        context, entry = self._context, self._entry
        outcome, error = _outcome(task)
        if fetch.response is not None:  # the task was cancelled before its first step
            fetch.response.body.close()
        self._rate.note_end(fetch, context.clock())
        fetch.become(PartState.ENDED)
        self._fetches.remove(fetch)
        context.stats.fetches.discard(fetch)
        context.stats.outcomes[outcome] += not fetch.is_supplied
        if isinstance(error, StoreError):
            self._refused_at = context.clock()
            context.entries.removals.refused(entry.key, refusal_because_of(error))
        context.entries.budget.give_back(fetch.reserved)
        if isinstance(error, ObjectChanged):
            self._final_error = error
            is_corrupt = isinstance(error, ContentMismatch)
            context.remove(entry, RemovalReason.CORRUPT if is_corrupt else RemovalReason.CHANGED)
        elif not entry.metadata.is_strong and not entry.is_complete(context.block_size):
            # No other response may complete it.
            context.remove(entry, RemovalReason.INCOMPLETE)
        if outcome is PartOutcome.FILLED:
            self._launch_next()
        elif error is None:
            self._release(fetch)
        else:
            self._fail(fetch, error)
        if not self._fetches:
            del context.stats.fills[self]
        context.unpin(entry)

    def _launch_next(self) -> None:
        for cursor in sorted(self._cursors, key=lambda cursor: not cursor.is_waiting):
            self._launch_for(cursor)
        self._drop_background()

    def _wake(self, fetch: PartFetch) -> None:
        self.origin_status = fetch.status
        for progress, waiter in list(self._waiters.items()):
            if fetch.start <= waiter.offset < fetch.mark:
                if not progress.done():
                    progress.set_result(None)
            elif fetch.mark <= waiter.offset < fetch.stop:
                self._split_for(waiter)

    def _release(self, fetch: PartFetch) -> None:
        """Wake the readers that came while the part fetch was being ended, so that they start another one."""
        for progress, waiter in self._waiters.items():
            if fetch.start <= waiter.offset < fetch.stop and not progress.done():
                progress.set_result(None)

    def _fail(self, fetch: PartFetch, error: ProxyError) -> None:
        self._cursors = [cursor for cursor in self._cursors if not cursor.request.is_background]
        for progress, waiter in list(self._waiters.items()):
            if progress.done() or not (fetch.start <= waiter.offset < fetch.stop or self._final_error is not None):
                continue
            if isinstance(error, OriginUnavailable) and fetch.began < waiter.since:
                # This reader came to a part fetch that was failing already, and gets one of its own: a dead flight
                # (docs/invariants.md#a-failed-part-fetch).
                progress.set_result(None)
            else:
                progress.set_exception(error)

    # --- comparing -----------------------------------------------------------------------------------------

    def _compare_later(self) -> None:
        """Compare the complete object with S3's checksum in the background, and give it up if it does not fit."""
        self._context.entries.pin(self._entry)
        self._context.tasks.start(self._compare(), name=f"comparing {self._entry.key}")

    async def _compare(self) -> None:
        try:
            await self._context.comparison.check(self._entry, self._context.part_size, is_urgent=False)
        except ContentMismatch as error:
            self._give_up(error)
        except StoreError as error:
            log.info("%s could not be compared: %s", self._entry.key, error)
        finally:
            self._context.unpin(self._entry)

    def _give_up(self, error: ContentMismatch) -> None:
        """Serve no more bytes of the object. Its readers get `error` when they want more."""
        self._final_error = self.mismatch = error
        self._context.remove(self._entry, RemovalReason.CORRUPT)
        for fetch in self._fetches:  # of a block that was lost meanwhile
            fetch.cancel()


class _SuppliedBody:
    """The bytes of blocks that another cache had, in the form of a response's body."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def close(self) -> None:
        """Do nothing, because there is no connection."""


def _overlap(span: Span, fetch: PartFetch) -> bool:
    return span.start < fetch.stop and fetch.mark < span.stop


def _outcome(task: "asyncio.Task[None]") -> tuple[PartOutcome, ProxyError | None]:
    if task.cancelled():
        return PartOutcome.ABANDONED, None
    match task.exception():
        case None:
            return PartOutcome.FILLED, None
        case ObjectChanged() as error:
            return PartOutcome.CHANGED, error
        case OriginError() as error:
            return PartOutcome.FAILED, error
        case StoreError() as error:
            return PartOutcome.STORE_FAILED, error
        case bug:
            log.error("a part fetch broke down", exc_info=bug)
            return PartOutcome.FAILED, OriginUnavailable("a part fetch broke down")
