"""The way of a resumable upload to S3: its parts, and the object that S3 makes of them.

A part is noted in the record once S3 has it, and its file is removed after that. A kill in between sends it again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from bucketfront.errors import NoSuchUpload, ObjectNotFound, PreconditionFailed
from bucketfront.http import checksums
from bucketfront.http.metadata import Metadata
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload import conditions
from bucketfront.s3.upload.conditions import WriteStep
from bucketfront.s3.upload.multipart import Multipart, PartSent
from bucketfront.s3.upload.params import create_params
from bucketfront.s3.upload.uploader import Written
from bucketfront.tus.refusals import UploadLost
from bucketfront.tus.staging import PartStaging
from bucketfront.tus.tus_upload import TusUpload
from bucketfront.tus.uninterrupted import run_uninterrupted

StoreObject = Callable[[ObjectKey, AsyncIterator[bytes], int, WriteHead], Awaitable[Written]]
ChangeObject = Callable[[ObjectKey], AbstractAsyncContextManager[Callable[[], Awaitable[None]]]]
"""It gives a write its place among those of the key, and yields what the write awaits right before its call to S3."""


class S3Transfer:
    """Sends staged bytes to S3. The caller holds the upload.

    `store` makes an object of a body in one call, and its cached entry. `change` is around any other write of a key.
    `save` writes the record of an upload to the disk.
    """

    def __init__(
        self,
        origin: S3Origin,
        staging: PartStaging,
        *,
        store: StoreObject,
        change: ChangeObject,
        save: Callable[[TusUpload], Coroutine[Any, Any, None]],
    ) -> None:
        self._origin = origin
        self._staging = staging
        self._store = store
        self._change = change
        self._save = save

    async def send_part(self, upload: TusUpload) -> None:
        """Send the staged bytes as the next part. Raises OriginErrors, UploadLost, StoreError."""
        if upload.record.upload_id is None:
            await self._begin(upload)
        number, size = upload.record.next_part, upload.staged
        try:
            sent = await self._multipart(upload).part(number, lambda: self._staging.read(upload), size)
        except NoSuchUpload as error:
            raise _lost() from error
        await run_uninterrupted(self._note_part(upload, sent))

    async def finish(self, upload: TusUpload) -> str:
        """Make the object of a whole upload. Return its ETag. A repeated call finds the object that it made before.

        Raises OriginErrors, UploadLost, StoreError. After an OriginUnavailable the outcome is unknown.
        """
        if upload.etag is not None:
            return upload.etag
        try:
            if upload.record.upload_id is None:
                written = await self._store(upload.key, self._staging.read(upload), upload.length, upload.record.head)
            else:
                written = await self._complete(upload)
            etag = written.etag
        except NoSuchUpload as error:
            raise _lost() from error
        except PreconditionFailed:
            # An earlier PutObject may have made the object, while its response was lost.
            if upload.record.upload_id is not None:
                raise
            etag = await self._staged_etag(upload)
            if etag != await self._current_etag(upload.key):
                raise
        await run_uninterrupted(self._note_finished(upload, etag))
        return etag

    async def abort(self, upload: TusUpload) -> None:
        """Abort the multipart upload, if there is one. Raises OriginErrors."""
        if upload.record.upload_id is not None:
            await self._multipart(upload).abort()

    async def _begin(self, upload: TusUpload) -> None:
        await conditions.require(self._origin, upload.key, upload.record.head, WriteStep.COMPLETE)
        multipart = await Multipart.begin(self._origin, upload.key, create_params(upload.record.head))
        upload.record = replace(upload.record, upload_id=multipart.id, begun_at=multipart.begun_at)
        await run_uninterrupted(self._save(upload))

    def _multipart(self, upload: TusUpload) -> Multipart:
        record = upload.record
        assert record.upload_id is not None
        return Multipart.resumed(self._origin, upload.key, record.upload_id, begun_at=record.begun_at)

    async def _complete(self, upload: TusUpload) -> Written:
        """Send what is staged as the last part, and complete the upload. All of its bytes have come already."""
        async with self._change(upload.key) as about_to_write:
            if upload.staged:
                await self.send_part(upload)
            await about_to_write()
            record = upload.record
            return await self._multipart(upload).complete(record.parts, record.head, may_be_complete=True)

    async def _note_part(self, upload: TusUpload, sent: PartSent) -> None:
        upload.record = upload.record.with_part(sent)
        in_file = self._staging.detach(upload)
        await self._save(upload)
        await self._staging.remove(upload, sent.number, in_file)

    async def _note_finished(self, upload: TusUpload, etag: str) -> None:
        part, in_file = upload.record.next_part, self._staging.detach(upload)
        upload.record = upload.record.finished(etag)
        await self._save(upload)
        await self._staging.remove(upload, part, in_file)

    async def _staged_etag(self, upload: TusUpload) -> str:
        """Return the ETag that a PutObject of the staged bytes gets (S3 User Guide, "Checking object integrity")."""
        state = checksums.hasher(checksums.MD5)
        async for piece in self._staging.read(upload):
            state.update(piece)
        return f'"{state.digest().hex()}"'

    async def _current_etag(self, key: ObjectKey) -> str | None:
        try:
            metadata = await self._origin.head(key)
        except ObjectNotFound:
            return None
        return metadata.etag if isinstance(metadata, Metadata) else None


def _lost() -> UploadLost:
    return UploadLost("the origin does not know this upload any more")
