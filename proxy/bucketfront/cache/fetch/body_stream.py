"""The bytes of one version in order, from the origin, with retries where they break off and hedges where they stall.

Rule 1: a cut body costs only its missing bytes. The retry budget pays for a request that failed without any bytes.
Rule 2: if a head or the next byte is late, a second request, the hedge, begins where the first one stands. The first
of the two that brings bytes continues, and the other connection is closed (Dean and Barroso, "The Tail at Scale",
2013).
"""

import asyncio
import random
from collections.abc import Callable

from bucketfront.cache.fetch.part_fetch import FetchContext
from bucketfront.cache.fetch.traffic import Waste
from bucketfront.cache.fetch.version import Version
from bucketfront.cache.origin import OriginResponse
from bucketfront.errors import OriginBusy, OriginError, OriginTimeout, OriginUnavailable
from bucketfront.http.ranges import FromTo
from bucketfront.retry import backoff

MAX_FAILURES = 3  # in a row without progress; the last one is final
RETRY_PAUSE_S = 0.2  # at most, doubled for each failure; well inside the 2 s of docs/invariants.md#a-failed-part-fetch
PROGRESS_BYTES = 64 << 10  # a body that was ended because it came too slowly made progress if it brought so many
HEDGE_AFTER_S = 1.0  # S3 takes 0.1 to 0.2 s for a head, and the gaps of a body are shorter
MAX_HEDGES = 4  # at a time, of all streams together


OnWasted = Callable[[Waste, int], None]


class BodyStream:
    """One position in a version, read forwards. Close it when done, because it holds a connection.

    `at` is the first byte. `stop` returns up to where bytes are wanted, which may come nearer at any time. `response`
    is open already, and begins at `at` or before it. `on_received` gets the offset and the number of all bytes that
    come, also of those that are not wanted. `on_wasted` gets those of no use among them.
    """

    def __init__(
        self,
        version: Version,
        context: FetchContext,
        at: int,
        stop: Callable[[], int],
        on_received: Callable[[int, int], None],
        response: OriginResponse | None = None,
        on_wasted: OnWasted = lambda *_: None,
    ) -> None:
        self._version = version
        self._on_received = on_received
        self._on_wasted = on_wasted
        self._context = context
        self._stop = stop
        self._request: _RangeRequest | None = None
        if response is not None:
            self._request = _RangeRequest(version, at, stop(), on_received, on_wasted, response)
        self._failures = 0
        self.at = at  # the next byte

    async def read(self) -> bytes | memoryview:
        """Return the next bytes, which may reach beyond `stop`, or `b""` after all that is wanted has come.

        Raises ObjectChanged and the other OriginErrors of `Version.fetch`, OriginUnavailable after MAX_FAILURES.
        """
        while self.at < self._stop():
            if self._request is None:
                self._context.hedges.earn()
                self._request = self._new_request()
            try:
                data = await self._next(self._request)
            except OriginUnavailable as error:
                if error.is_final:
                    raise
                await self._recover(error, self._request)
                continue
            if data:
                self.at += len(data)
                return data
            self.close()  # the request ended where `stop` was when it was sent, or where the lookup's range ended
        return b""

    @property
    def status(self) -> int | None:
        """Return the status of the response that is being read, None if none is open."""
        return None if self._request is None else self._request.status

    def close(self) -> None:
        """Give the connection back."""
        if self._request is not None:
            self._request.close()
            self._request = None

    def rewind(self, at: int) -> None:
        """Continue from a byte that was read before, or from the next one. Close the connection."""
        assert at <= self.at
        self.close()
        self.at = at

    def _new_request(self) -> "_RangeRequest":
        return _RangeRequest(self._version, self.at, self._stop(), self._on_received, self._on_wasted)

    async def _recover(self, error: OriginUnavailable, request: "_RangeRequest") -> None:
        """Wait until another request may be sent, or raise `error` if the failure is final."""
        self.close()
        needed = PROGRESS_BYTES if isinstance(error, OriginTimeout) else 1
        is_progress = request.brought >= needed
        self._failures = 1 if is_progress else self._failures + 1
        if self._failures == MAX_FAILURES:
            raise error
        # OriginBusy costs no retry, because no connection came free and no request was sent.
        if not is_progress and not isinstance(error, OriginBusy) and not self._context.retries.spend():
            raise error
        await asyncio.sleep(backoff(RETRY_PAUSE_S, self._failures, random.random()))  # noqa: S311 - jitter, no secret

    async def _next(self, request: "_RangeRequest") -> bytes | memoryview:
        if not request.is_open:
            return await self._race(request, HEDGE_AFTER_S)
        # Without a task of its own, as long as bytes come. A read that is cancelled loses none.
        try:
            async with asyncio.timeout(HEDGE_AFTER_S):
                return await request.read()
        except TimeoutError:
            return await self._race(request, 0)

    async def _race(self, first: "_RangeRequest", hedge_after: float) -> bytes | memoryview:
        """Return the next bytes of `first`, or of a hedge that starts after so many seconds and has bytes sooner.

        Both tasks end within this call in any case: cancellation (docs/invariants.md#cancellation).
        """
        requests = [first]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(first.outcome())]
                await asyncio.wait(tasks, timeout=hedge_after)
                if not tasks[0].done() and self._may_hedge():
                    requests.append(self._new_request())
                    tasks.append(group.create_task(requests[1].outcome()))
                await _until_bytes(tasks)
            brought = [
                (request, data)
                for request, task in zip(requests, tasks, strict=True)
                if not task.cancelled() and not isinstance(data := task.result(), OriginError)
            ]
            if brought:
                request, data = brought[0]
                self._on_wasted(Waste.TWICE, sum(len(late) for _, late in brought[1:]))
                self._request = request
                self._context.stats.hedges_won += request is not first
                return data
            errors = [error for task in tasks if isinstance(error := task.result(), OriginError)]
            # A retry may cure OriginUnavailable, so any other error comes first.
            raise next((error for error in errors if not isinstance(error, OriginUnavailable)), errors[0])
        finally:
            self._context.stats.hedging -= len(requests) - 1
            for request in requests:
                if request is not self._request:
                    request.close()

    def _may_hedge(self) -> bool:
        stats = self._context.stats
        if stats.hedging == MAX_HEDGES or not self._context.hedges.spend():
            return False
        stats.hedging += 1
        stats.hedges += 1
        return True


class _RangeRequest:
    """One request for the bytes from `at` on, and its response."""

    def __init__(
        self,
        version: Version,
        at: int,
        stop: int,
        on_received: Callable[[int, int], None],
        on_wasted: OnWasted,
        response: OriginResponse | None = None,
    ) -> None:
        self._version = version
        self._on_received = on_received
        self._on_wasted = on_wasted
        self._part = FromTo(at, stop)
        self._at = at
        self._response = response
        self._position = at if response is None else response.start  # of the next bytes of the response's body
        self.brought = 0  # bytes

    @property
    def is_open(self) -> bool:
        return self._response is not None

    @property
    def status(self) -> int | None:
        return None if self._response is None else self._response.status

    async def read(self) -> bytes | memoryview:
        """Return the next bytes, or `b""` at the response's end. A cancelled read of an open response loses none."""
        if self._response is None:
            self._response = await self._version.fetch(self._part)
            self._position = self._response.start
        assert self._position <= self._at, "the response begins too late"
        while data := await self._response.body.read():
            self._on_received(self._position, len(data))
            skipped = self._at - self._position
            if skipped > 0:
                self._on_wasted(Waste.CUT_OFF, min(skipped, len(data)))
            self._position += len(data)
            if len(data) > skipped:
                self._at = self._position
                self.brought += len(data) - skipped
                return data[skipped:]
        return b""

    async def outcome(self) -> bytes | memoryview | OriginError:
        """Return what `read` returns, or the OriginError that it raises."""
        try:
            return await self.read()
        except OriginError as error:
            return error

    def close(self) -> None:
        if self._response is not None:
            self._response.body.close()


async def _until_bytes(tasks: "list[asyncio.Task[bytes | memoryview | OriginError]]") -> None:
    """Wait until one task has bytes or all have ended, then cancel the others."""
    running = set(tasks)
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        if not all(isinstance(task.result(), OriginError) for task in done):
            break
    for task in running:
        task.cancel()
