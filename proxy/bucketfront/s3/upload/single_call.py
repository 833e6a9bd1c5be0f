"""One body to S3, in one call, as it comes: PutObject and UploadPart."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from bucketfront.errors import OriginError, OriginUnavailable
from bucketfront.s3.client import S3Origin
from bucketfront.s3.error_translation import translated
from bucketfront.s3.upload.upload_slots import UploadSlots


class _Streamed:
    """What botocore takes for a file (it has `read`) and aiohttp for an async iterable, which it sends as it comes."""

    def __init__(
        self, chunks: AsyncIterator[bytes], slots: UploadSlots, deadline: asyncio.Timeout, patience: float
    ) -> None:
        self._chunks = chunks
        self._slots = slots
        self._deadline = deadline
        self._patience = patience

    def read(self) -> bytes:
        raise AssertionError("botocore read a streamed body: is payload signing on?")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            # Each chunk that S3 took moves the deadline: a stalled upload ends, a slow one does not (I20).
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._patience)
            yield chunk
            self._slots.moved += len(chunk)


async def send(
    origin: S3Origin,
    what: str,
    operation: str,
    params: dict[str, Any],
    chunks: AsyncIterator[bytes],
    size: int,
    patience: float,
) -> dict[str, Any]:
    """Call `operation` with a body of `size` bytes; `patience`: seconds without progress after which it is given up.
    Returns what S3 said, an ETag among it.

    Raises AccessDenied, WriteRefused, OriginTimeout, OriginUnavailable; whatever `chunks` raises passes through.
    """
    call = getattr(origin.client, operation)
    failure: BaseException | None = None

    async def watched() -> AsyncIterator[bytes]:
        # aiohttp wraps what a body raises; the caller wants the thing itself.
        nonlocal failure
        try:
            async for chunk in chunks:
                yield chunk
        except Exception as error:
            failure = error
            raise

    try:
        with translated(what):
            async with asyncio.timeout(patience) as deadline:
                body = _Streamed(watched(), origin.upload_slots, deadline, patience) if size else b""
                response: dict[str, Any] = await call(**params, Body=body, ContentLength=size)
    except OriginError as error:
        if failure is not None:
            raise failure from error
        raise
    if not response.get("ETag"):
        raise OriginUnavailable(f"{what}: the origin named no ETag")
    return response
