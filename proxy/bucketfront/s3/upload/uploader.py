"""Uploads to S3: one PutObject for a small body, a multipart upload for others.

A body waits for S3 in a spool. So S3 gets no request before a small body is complete. The parts of a large one are sent
side by side, and again if they fail. Without a spool bytes pass through, because no upload is held in memory as a
whole. A PutObject is not repeated: if it fails, its outcome is unknown (docs/invariants.md#write-atomicity,
docs/invariants.md#unknown-outcome).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

from bucketfront.errors import OriginError, WriteRefused
from bucketfront.http.delete_objects import DeleteOutcome
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3 import delete
from bucketfront.s3.client import S3Origin
from bucketfront.s3.responses import version_id
from bucketfront.s3.upload import conditions
from bucketfront.s3.upload.agreement import agreed_etag
from bucketfront.s3.upload.conditions import WriteStep
from bucketfront.s3.upload.expected_object import ExpectedObject
from bucketfront.s3.upload.multipart import (
    MAX_PART_BYTES,
    MAX_PARTS,
    PART_ATTEMPTS,
    Journal,
    Multipart,
    PartSent,
    Written,
)
from bucketfront.s3.upload.params import create_params, put_params
from bucketfront.s3.upload.parts import BodyPart, BufferLimiter, UploadBody, part_size
from bucketfront.s3.upload.repetition import repeated
from bucketfront.s3.upload.single_call import send
from bucketfront.s3.upload.spool import Spool

__all__ = ["S3Uploader", "Written"]

MAX_PUT_BYTES = MAX_PART_BYTES  # of a single PutObject that passes through
PARALLEL_PARTS = 4  # of one upload: enough to use a link that is faster than one connection, and few of all connections
BUFFERED_BODIES = 8  # of unknown length, in memory at once while the disk fails: 64 MiB in all

Announce = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


async def no_announcement() -> None:
    """Do nothing before a write."""


class S3Uploader:
    """Writes objects. Many uploads may run at once.

    `progress_timeout` is how many seconds without progress end a write. `journal` records the multipart uploads.
    """

    def __init__(self, origin: S3Origin, progress_timeout: float, journal: Journal | None = None) -> None:
        self._origin = origin
        self._progress_timeout = progress_timeout
        self._journal = journal
        self._limiter = BufferLimiter(BUFFERED_BODIES, progress_timeout)

    async def put(
        self,
        key: ObjectKey,
        chunks: AsyncIterator[bytes],
        length: int | None,
        head: WriteHead,
        spool: Spool | None = None,
        about_to_write: Announce = no_announcement,
    ) -> Written:
        """Store `chunks` as `key`. `length` is in bytes, None if it is unknown. The body waits in `spool`.

        `about_to_write` is awaited right before the one call by which the object may change. What `chunks` raises
        passes through, and the object keeps its old version.

        Raises AccessDenied, WriteRefused, NoSuchWrite for a condition that S3 does not keep, ContentMismatch if S3 took
        other bytes, StoreError if the spool lost bytes, OriginTimeout, OriginUnavailable. After the last two the
        outcome is unknown.
        """
        assert key.version is None, "a past version is never written"
        await conditions.require(self._origin, key, head, WriteStep.PUT)
        body = UploadBody(chunks, length, spool, self._limiter)
        try:
            if spool is None and length is not None and length <= MAX_PUT_BYTES:
                return await self._put(key, head, await body.part(length), about_to_write)
            first = await body.part(part_size(1, length))
            if first.is_last:
                return await self._put(key, head, first, about_to_write)
            return await self._multipart(key, head, body, first, about_to_write)
        finally:
            body.close()

    async def delete(self, key: ObjectKey) -> None:
        """Call S3 DeleteObject, see `S3Origin.delete`. A failure of the origin is repeated, because S3 allows that."""
        await repeated(self._origin, partial(self._origin.delete, key))

    async def delete_objects(self, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteOutcome]:
        """Call S3 DeleteObjects, see `bucketfront.s3.delete`."""
        return await delete.delete_objects(self._origin, keys)

    async def _put(self, key: ObjectKey, head: WriteHead, part: BodyPart, about_to_write: Announce) -> Written:
        params = {**put_params(head), "Bucket": key.bucket, "Key": key.key}
        await about_to_write()
        timeout = self._progress_timeout
        await self._origin.calls.wait_for_turn(key.bucket)
        async with self._origin.upload_slots.slot(timeout):
            sent = await send(
                self._origin,
                f"PUT {key}",
                "put_object",
                params,
                part.chunks,
                part.size,
                timeout,
                is_repeatable=part.is_spooled,
            )
        expected = ExpectedObject(part.size, None if sent.md5 is None else f'"{sent.md5}"', head, sent.begun_at)
        return Written(await agreed_etag(self._origin, key, sent, expected), version_id(sent.headers))

    async def _multipart(
        self, key: ObjectKey, head: WriteHead, body: UploadBody, first: BodyPart, about_to_write: Announce
    ) -> Written:
        await conditions.require(self._origin, key, head, WriteStep.COMPLETE)
        upload = await Multipart.begin(
            self._origin,
            key,
            create_params(head),
            progress_timeout=self._progress_timeout,
            journal=self._journal,
        )
        try:
            parts = await self._send_parts(upload, body, first)
            await about_to_write()
            return await upload.complete(parts, head)
        except BaseException:
            # This includes cancellation, because parts that stay at S3 cost money.
            await _abort(upload)
            raise

    async def _send_parts(self, upload: Multipart, body: UploadBody, part: BodyPart) -> list[PartSent]:
        try:
            async with asyncio.TaskGroup() as group:
                sender = _PartSender(upload, group)
                body.make_room = sender.wait_for_one
                for number in range(1, MAX_PARTS + 1):
                    await sender.start(number, part)
                    if part.is_last:
                        break
                    part = await body.part(part_size(number + 1, body.length))
                else:
                    raise WriteRefused(f"the body has more than {MAX_PARTS} parts; send Content-Length")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return sender.sent


class _PartSender:
    """Sends the parts of one upload: up to PARALLEL_PARTS that are spooled at once, and others one by one."""

    def __init__(self, upload: Multipart, group: asyncio.TaskGroup) -> None:
        self._upload = upload
        self._group = group
        self._running = 0
        self._has_ended = asyncio.Event()  # a part ended since the last `wait_for_one`
        self.sent: list[PartSent] = []

    async def start(self, number: int, part: BodyPart) -> None:
        """Start to send a part. Returns when the next one may be cut."""
        while self._running == PARALLEL_PARTS:
            await self.wait_for_one()
        self._running += 1
        task = self._group.create_task(self._send(number, part), name=f"part {number} of {self._upload.key}")
        if not part.is_spooled:
            await task

    async def wait_for_one(self) -> bool:
        """Wait until a part has ended since the last call. Returns False if none has, and none is on its way."""
        if not self._running and not self._has_ended.is_set():
            return False
        await self._has_ended.wait()
        self._has_ended.clear()
        return True

    async def _send(self, number: int, part: BodyPart) -> None:
        attempts = PART_ATTEMPTS if part.is_spooled else 1
        self.sent.append(await self._upload.part(number, part.chunks, part.size, attempts=attempts))
        await part.acknowledge()
        self._running -= 1
        self._has_ended.set()


async def _abort(upload: Multipart) -> None:
    try:
        await upload.abort()
    except OriginError as error:
        # The client gets the error of the upload itself. The journal has the upload, and it is aborted later.
        log.info("%s was not aborted: %s", upload, error)
