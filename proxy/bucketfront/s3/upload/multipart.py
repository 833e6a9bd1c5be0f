"""One multipart upload at S3: begun, its parts, completed or aborted (S3 User Guide, "Multipart upload").

Rule 1: an upload that was begun is completed or aborted, whatever becomes of the one who began it (I8, I12).
Rule 2: a part may be sent twice, for nobody sees it before the end. Completing may not: whether it took place is
unknown then, and somebody may have written the object since (I9).
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

MiB = 1 << 20
MAX_PART = 5 << 30  # bytes, S3: the largest part, and the largest object of a single PutObject
MAX_PARTS = 10_000  # S3: parts of one multipart upload
PATIENCE = 60.0  # seconds without progress until a part is given up
COMPLETION = 300.0  # seconds: S3 takes minutes to put 10,000 parts together, and sends spaces meanwhile
MAX_ATTEMPTS = 3
RETRY_PAUSE_S = 0.2  # at most before a part's second attempt, doubled for the third: short beside the transfer of 8 MiB

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """What S3 said to a write that it accepted."""

    etag: str


@dataclass(frozen=True, slots=True)
class PartSent:
    """A part that S3 has. `number` counts from 1; `size` in bytes."""

    number: int
    etag: str
    size: int


class Journal(Protocol):
    """Who keeps in mind which uploads were begun, beyond this process. `journal.Begun` is the real one."""

    async def add(self, key: ObjectKey, upload_id: str) -> None:
        """Returns once a kill does not make it forgotten."""

    async def remove(self, upload_id: str) -> None:
        """It was completed or aborted, so that nothing of it is left."""

    def abandon(self, upload_id: str) -> None:
        """It could not be aborted, and its owner does not try again."""


class Multipart:
    """`patience`: seconds without progress until a call is given up. `notes` None: its owner cares for it himself."""

    def __init__(
        self, origin: S3Origin, key: ObjectKey, upload_id: str, patience: float = PATIENCE, notes: Journal | None = None
    ) -> None:
        self._origin = origin
        self._patience = patience
        self._notes = notes
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
        patience: float = PATIENCE,
        notes: Journal | None = None,
    ) -> Self:
        """S3 CreateMultipartUpload. `params` are its own beside the key: see `params.create_params`.

        Raises AccessDenied, WriteRefused, OriginTimeout, OriginUnavailable. Cancelled, it is aborted once S3 said
        which upload it is.
        """
        assert key.version is None, "a version of the past is never written"
        task = asyncio.create_task(cls._begun(origin, key, params, patience, notes))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            origin.in_background(_aborted(task))
            raise

    @classmethod
    async def _begun(
        cls, origin: S3Origin, key: ObjectKey, params: dict[str, Any], patience: float, notes: Journal | None
    ) -> Self:
        what = f"CREATE UPLOAD {key}"
        async with origin.connection():
            asked = {**params, "Bucket": key.bucket, "Key": key.key}
            created = await origin.call(what, origin.client.create_multipart_upload, asked)
        if not created.get("UploadId"):
            raise OriginUnavailable(f"{what}: the origin named no upload")
        upload = cls(origin, key, str(created["UploadId"]), patience, notes)
        if notes is not None:
            # Before its first part: one without parts costs nothing, should a kill come before.
            await notes.add(key, upload.id)
        return upload

    @classmethod
    def resumed(
        cls,
        origin: S3Origin,
        key: ObjectKey,
        upload_id: str,
        *,
        patience: float = PATIENCE,
        notes: Journal | None = None,
    ) -> Self:
        """One that was begun before, by another process perhaps. Nothing is asked."""
        return cls(origin, key, upload_id, patience, notes)

    async def part(
        self,
        number: int,
        chunks: Callable[[], AsyncIterator[bytes]],
        size: int,
        *,
        attempts: int = MAX_ATTEMPTS,
        **checksums: str,
    ) -> PartSent:
        """S3 UploadPart: `size` bytes, which `chunks` gives anew for each attempt; 1 attempt where it cannot.

        `checksums` are UploadPart's own parameters. Raises NoSuchUpload, AccessDenied, WriteRefused, OriginTimeout,
        OriginUnavailable, OriginBusy; whatever `chunks` raises passes through.
        """
        assert 1 <= number <= MAX_PARTS
        what = f"PUT part {number} of {self.key}"
        params = {**self._params, "PartNumber": number, **checksums}
        self._origin.retries.earn()
        for attempt in range(1, attempts + 1):
            try:
                async with self._origin.upload_slots.one(self._patience):
                    body = chunks()
                    said = await send(self._origin, what, "upload_part", params, body, size, self._patience)
                self._origin.parts += 1
                return PartSent(number, str(said["ETag"]), size)
            except OriginUnavailable as error:
                # Nobody was asked where none of our connections came free.
                is_free = isinstance(error, OriginBusy)
                if attempt == attempts or not (is_free or self._origin.retries.spend()):
                    raise
                self._origin.parts_retried += 1
                log.info("%s is sent again: %s", what, error)
                await asyncio.sleep(backoff(RETRY_PAUSE_S, attempt, random.random()))  # noqa: S311 - jitter, no secret
        raise AssertionError("unreachable")

    async def complete(self, parts: Iterable[PartSent], **conditions: Any) -> Written:
        """S3 CompleteMultipartUpload, of parts in any order. `conditions` are its own parameters, as IfNoneMatch.

        Raises NoSuchUpload, AccessDenied, WriteRefused; OriginTimeout and OriginUnavailable mean that the outcome is
        unknown. It is not aborted here.
        """
        what = f"COMPLETE UPLOAD {self.key}"
        named = [{"PartNumber": part.number, "ETag": part.etag} for part in sorted(parts, key=lambda p: p.number)]
        params = {**self._params, "MultipartUpload": {"Parts": named}, **conditions}
        async with self._origin.connection():
            call = self._origin.client.complete_multipart_upload
            done = await self._origin.call(what, call, params, deadline=COMPLETION)
        if not done.get("ETag"):  # S3 may say 200 first and fail afterwards
            raise OriginUnavailable(f"{what}: the origin named no ETag")
        await self._over()
        etag = str(done["ETag"]).strip('"')  # some S3-alikes leave the quotes out of their XML
        return Written(f'"{etag}"')

    async def abort(self) -> None:
        """S3 AbortMultipartUpload, so that its parts cost nothing any more. One that S3 does not know is fine.

        Finished in the background where the caller is cancelled (I12). Raises OriginErrors: it is noted still.
        """
        await asyncio.shield(self._origin.in_background(self._abort()))

    async def _abort(self) -> None:
        try:
            async with self._origin.connection():
                what, call = f"ABORT UPLOAD {self.key}", self._origin.client.abort_multipart_upload
                await self._origin.call(what, call, self._params)
        except NoSuchUpload:
            pass  # completed, or aborted before
        except OriginError:
            if self._notes is not None:
                self._notes.abandon(self.id)
            raise
        await self._over()

    async def _over(self) -> None:
        if self._notes is not None:
            await self._notes.remove(self.id)

    @property
    def _params(self) -> dict[str, Any]:
        return {"Bucket": self.key.bucket, "Key": self.key.key, "UploadId": self.id}


async def _aborted(beginning: "asyncio.Task[Multipart]") -> None:
    """Nobody wants the upload that is being begun."""
    try:
        await (await beginning).abort()
    except OriginError as error:
        log.info("an upload that nobody wants any more was not aborted: %s", error)
