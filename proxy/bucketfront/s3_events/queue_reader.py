"""Read a queue of events, apply them, and delete them then.

Theory of operation
-------------------
A message is deleted only after all of its events are applied. So after a kill, a failing disk or a failing call it
comes again. One call at a time waits for messages. As long as calls come back full, up to MAX_READERS run at once, so
that a backlog drains as fast as the cache takes it.

A call that fails is repeated after a pause that grows to MAX_PAUSE_S. If the reader itself fails, which is a defect,
it starts again in the same way. Both are troubles (`bucketfront.troubles`), and the first success ends them.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from bucketfront.errors import StoreError
from bucketfront.s3_events.continuity import UNKNOWN_RETENTION_S, Continuity
from bucketfront.s3_events.event import EventMessage, S3Event, UnreadableMessage
from bucketfront.s3_events.event_applier import EventApplier
from bucketfront.s3_events.event_queue import EventQueue, QueuedMessage, QueueError, QueueFacts, QueueFault
from bucketfront.s3_events.figures import MessageOutcome, MessageSource
from bucketfront.s3_events.message_reader import read_message
from bucketfront.s3_events.sqs_queue import BATCH, MAX_READERS
from bucketfront.task_set import TaskSet
from bucketfront.troubles import Kind, Reason, Troubles

FIRST_PAUSE_S = 1.0  # after a failed call; doubled by each further one
MAX_PAUSE_S = 60.0
IDLE_PAUSE_S = 1.0  # between two looks whether this process owns the cache again
FACTS_INTERVAL_S = 300.0  # between two looks at the queue's attributes, which people change rarely
MAX_SHOWN_CHARS = 200  # of a message that cannot be read, in the log

Sleep = Callable[[float], Awaitable[None]]

log = logging.getLogger(__name__)

_FAILING = "events of S3 are not read from the queue, so that changes show only when lifetimes end"
_WORKS = "events of S3 are read from the queue again"
_KINDS = {
    fault: Kind(Reason.EVENTS_NOT_READ, fault.value, f"{_FAILING} ({fault.value})", f"{_WORKS} ({fault.value})",
                what_failed="calls failed")
    for fault in QueueFault
}  # fmt: skip
_DEFECT = Kind(
    Reason.EVENTS_NOT_READ, "reader-failed", f"{_FAILING}: the reader failed", _WORKS, what_failed="starts failed"
)
_STORE = Kind(
    Reason.EVENTS_NOT_READ,
    "events-not-applied",
    "events of S3 cannot be applied to the cache, and come again",
    "events of S3 are applied to the cache again",
    what_failed="batches failed",
)
UNREADABLE = Kind(
    Reason.EVENTS_UNREADABLE,
    "events-unreadable",
    "messages are no events of S3: check what else sends to the queue or the webhook",
    "messages are events of S3 again",
    what_failed="messages were unreadable",
)


class QueueReader:
    """Reads one queue. `clock` is wall time, in seconds since the epoch. `may_apply` is false while another process
    owns the cache.
    """

    def __init__(
        self,
        queue: EventQueue,
        applier: EventApplier,
        continuity: Continuity,
        troubles: Troubles,
        clock: Callable[[], float],
        may_apply: Callable[[], bool] = lambda: True,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._queue = queue
        self._applier = applier
        self._figures = applier.figures
        self._continuity = continuity
        self._troubles = troubles
        self._clock = clock
        self._may_apply = may_apply
        self._sleep = sleep
        self._facts = QueueFacts(None, has_dead_letters=False)
        self._facts_at = float("-inf")
        self._facts_are_denied = False
        self._turn = asyncio.Lock()  # of the continuity
        self._failures = 0  # in a row
        self.backlog = 0
        self.read_at: float | None = None

    async def run(self) -> NoReturn:
        """Read for ever."""
        failures = 0
        while True:
            try:
                await self._read_on()
                failures = 0
            except Exception as error:
                log.exception("the reader of events failed with an unexpected error")
                self._troubles.failed(_DEFECT, type(error).__name__)
                self._figures.reader_restarts += 1
                failures += 1
                await self._pause(failures)

    async def _read_on(self) -> None:
        """Read until the queue is empty once, with more calls at once as long as they come back full."""
        while not self._may_apply():
            await self._sleep(IDLE_PAUSE_S)
        is_full = await self._step()
        self._troubles.succeeded(_DEFECT.__eq__)
        if not is_full:
            return
        tasks = TaskSet()
        try:
            started = [tasks.start(self._drain(), name="events of a backlog") for _ in range(MAX_READERS)]
            await asyncio.gather(*started)
        finally:
            await tasks.close()

    async def _drain(self) -> None:
        while self._may_apply() and await self._step():
            pass

    async def _step(self) -> bool:
        """Receive messages and apply them. Return whether there are probably more."""
        try:
            await self._look()
            messages = await self._queue.receive()
        except QueueError as error:
            await self._failed(error)
            return False
        self._works()
        try:
            await self._keep_continuity(messages)
            done = await self._apply(messages)
        except StoreError as error:
            self._troubles.failed(_STORE, str(error))
            await self._hand_back(messages)
            self._failures += 1
            await self._pause(self._failures)
            return False
        self._troubles.succeeded(_STORE.__eq__)
        if done:
            await self._delete(done)
        await self._note()
        return len(messages) >= BATCH

    async def _look(self) -> None:
        """Read the queue's attributes now and then. Without the permission for that, the shortest retention counts."""
        now = self._clock()
        if 0 <= now - self._facts_at < FACTS_INTERVAL_S:
            return
        self._facts_at = now
        try:
            self._facts = await self._queue.facts()
        except QueueError as error:
            if error.fault is not QueueFault.DENIED:
                self._facts_at = float("-inf")
                raise
            if not self._facts_are_denied:
                log.warning("the queue of S3's events denies its attributes, so the shortest retention counts")
            self._facts_are_denied = True
        self._continuity.retention = self._facts.retention or UNKNOWN_RETENTION_S
        self.backlog = self._facts.backlog

    async def _keep_continuity(self, messages: Sequence[QueuedMessage]) -> None:
        """Mark all objects stale if messages may have been lost before these. Raises StoreError."""
        oldest = min((each.sent_at for each in messages if each.sent_at is not None), default=None)
        async with self._turn:
            self.read_at = self._clock()
            loss = self._continuity.loss(self.read_at, oldest)
            if loss is None:
                return
            try:
                await self._applier.expire_all(loss)
            except BaseException:
                self._continuity.forget()
                raise

    async def _note(self) -> None:
        async with self._turn:
            if self._continuity.is_due(now := self._clock()):
                try:
                    await asyncio.to_thread(self._continuity.note, now)
                except OSError as error:
                    log.warning("%s cannot be written: %s", self._continuity.path, error.strerror)

    async def _apply(self, messages: Sequence[QueuedMessage]) -> list[QueuedMessage]:
        """Apply what messages hold, and return those that are to be deleted. Raises StoreError."""
        done: list[QueuedMessage] = []
        events: list[S3Event] = []
        outcomes: list[MessageOutcome] = []
        for message in messages:
            try:
                found = await read_message(message.body)
            except UnreadableMessage as error:
                self._unreadable(f"{error}: {message.body[:MAX_SHOWN_CHARS]!a}")
                # A queue with dead letters keeps it for people. In any other it would come again and again.
                if not self._facts.has_dead_letters:
                    done.append(message)
                continue
            if found.unreadable:
                self._unreadable(f"{found.unreadable} records: {message.body[:MAX_SHOWN_CHARS]!a}")
            done.append(message)
            events += found.events
            outcomes.append(message_outcome(found))
            await asyncio.sleep(0)
        try:
            await self._applier.apply(EventMessage(tuple(events)))
        except StoreError:
            self._count(*[MessageOutcome.FAILED] * len(outcomes))
            raise
        self._count(*outcomes)
        return done

    def _unreadable(self, detail: str) -> None:
        self._count(MessageOutcome.UNREADABLE)
        self._troubles.failed(UNREADABLE, detail)

    def _count(self, *outcomes: MessageOutcome) -> None:
        for outcome in outcomes:
            self._figures.count_message(MessageSource.QUEUE, outcome)
            if outcome is MessageOutcome.APPLIED:
                self._troubles.succeeded(UNREADABLE.__eq__)

    async def _delete(self, messages: Sequence[QueuedMessage]) -> None:
        try:
            await self._queue.delete(messages)
        except QueueError as error:  # they come again, which does no harm
            await self._failed(error)

    async def _hand_back(self, messages: Sequence[QueuedMessage]) -> None:
        try:
            await self._queue.release(messages)
        except QueueError as error:
            log.info("messages come again later: %s", error)

    def _works(self) -> None:
        self._failures = 0
        self._troubles.succeeded(lambda kind: kind in _KINDS.values())

    async def _failed(self, error: QueueError) -> None:
        self._figures.queue_failures += 1
        self._troubles.failed(_KINDS[error.fault], str(error))
        if error.fault is QueueFault.MISSING:
            self._continuity.was_missing = True
        elif error.fault is QueueFault.CREDENTIALS:
            await self._queue.renew_credentials()
        self._failures += 1
        await self._pause(self._failures)

    async def _pause(self, failures: int) -> None:
        """Wait longer after each further failure, and never as long as another reader that failed at the same time."""
        longest = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))
        await self._sleep(longest * (0.5 + random.random() / 2))  # noqa: S311 - no secret


def message_outcome(message: EventMessage) -> MessageOutcome:
    """Return how a message counts that could be read."""
    if message.subscription:
        return MessageOutcome.SUBSCRIPTION
    return MessageOutcome.TEST if message.is_test else MessageOutcome.APPLIED
