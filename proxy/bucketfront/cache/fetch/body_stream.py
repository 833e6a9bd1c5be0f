"""The bytes of one version in order, from the origin: asked for again where they break off, raced where they stall.

Rule 1: a cut body costs its missing bytes only. What failed without bringing any is paid from the retry budget.
Rule 2: who waits for long for a head or for the next byte is joined by a second request, the hedge, that begins where
the first one stands. Whoever brings bytes first goes on, the other one's connection is closed (Dean and Barroso, "The
Tail at Scale", 2013).
"""

import asyncio
import random
from collections.abc import Callable

from bucketfront.cache.fetch.part import FetchContext
from bucketfront.cache.fetch.version import Version
from bucketfront.cache.origin import OriginResponse
from bucketfront.errors import OriginBusy, OriginCircuitOpen, OriginError, OriginTimeout, OriginUnavailable
from bucketfront.http.ranges import FromTo
from bucketfront.retry import backoff

MAX_FAILURES = 3  # in a row without progress: it is given up
RETRY_PAUSE_S = 0.2  # at most after a first failure, doubled for the next; well inside the 2 s of I11
ENOUGH = 64 << 10  # bytes: what has come too slowly is progress from here on
HEDGE_AFTER = 1.0  # seconds: S3 takes 0.1 to 0.2 for a head, and a body's gaps are shorter
MAX_HEDGES = 4  # at once, of all sources together


class BodyStream:
    """`stop` says up to where bytes are wanted; that may come nearer at any time. `answer`: one that is open already,
    and begins at `at` or before it. Close it when done: it holds a connection.
    """

    def __init__(
        self,
        version: Version,
        supply: FetchContext,
        at: int,
        stop: Callable[[], int],
        answer: OriginResponse | None = None,
    ) -> None:
        self._version = version
        self._supply = supply
        self._stop = stop
        self._leg: _Leg | None = None if answer is None else _Leg(version, at, stop(), answer)
        self._failures = 0
        self.at = at  # the next byte

    async def read(self) -> bytes:
        """The next bytes, which may reach beyond `stop`; `b""` when all that is wanted has come.

        Raises ObjectChanged and the other OriginErrors of `Version.ask`, OriginUnavailable after MAX_FAILURES.
        """
        while self.at < self._stop():
            if self._leg is None:
                self._supply.hedges.earn()
                self._leg = self._new_leg()
            try:
                data = await self._next(self._leg)
            except OriginCircuitOpen:
                raise
            except OriginUnavailable as error:
                await self._failed(error, self._leg)
                continue
            if data:
                self.at += len(data)
                return data
            self.close()  # it ended where `stop` was when it was asked for, or where somebody else's question ended
        return b""

    def close(self) -> None:
        """Give the connection back."""
        if self._leg is not None:
            self._leg.close()
            self._leg = None

    def _new_leg(self) -> "_Leg":
        return _Leg(self._version, self.at, self._stop())

    async def _failed(self, error: OriginUnavailable, leg: "_Leg") -> None:
        """Returns when it may be asked again, else raises `error`."""
        self.close()
        is_progress = leg.brought >= ENOUGH if isinstance(error, OriginTimeout) else leg.brought > 0
        self._failures = 1 if is_progress else self._failures + 1
        if self._failures == MAX_FAILURES:
            raise error
        # Nobody was asked where none of our connections came free.
        if not is_progress and not isinstance(error, OriginBusy) and not self._supply.retries.spend():
            raise error
        await asyncio.sleep(backoff(RETRY_PAUSE_S, self._failures, random.random()))  # noqa: S311 - jitter, no secret

    async def _next(self, leg: "_Leg") -> bytes:
        if not leg.is_open:
            return await self._raced(leg, HEDGE_AFTER)
        # Without a task of its own, as long as bytes come. A read that is cancelled loses nothing.
        try:
            async with asyncio.timeout(HEDGE_AFTER):
                return await leg.read()
        except TimeoutError:
            return await self._raced(leg, 0)

    async def _raced(self, first: "_Leg", patience: float) -> bytes:
        """The next bytes, of `first` or, if that takes longer than `patience` seconds, of whoever has some sooner.

        Both tasks end within this call, whatever becomes of it (I12).
        """
        legs = [first]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(first.outcome())]
                await asyncio.wait(tasks, timeout=patience)
                if not tasks[0].done() and self._may_hedge():
                    legs.append(self._new_leg())
                    tasks.append(group.create_task(legs[1].outcome()))
                await _until_bytes(tasks)
            for leg, task in zip(legs, tasks, strict=True):
                if not task.cancelled() and isinstance(data := task.result(), bytes):
                    self._leg = leg
                    self._supply.traffic.hedges_won += leg is not first
                    return data
            errors = [error for task in tasks if isinstance(error := task.result(), OriginError)]
            # What asking again may cure is told only where nothing else was said.
            raise next((error for error in errors if not isinstance(error, OriginUnavailable)), errors[0])
        finally:
            self._supply.traffic.hedging -= len(legs) - 1
            for leg in legs:
                if leg is not self._leg:
                    leg.close()

    def _may_hedge(self) -> bool:
        traffic = self._supply.traffic
        if traffic.hedging == MAX_HEDGES or not self._supply.hedges.spend():
            return False
        traffic.hedging += 1
        traffic.hedges += 1
        return True


class _Leg:
    """One request for the bytes from `at` on, and the answer to it."""

    def __init__(self, version: Version, at: int, stop: int, answer: OriginResponse | None = None) -> None:
        self._version = version
        self._part = FromTo(at, stop)
        self._at = at
        self._answer = answer
        self._position = at if answer is None else answer.start  # of what the answer's body gives next
        self.brought = 0  # bytes

    @property
    def is_open(self) -> bool:
        return self._answer is not None

    async def read(self) -> bytes:
        """The next bytes, `b""` at the answer's end. Cancelled while it is open, it loses none."""
        if self._answer is None:
            self._answer = await self._version.ask(self._part)
            self._position = self._answer.start
        assert self._position <= self._at, "an answer that begins too late"
        while data := await self._answer.body.read():
            skipped = self._at - self._position
            self._position += len(data)
            if len(data) > skipped:
                self._at = self._position
                self.brought += len(data) - skipped
                return data[skipped:]
        return b""

    async def outcome(self) -> bytes | OriginError:
        """As `read`, with what it raises as a value."""
        try:
            return await self.read()
        except OriginError as error:
            return error

    def close(self) -> None:
        if self._answer is not None:
            self._answer.body.close()


async def _until_bytes(tasks: "list[asyncio.Task[bytes | OriginError]]") -> None:
    """Returns when one of them has bytes, or all have ended; the others are cancelled then."""
    running = set(tasks)
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        if any(isinstance(task.result(), bytes) for task in done):
            break
    for task in running:
        task.cancel()
