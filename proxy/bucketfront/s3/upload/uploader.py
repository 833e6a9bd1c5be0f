"""Uploads to S3: one PutObject for a small body, a multipart upload for others (I8).

A body waits for S3 in a spool, so that S3 is asked for nothing before a small one is whole, and parts of a large one
go up side by side, each of them a second time where it has to. Without a spool bytes pass through: no upload is ever
held whole. A PutObject is not retried, nor the end of a multipart upload: whether a write that failed took place is
for the client to find out (I9).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from bucketfront.errors import OriginError, WriteRefused
from bucketfront.http.delete_objects import DeleteFailure
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3 import delete
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.multipart import MAX_ATTEMPTS, MAX_PART, MAX_PARTS, Journal, Multipart, PartSent, Written
from bucketfront.s3.upload.params import complete_params, create_params, put_params
from bucketfront.s3.upload.parts import Body, Buffers, Part, part_size
from bucketfront.s3.upload.single_call import send
from bucketfront.s3.upload.spool import Spool

__all__ = ["S3Uploader", "Written"]

MAX_PUT = MAX_PART  # bytes of a single PutObject that passes through
PARALLEL = 4  # parts of one upload at once
BUFFERS = 8  # bodies of unknown length that are held in memory at once, where the disk does not take them

Announce = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


async def nobody_minds() -> None:
    pass


class S3Uploader:
    """`patience`: seconds without progress after which a write is given up. `notes`: of the uploads that were begun."""

    def __init__(self, origin: S3Origin, patience: float, notes: Journal | None = None) -> None:
        self._origin = origin
        self._patience = patience
        self._notes = notes
        self._buffers = Buffers(BUFFERS, patience)

    async def put(
        self,
        key: ObjectKey,
        chunks: AsyncIterator[bytes],
        length: int | None,
        head: WriteHead,
        spool: Spool | None = None,
        about_to_write: Announce = nobody_minds,
    ) -> Written:
        """Store `chunks` as `key`; `length` in bytes, None where the client did not say. `spool`: where they wait.
        `about_to_write` is awaited right before the one call by which the object may change.

        Raises AccessDenied, WriteRefused, OriginTimeout, OriginUnavailable; the last two mean that the outcome is
        unknown. StoreError: the spool lost what it had taken. Whatever `chunks` raises passes through, and the object
        keeps its old version.
        """
        assert key.version is None, "a version of the past is never written"
        body = Body(chunks, length, spool, self._buffers)
        try:
            if spool is None and length is not None and length <= MAX_PUT:
                return await self._put(key, head, await body.part(length), about_to_write)
            first = await body.part(part_size(1, length))
            if first.is_last:
                return await self._put(key, head, first, about_to_write)
            return await self._multipart(key, head, body, first, about_to_write)
        finally:
            body.close()

    async def delete(self, key: ObjectKey) -> None:
        """S3 DeleteObject, see `S3Origin.delete`."""
        await self._origin.delete(key)

    async def delete_objects(self, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteFailure | None]:
        """S3 DeleteObjects, see `bucketfront.s3.delete`."""
        return await delete.delete_objects(self._origin, keys)

    async def _put(self, key: ObjectKey, head: WriteHead, body: Part, about_to_write: Announce) -> Written:
        params = {**put_params(head), "Bucket": key.bucket, "Key": key.key}
        await about_to_write()
        async with self._origin.upload_slots.one(self._patience):
            what = f"PUT {key}"
            said = await send(self._origin, what, "put_object", params, body.chunks(), body.size, self._patience)
        return Written(str(said["ETag"]))

    async def _multipart(
        self, key: ObjectKey, head: WriteHead, body: Body, first: Part, about_to_write: Announce
    ) -> Written:
        params = create_params(head)
        upload = await Multipart.begin(self._origin, key, params, patience=self._patience, notes=self._notes)
        try:
            parts = await self._parts(upload, body, first)
            await about_to_write()
            return await upload.complete(parts, **complete_params(head))
        except BaseException:
            # Cancellation too: parts left behind cost money every month.
            await _give_up(upload)
            raise

    async def _parts(self, upload: Multipart, body: Body, part: Part) -> list[PartSent]:
        try:
            async with asyncio.TaskGroup() as group:
                sending = _Sending(upload, group)
                body.make_room = sending.one_ends
                for number in range(1, MAX_PARTS + 1):
                    await sending.start(number, part)
                    if part.is_last:
                        break
                    part = await body.part(part_size(number + 1, body.length))
                else:
                    raise WriteRefused(f"the body has more than {MAX_PARTS} parts; send Content-Length")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return sending.sent


class _Sending:
    """Parts of one upload on their way: PARALLEL of those that are spooled, and then one that is not."""

    def __init__(self, upload: Multipart, group: asyncio.TaskGroup) -> None:
        self._upload = upload
        self._group = group
        self._running = 0
        self._ended = asyncio.Event()
        self.sent: list[PartSent] = []

    async def start(self, number: int, part: Part) -> None:
        """Returns when the next part may be made."""
        while self._running == PARALLEL:
            await self.one_ends()
        self._running += 1
        sending = self._group.create_task(self._send(number, part), name=f"part {number} of {self._upload.key}")
        if not part.is_spooled:
            await sending

    async def one_ends(self) -> bool:
        """Returns once one has ended since the last call; False where none has, and none is on its way."""
        if not self._running and not self._ended.is_set():
            return False
        await self._ended.wait()
        self._ended.clear()
        return True

    async def _send(self, number: int, part: Part) -> None:
        attempts = MAX_ATTEMPTS if part.is_spooled else 1
        self.sent.append(await self._upload.part(number, part.chunks, part.size, attempts=attempts))
        await part.acknowledge()
        self._running -= 1
        self._ended.set()


async def _give_up(upload: Multipart) -> None:
    try:
        await upload.abort()
    except OriginError as error:
        # The upload has failed already, and that is what the client hears. It is noted, and tried again.
        log.info("%s was not aborted: %s", upload, error)
