"""One body to S3 in one call, while it comes: PutObject and UploadPart."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from bucketfront.errors import InvalidOriginResponse, OriginError
from bucketfront.s3.client import S3Origin
from bucketfront.s3.error_translation import translated
from bucketfront.s3.upload.upload_slots import UploadSlots


class _StreamedBody:
    """A body that botocore treats as a file, because it has `read`, and aiohttp as an async iterable.

    `is_repeatable` means that each call of `chunks` yields the body from its begin. `Signature` reads it.
    """

    def __init__(
        self,
        chunks: Callable[[], AsyncIterator[bytes]],
        slots: UploadSlots,
        deadline: asyncio.Timeout,
        progress_timeout: float,
        *,
        is_repeatable: bool,
    ) -> None:
        self.is_repeatable = is_repeatable
        self._chunks = chunks
        self._slots = slots
        self._deadline = deadline
        self._progress_timeout = progress_timeout

    def read(self) -> bytes:
        raise AssertionError("botocore read a streamed body: is payload signing on?")

    def seek(self, offset: int) -> None:
        """Do nothing. botocore calls this before it sends a request again, and each iteration begins anew."""
        assert self.is_repeatable
        assert offset == 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks():
            # Each chunk that S3 accepts moves the deadline: a stalled upload ends, and a slow one does not
            # (docs/invariants.md#deadlines-everywhere).
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._progress_timeout)
            yield chunk
            self._slots.moved_bytes += len(chunk)


async def send(
    origin: S3Origin,
    what: str,
    operation: str,
    params: dict[str, Any],
    chunks: Callable[[], AsyncIterator[bytes]],
    size: int,
    progress_timeout: float,
    *,
    is_repeatable: bool,
) -> dict[str, Any]:
    """Call `operation` with a body of `size` bytes. Return the response, which has an ETag.

    `chunks` yields the body, anew with each call if `is_repeatable`. It may be called again if S3 refuses the
    signature, so that nothing is written.
    `progress_timeout` is how many seconds may pass without progress. Raises AccessDenied, WriteRefused, OriginTimeout,
    OriginUnavailable; what `chunks` raises passes through.
    """
    call = getattr(origin.client, operation)
    failure: BaseException | None = None

    async def watched() -> AsyncIterator[bytes]:
        # aiohttp wraps what a body raises, but callers need the original exception.
        nonlocal failure
        try:
            async for chunk in chunks():
                yield chunk
        except Exception as error:
            failure = error
            raise

    with origin.observed(origin.client.meta.method_to_api_mapping[operation], params["Bucket"]):
        try:
            with translated(what):
                async with asyncio.timeout(progress_timeout) as deadline:
                    body: Any = b""
                    if size:
                        slots = origin.upload_slots
                        body = _StreamedBody(watched, slots, deadline, progress_timeout, is_repeatable=is_repeatable)
                    response: dict[str, Any] = await call(**params, Body=body, ContentLength=size)
        except OriginError as error:
            if failure is not None:
                raise failure from error
            raise
        if not response.get("ETag"):
            raise InvalidOriginResponse(f"{what}: the origin named no ETag")
        return response
