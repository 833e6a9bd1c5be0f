"""One body to S3 in one call, while it comes: PutObject and UploadPart."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bucketfront.errors import OriginError
from bucketfront.http import content_digests, etags
from bucketfront.s3.client import S3Origin
from bucketfront.s3.error_translation import translated
from bucketfront.s3.upload.expected_object import begun_at
from bucketfront.s3.upload.sent_digest import SentDigest
from bucketfront.s3.upload.upload_slots import UploadSlots

# A verdict about a bucket. A digest that nothing is compared with would cost a tenth of a second for 64 MiB.
_COMPARABLE = "ETags look like MD5s"


@dataclass(frozen=True, slots=True)
class SentBody:
    """A body that S3 took, with its response.

    - `etag` is that of the response in wire form, or "" if it has none.
    - `md5` is that of the bytes that were sent, as 32 hex digits. It is None if the bucket's latest ETag did not look
      like an MD5.
    - `headers` are those of the response, with names in lower case.
    - `begun_at` is a time before the call, in seconds by the origin's clock, or None.
    """

    etag: str
    md5: str | None
    headers: Mapping[str, str]
    begun_at: float | None


class _StreamedBody:
    """A body that botocore treats as a file, because it has `read`, and aiohttp as an async iterable.

    `is_repeatable` means that each call of `chunks` yields the body from its begin. `Signature` reads it.
    """

    def __init__(
        self,
        chunks: Callable[[], AsyncIterator[bytes]],
        digest: SentDigest | None,
        slots: UploadSlots,
        deadline: asyncio.Timeout,
        progress_timeout: float,
        *,
        is_repeatable: bool,
    ) -> None:
        self.is_repeatable = is_repeatable
        self._chunks = chunks
        self._digest = digest
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
        if self._digest is not None:
            self._digest.begin()
        async for chunk in self._chunks():
            # Each chunk that S3 accepts moves the deadline: a stalled upload ends, and a slow one does not
            # (docs/invariants.md#deadlines-everywhere).
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._progress_timeout)
            if self._digest is not None:
                await self._digest.update(chunk)
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
) -> SentBody:
    """Call `operation` with a body of `size` bytes.

    `chunks` yields the body, anew with each call if `is_repeatable`. It may be called again if S3 refuses the
    signature, so that nothing is written.

    `progress_timeout` is how many seconds may pass without progress. Raises AccessDenied, WriteRefused, OriginTimeout,
    OriginUnavailable; what `chunks` raises passes through.
    """
    call, clock, bucket = getattr(origin.client, operation), asyncio.get_running_loop().time, params["Bucket"]
    began = clock()
    digest = None if origin.verdicts.known((bucket, _COMPARABLE)) is False else SentDigest()
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

    with origin.calls.observed(origin.client.meta.method_to_api_mapping[operation], bucket):
        try:
            async with origin.calls.judged(params):
                with translated(what, params):
                    async with asyncio.timeout(progress_timeout) as deadline:
                        body: Any = b""
                        if size:
                            slots = origin.upload_slots
                            body = _StreamedBody(
                                watched, digest, slots, deadline, progress_timeout, is_repeatable=is_repeatable
                            )
                        response: dict[str, Any] = await call(**params, Body=body, ContentLength=size)
        except OriginError as error:
            if failure is not None:
                raise failure from error
            raise
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    etag = etags.normalised(str(response.get("ETag") or ""))
    if etag:
        is_opaque = content_digests.md5_of(etag) is None or content_digests.has_opaque_etag(headers)
        origin.verdicts.note((bucket, _COMPARABLE), holds=not is_opaque)
    md5 = None if digest is None else await digest.value()
    return SentBody(etag, md5, headers, begun_at(headers, clock() - began))
