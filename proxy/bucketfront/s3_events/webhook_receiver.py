"""What the webhook does with a post: check its token, apply its events, and watch for a time without the webhook."""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable
from typing import NoReturn

from bucketfront.errors import StoreError
from bucketfront.s3_events.continuity import NOTE_INTERVAL_S, Continuity
from bucketfront.s3_events.event import UnreadableMessage
from bucketfront.s3_events.event_applier import EventApplier
from bucketfront.s3_events.figures import MessageOutcome, MessageSource
from bucketfront.s3_events.message_reader import read_message
from bucketfront.s3_events.queue_reader import MAX_SHOWN_CHARS, UNREADABLE, message_outcome
from bucketfront.troubles import Troubles

RETRY_PAUSE_S = 1.0  # until a failed mark of all objects is tried again

log = logging.getLogger(__name__)


class WebhookReceiver:
    """Takes the messages of the webhook. `path` is where it is, and `clock` is wall time."""

    def __init__(
        self,
        path: str,
        applier: EventApplier,
        continuity: Continuity,
        troubles: Troubles,
        clock: Callable[[], float],
        may_apply: Callable[[], bool] = lambda: True,
    ) -> None:
        self.path = path
        self._applier = applier
        self._continuity = continuity
        self._troubles = troubles
        self._clock = clock
        self._may_apply = may_apply

    async def run(self) -> NoReturn:
        """Note for ever that posts can come, and mark all objects stale after a time in which they could not."""
        while True:
            if not self._may_apply() or await self.note():
                await asyncio.sleep(NOTE_INTERVAL_S)
            else:
                await asyncio.sleep(RETRY_PAUSE_S)

    async def note(self) -> bool:
        """Do one round of `run`. Return whether it succeeded."""
        now = self._clock()
        try:
            if (loss := self._continuity.loss(now, None)) is not None:
                await self._applier.expire_all(loss)
            await asyncio.to_thread(self._continuity.note, now)
        except StoreError as error:
            self._continuity.forget()
            log.warning("objects cannot be marked stale, which is tried again: %s", error)
            return False
        except OSError as error:
            log.warning("%s cannot be written: %s", self._continuity.path, error.strerror)
        return True

    def refuse(self) -> None:
        """Count a post without the token."""
        self._count(MessageOutcome.UNAUTHORIZED)

    async def take(self, body: bytes) -> MessageOutcome:
        """Apply what a post holds. When it returns, no request gets what the events have changed.

        Raises UnreadableMessage. Raises StoreError if the sender must send it again.
        """
        try:
            message = await read_message(body)
        except UnreadableMessage as error:
            self._unreadable(f"{error}: {body[:MAX_SHOWN_CHARS]!a}")
            raise
        try:
            await self._applier.apply(message)
        except StoreError:
            self._count(MessageOutcome.FAILED)
            raise
        if message.unreadable:
            self._unreadable(f"{message.unreadable} records: {body[:MAX_SHOWN_CHARS]!a}")
            return MessageOutcome.UNREADABLE
        outcome = message_outcome(message)
        self._count(outcome)
        if outcome is MessageOutcome.APPLIED:
            self._troubles.succeeded(UNREADABLE.__eq__)
        return outcome

    def _unreadable(self, detail: str) -> None:
        self._count(MessageOutcome.UNREADABLE)
        self._troubles.failed(UNREADABLE, detail)

    def _count(self, outcome: MessageOutcome) -> None:
        self._applier.figures.count_message(MessageSource.WEBHOOK, outcome)


def as_bearer(authorization: str | None) -> str | None:
    """Return an Authorization with its token in the form of Bearer. The password of Basic is taken for a token.

    Senders that know no bearer tokens send the user and password of their URL.
    """
    if authorization is None or authorization[:6].lower() != "basic ":
        return authorization
    try:
        pair = base64.b64decode(authorization[6:].strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return authorization
    return f"Bearer {pair.partition(':')[2]}"
