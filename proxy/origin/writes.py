"""Uploads to S3: one PutObject where the length is known and small enough, else a multipart upload (I8).

A body is never held whole. Where the length is known, bytes pass straight through; a body of unknown length is
cut into parts of PART_SIZE, one in memory at a time. Nothing here is retried: a stream cannot be read twice, and
whether a write that failed half-way took place is for the client to find out (I9).
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from proxy.errors import OriginError, OriginUnavailable, WriteRefused
from proxy.http.write_head import WriteHead
from proxy.keys import ObjectKey
from proxy.origin.client import S3Origin
from proxy.origin.faults import translated
from proxy.origin.write_params import complete_params, create_params, put_params

MiB = 1 << 20
GiB = 1 << 30
MAX_PUT = 5 * GiB  # S3: the largest object of a single PutObject, and the largest part
MAX_PARTS = 10_000  # S3: parts of one multipart upload
PART_SIZE = 8 * MiB  # of a body of unknown length: MAX_PARTS of them are 78 GiB


@dataclass(frozen=True, slots=True)
class Written:
    """What S3 said to a write that it accepted."""

    etag: str


class Pieces:
    """A stream of chunks of any size, cut where S3 wants it cut."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    async def exactly(self, count: int) -> AsyncIterator[bytes]:
        """The next `count` bytes. Raises WriteRefused when the stream has fewer."""
        while count:
            piece = self._rest or await anext(self._chunks, b"")
            if not piece:
                raise WriteRefused(f"the body ended {count} bytes early")
            self._rest = piece[count:]
            piece = piece[:count]
            count -= len(piece)
            yield piece

    async def up_to(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end of the stream."""
        buffer = bytearray()
        while len(buffer) < count and (piece := self._rest or await anext(self._chunks, b"")):
            room = count - len(buffer)
            buffer += piece[:room]
            self._rest = piece[room:]
        return bytes(buffer)

    def unread(self, data: bytes) -> None:
        """Put bytes back in front."""
        self._rest = data + self._rest


class _Streamed:
    """What botocore takes for a file (it has `read`) and aiohttp for an async iterable, which it sends as it comes."""

    def __init__(self, chunks: AsyncIterator[bytes], deadline: asyncio.Timeout, patience: float) -> None:
        self._chunks = chunks
        self._deadline = deadline
        self._patience = patience

    def read(self) -> bytes:
        raise AssertionError("botocore read a streamed body: is payload signing on?")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            # Each chunk that S3 took moves the deadline: a stalled upload ends, a slow one does not (I20).
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._patience)
            yield chunk


class S3Writes:
    """`patience`: seconds without progress after which a write is given up."""

    def __init__(self, origin: S3Origin, patience: float) -> None:
        self._origin = origin
        self._patience = patience

    async def put(self, key: ObjectKey, chunks: AsyncIterator[bytes], length: int | None, head: WriteHead) -> Written:
        """Store `chunks` as `key`; `length` in bytes, None where the client did not say.

        Raises AccessDenied, WriteRefused, PreconditionFailed, WriteConflict, OriginTimeout, OriginUnavailable; the
        last two mean that the outcome is unknown. Whatever `chunks` raises passes through, and the object
        keeps its old version.
        """
        assert key.version is None, "a version of the past is never written"
        await self._origin.take_slot()
        pieces = Pieces(chunks)
        try:
            if length is None:
                start = await pieces.up_to(PART_SIZE)
                pieces.unread(start)
                if len(start) < PART_SIZE:
                    length = len(start)
            if length is not None and length <= MAX_PUT:
                body = pieces.exactly(length)
                params = {"Bucket": key.bucket, "Key": key.key, **put_params(head)}
                return Written(await self._send(f"PUT {key}", "put_object", params, body, length))
            return await self._multipart(key, head, pieces, length)
        finally:
            self._origin.return_slot()

    async def delete(self, key: ObjectKey) -> None:
        """S3 DeleteObject, see `S3Origin.delete`."""
        await self._origin.delete(key)

    async def _send(
        self, what: str, operation: str, params: dict[str, Any], body: AsyncIterator[bytes], length: int
    ) -> str:
        call = getattr(self._origin.client, operation)
        failure: BaseException | None = None

        async def watched() -> AsyncIterator[bytes]:
            # aiohttp wraps what a body raises; the caller wants the thing itself.
            nonlocal failure
            try:
                async for chunk in body:
                    yield chunk
            except Exception as error:
                failure = error
                raise

        try:
            with translated(what):
                async with asyncio.timeout(self._patience) as deadline:
                    streamed = _Streamed(watched(), deadline, self._patience) if length else b""
                    response = await call(**params, Body=streamed, ContentLength=length)
        except OriginError as error:
            if failure is not None:
                raise failure from error
            raise
        if not response.get("ETag"):
            raise OriginUnavailable(f"{what}: the origin named no ETag")
        return str(response["ETag"])

    async def _multipart(self, key: ObjectKey, head: WriteHead, pieces: Pieces, length: int | None) -> Written:
        client = self._origin.client
        params = {"Bucket": key.bucket, "Key": key.key, **create_params(head)}
        created = await self._origin.call(f"CREATE UPLOAD {key}", client.create_multipart_upload, params)
        if not created.get("UploadId"):
            raise OriginUnavailable(f"CREATE UPLOAD {key}: the origin named no upload")
        upload = {"Bucket": key.bucket, "Key": key.key, "UploadId": created["UploadId"]}
        try:
            parts = await self._parts(key, upload, pieces, length)
            done = await self._origin.call(
                f"COMPLETE UPLOAD {key}",
                client.complete_multipart_upload,
                {**upload, "MultipartUpload": {"Parts": parts}, **complete_params(head)},
            )
        except BaseException:
            # Cancellation too: parts left behind cost money every month.
            await asyncio.shield(self._abort(key, upload))
            raise
        if "ETag" not in done:  # S3 may say 200 first and fail afterwards
            raise OriginUnavailable(f"COMPLETE UPLOAD {key}: the origin named no ETag")
        return Written(done["ETag"])

    async def _parts(
        self, key: ObjectKey, upload: dict[str, Any], pieces: Pieces, length: int | None
    ) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        async for body, size in _cut(pieces, length):
            number = len(parts) + 1
            if number > MAX_PARTS:
                raise WriteRefused(
                    f"a body of unknown length may have {MAX_PARTS * PART_SIZE} bytes; send Content-Length"
                )
            params = {**upload, "PartNumber": number}
            etag = await self._send(f"PUT part {number} of {key}", "upload_part", params, body, size)
            parts.append({"PartNumber": number, "ETag": etag})
        return parts

    async def _abort(self, key: ObjectKey, upload: dict[str, Any]) -> None:
        try:
            await self._origin.call(f"ABORT UPLOAD {key}", self._origin.client.abort_multipart_upload, upload)
        except OriginError:
            # The upload has failed already, and that is what the client hears; the bucket's lifecycle rule for
            # incomplete uploads is the second net.
            return


async def _cut(pieces: Pieces, length: int | None) -> AsyncIterator[tuple[AsyncIterator[bytes], int]]:
    if length is None:
        while True:
            part = await pieces.up_to(PART_SIZE)
            yield _once(part), len(part)
            if len(part) < PART_SIZE:
                return
    size = max(64 * MiB, -(-length // MAX_PARTS))
    for start in range(0, length, size):
        count = min(size, length - start)
        yield pieces.exactly(count), count


async def _once(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data
