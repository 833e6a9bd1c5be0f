"""One multipart upload at S3: it is created, gets its parts, and is completed or aborted.

See S3 User Guide, "Uploading and copying objects using multipart upload". Two rules hold:

- An upload that was created is completed or aborted, also if its creator is cancelled
  (docs/invariants.md#write-atomicity, docs/invariants.md#cancellation).
- A part may be sent twice, because no reader sees it before the end. The completion is sent once. If it fails, its
  outcome is unknown, and another client may have written the object since (docs/invariants.md#unknown-outcome).
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, Self

from bucketfront.errors import NoSuchUpload, OriginBusy, OriginError, OriginUnavailable
from bucketfront.keys import ObjectKey
from bucketfront.retry import backoff
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.single_call import send

MAX_PART_BYTES = 5 << 30  # S3's limit for a part, and for the object of a single PutObject
MAX_PARTS = 10_000  # S3's limit for one multipart upload
PROGRESS_TIMEOUT_S = 60.0  # without progress, until a call is given up: three times the default of `read_timeout`
COMPLETION_TIMEOUT_S = 300.0  # S3 takes minutes to put 10,000 parts together, and sends spaces meanwhile
PART_ATTEMPTS = 3  # to send one part: as many as for a read
RETRY_PAUSE_S = 0.2  # at most before a part's second attempt, doubled for the third: short beside a part's transfer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """The response to a write that S3 accepted."""

    etag: str


@dataclass(frozen=True, slots=True)
class PartSent:
    """A part that S3 has. `number` counts from 1, `size` is in bytes."""

    number: int
    etag: str
    size: int


class Journal(Protocol):
    """A record of the uploads that were created, which outlives this process. `journal.UploadJournal` implements it."""

    async def add(self, key: ObjectKey, upload_id: str) -> None:
        """Note an upload. It outlives a kill once this returns."""

    async def remove(self, upload_id: str) -> None:
        """Forget an upload that was completed or aborted."""

    def abandon(self, upload_id: str) -> None:
        """Note that an upload could not be aborted, and that its owner does not try again."""


class Multipart:
    """One upload, by its id at S3.

    `progress_timeout` is how many seconds without progress end the transfer of a part. Without a `journal` the owner
    keeps a record of the upload himself.
    """

    def __init__(
        self,
        origin: S3Origin,
        key: ObjectKey,
        upload_id: str,
        progress_timeout: float = PROGRESS_TIMEOUT_S,
        journal: Journal | None = None,
    ) -> None:
        self._origin = origin
        self._progress_timeout = progress_timeout
        self._journal = journal
        self.key = key
        self.id = upload_id

    def __repr__(self) -> str:
        return f"<Multipart {self.key} {self.id}>"

    @classmethod
    async def begin(
        cls,
        origin: S3Origin,
        key: ObjectKey,
        params: dict[str, Any],
        *,
        progress_timeout: float = PROGRESS_TIMEOUT_S,
        journal: Journal | None = None,
    ) -> Self:
        """Call S3 CreateMultipartUpload. `params` are its parameters beside the key: see `params.create_params`.

        If it is cancelled, the upload is aborted as soon as S3 has sent its id. Raises AccessDenied, WriteRefused,
        OriginTimeout, OriginUnavailable.
        """
        assert key.version is None, "a past version is never written"
        task = asyncio.create_task(cls._create(origin, key, params, progress_timeout, journal))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            origin.background.start(_abort_created(task))
            raise

    @classmethod
    async def _create(
        cls, origin: S3Origin, key: ObjectKey, params: dict[str, Any], progress_timeout: float, journal: Journal | None
    ) -> Self:
        what = f"CREATE UPLOAD {key}"
        async with origin.connection(key.bucket):
            named = {**params, "Bucket": key.bucket, "Key": key.key}
            created = await origin.call(what, origin.client.create_multipart_upload, named)
        if not created.get("UploadId"):
            raise OriginUnavailable(f"{what}: the origin named no upload")
        upload = cls(origin, key, str(created["UploadId"]), progress_timeout, journal)
        if journal is not None:
            # A kill before this leaves an upload without parts, which costs nothing.
            await journal.add(key, upload.id)
        return upload

    @classmethod
    def resumed(
        cls,
        origin: S3Origin,
        key: ObjectKey,
        upload_id: str,
        *,
        progress_timeout: float = PROGRESS_TIMEOUT_S,
        journal: Journal | None = None,
    ) -> Self:
        """Return an upload that was created before, perhaps by another process. It makes no request."""
        return cls(origin, key, upload_id, progress_timeout, journal)

    async def part(
        self,
        number: int,
        chunks: Callable[[], AsyncIterator[bytes]],
        size: int,
        *,
        attempts: int = PART_ATTEMPTS,
        **checksums: str,
    ) -> PartSent:
        """Call S3 UploadPart with `size` bytes, which `chunks` yields anew for each of `attempts`.

        `checksums` are UploadPart's own parameters. Raises NoSuchUpload, AccessDenied, WriteRefused, OriginTimeout,
        OriginUnavailable, OriginBusy; what `chunks` raises passes through.
        """
        assert 1 <= number <= MAX_PARTS
        what = f"PUT part {number} of {self.key}"
        params = {**self._params, "PartNumber": number, **checksums}
        self._origin.retries.earn()
        for attempt in range(1, attempts + 1):
            try:
                await self._origin.wait_for_turn(self.key.bucket)
                async with self._origin.upload_slots.slot(self._progress_timeout):
                    body = chunks()
                    response = await send(self._origin, what, "upload_part", params, body, size, self._progress_timeout)
                self._origin.parts += 1
                return PartSent(number, str(response["ETag"]), size)
            except OriginUnavailable as error:
                # OriginBusy sent no request, because none of our connections came free.
                is_free = isinstance(error, OriginBusy)
                if attempt == attempts or error.is_final or not (is_free or self._origin.retries.spend()):
                    raise
                self._origin.parts_retried += 1
                log.info("%s is sent again: %s", what, error)
                await asyncio.sleep(backoff(RETRY_PAUSE_S, attempt, random.random()))  # noqa: S311 - jitter, no secret
        raise AssertionError("unreachable")

    async def complete(self, parts: Iterable[PartSent], **conditions: Any) -> Written:
        """Call S3 CompleteMultipartUpload with parts in any order. `conditions` are its parameters, as IfNoneMatch.

        A failure does not abort the upload. Raises NoSuchUpload, AccessDenied, WriteRefused. After OriginTimeout or
        OriginUnavailable the outcome is unknown.
        """
        what = f"COMPLETE UPLOAD {self.key}"
        named = [{"PartNumber": part.number, "ETag": part.etag} for part in sorted(parts, key=lambda p: p.number)]
        params = {**self._params, "MultipartUpload": {"Parts": named}, **conditions}
        async with self._origin.connection(self.key.bucket):
            call = self._origin.client.complete_multipart_upload
            done = await self._origin.call(what, call, params, call_timeout=COMPLETION_TIMEOUT_S)
        if not done.get("ETag"):  # S3 may send status 200 first and fail afterwards
            raise OriginUnavailable(f"{what}: the origin named no ETag")
        await self._forget()
        etag = str(done["ETag"]).strip('"')  # some compatible servers leave the quotes out of their XML
        return Written(f'"{etag}"')

    async def abort(self) -> None:
        """Call S3 AbortMultipartUpload, so that the parts cost nothing. An upload that S3 does not know is fine.

        It finishes in the background if the caller is cancelled. Raises OriginErrors, and then the journal keeps the
        upload.
        """
        await self._origin.background.run(self._abort())

    async def _abort(self) -> None:
        try:
            async with self._origin.connection(self.key.bucket):
                what, call = f"ABORT UPLOAD {self.key}", self._origin.client.abort_multipart_upload
                await self._origin.call(what, call, self._params)
        except NoSuchUpload:
            pass  # it was completed or aborted before
        except OriginError:
            if self._journal is not None:
                self._journal.abandon(self.id)
            raise
        await self._forget()

    async def _forget(self) -> None:
        if self._journal is not None:
            await self._journal.remove(self.id)

    @property
    def _params(self) -> dict[str, Any]:
        return {"Bucket": self.key.bucket, "Key": self.key.key, "UploadId": self.id}


async def _abort_created(creation: "asyncio.Task[Multipart]") -> None:
    """Abort an upload whose creator was cancelled, as soon as it is created."""
    try:
        await (await creation).abort()
    except OriginError as error:
        log.info("an upload that nobody wants any more was not aborted: %s", error)
