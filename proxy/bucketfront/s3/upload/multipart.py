"""One multipart upload at S3: it is created, gets its parts, and is completed or aborted.

See S3 User Guide, "Uploading and copying objects using multipart upload". Two rules hold:

- An upload that was created is completed or aborted, also if its creator is cancelled
  (docs/invariants.md#write-atomicity, docs/invariants.md#cancellation).
- Each call may be sent twice: no reader sees a part before the end, and S3 forgets an upload that it has completed. The
  client of a completion waits meanwhile, so that a later attempt never undoes another client's later write.

A completion without a valid response, or whose upload S3 no longer knows, may have made the object. A HEAD decides: it
shows the object that the parts make, or the outcome stays unknown (docs/invariants.md#unknown-outcome).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from bucketfront.errors import (
    ContentMismatch,
    InvalidOriginResponse,
    NoSuchUpload,
    OriginBusy,
    OriginError,
    OriginServerError,
    OriginTimeout,
    OriginUnavailable,
)
from bucketfront.http import content_digests, etags
from bucketfront.http.metadata import Metadata
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.responses import version_id
from bucketfront.s3.upload.agreement import (
    Agreement,
    UnprovenBytes,
    agreement,
    check_completed,
    must_be_md5,
    note_fitting,
)
from bucketfront.s3.upload.expected_object import ExpectedObject, begun_at
from bucketfront.s3.upload.params import complete_params
from bucketfront.s3.upload.repetition import is_repeatable, pause, repeated
from bucketfront.s3.upload.single_call import SentBody, send

MAX_PART_BYTES = 5 << 30  # S3's limit for a part, and for the object of a single PutObject
MAX_PARTS = 10_000  # S3's limit for one multipart upload
PROGRESS_TIMEOUT_S = 60.0  # without progress, until a call is given up: three times the default of `read_timeout`
# S3 takes minutes to put 10,000 parts together, and sends spaces meanwhile. All attempts share this time.
COMPLETION_TIMEOUT_S = 300.0
COMPLETION_ATTEMPTS = 4  # one more than for other calls, because a failure costs the transfer of all parts
PART_ATTEMPTS = 3  # to send one part: as many as for a read
RETRY_PAUSE_S = 0.2  # at most before the second attempt, doubled for each further one: short beside a transfer

_NO_HEAD = WriteHead()

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """The response to a write that S3 accepted.

    `etag` is in wire form, or "" if S3 has none. `version` is the object's version id, and None if it is not known.
    """

    etag: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class PartSent:
    """A part that S3 has. `number` counts from 1, `size` is in bytes.

    `unproven_md5` is the MD5 of the bytes that were sent, if the ETag looks like another one. It is None if the ETag
    proves the part, and if nothing more is known of it.
    """

    number: int
    etag: str
    size: int
    unproven_md5: str | None = None


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
    keeps its own record of the upload. `begun_at` is a time before its creation, in seconds by the origin's clock,
    or None.
    """

    def __init__(
        self,
        origin: S3Origin,
        key: ObjectKey,
        upload_id: str,
        progress_timeout: float = PROGRESS_TIMEOUT_S,
        journal: Journal | None = None,
        begun_at: float | None = None,
    ) -> None:
        self._origin = origin
        self._progress_timeout = progress_timeout
        self._journal = journal
        self.key = key
        self.id = upload_id
        self.begun_at = begun_at

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
        what, clock = f"CREATE UPLOAD {key}", asyncio.get_running_loop().time
        began = clock()

        async def create() -> Mapping[str, Any]:
            async with origin.connection(key.bucket):
                named = {**params, "Bucket": key.bucket, "Key": key.key}
                created: Mapping[str, Any] = await origin.calls.make(what, origin.client.create_multipart_upload, named)
            if not created.get("UploadId"):
                raise InvalidOriginResponse(f"{what}: the origin named no upload")
            return created

        # If S3 has carried out an attempt that failed, it has an upload without parts, which costs nothing.
        created = await repeated(origin, create)
        at = begun_at(created["ResponseMetadata"]["HTTPHeaders"], clock() - began)
        upload = cls(origin, key, str(created["UploadId"]), progress_timeout, journal, at)
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
        begun_at: float | None = None,
    ) -> Self:
        """Return an upload that was created before, perhaps by another process. It makes no request."""
        return cls(origin, key, upload_id, progress_timeout, journal, begun_at)

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
                await self._origin.calls.wait_for_turn(self.key.bucket)
                async with self._origin.upload_slots.slot(self._progress_timeout):
                    sent = await send(
                        self._origin,
                        what,
                        "upload_part",
                        params,
                        chunks,
                        size,
                        self._progress_timeout,
                        is_repeatable=attempts > 1,
                    )
                unproven = self._unproven_md5(what, sent)
                self._origin.parts += 1
                return PartSent(number, sent.etag, size, unproven)
            except OriginUnavailable as error:
                # OriginBusy sent no request, because none of our connections came free.
                is_free = isinstance(error, OriginBusy)
                if attempt == attempts or error.is_final or not (is_free or self._origin.retries.spend()):
                    raise
                self._origin.parts_retried += 1
                log.info("%s is sent again: %s", what, error)
                await pause(RETRY_PAUSE_S, attempt)
        raise AssertionError("unreachable")

    def _unproven_md5(self, what: str, sent: SentBody) -> str | None:
        """Return the part's MD5 if the ETag looks like another one, else None. Raises InvalidOriginResponse.

        An ETag of a bucket whose ETags are MD5s must fit, so that the part is sent again.
        """
        if not sent.etag:
            raise InvalidOriginResponse(f"{what}: the origin named no ETag")
        match agreement(sent):
            case Agreement.PROVEN:
                note_fitting(self._origin, self.key.bucket)
            case Agreement.DIFFERENT if must_be_md5(self._origin, self.key.bucket):
                raise InvalidOriginResponse(f"{what}: the ETag {sent.etag} is not the MD5 {sent.md5} that was sent")
            case Agreement.DIFFERENT:
                return sent.md5
        return None

    async def complete(
        self, parts: Iterable[PartSent], head: WriteHead = _NO_HEAD, *, may_be_complete: bool = False
    ) -> Written:
        """Call S3 CompleteMultipartUpload with parts in any order. `head` is that of the write.

        `may_be_complete` means that an earlier call may have made the object. A failure does not abort the upload.
        Raises NoSuchUpload, AccessDenied, WriteRefused. After OriginTimeout or OriginUnavailable the outcome is
        unknown.
        """
        what = f"COMPLETE UPLOAD {self.key}"
        ordered = sorted(parts, key=lambda part: part.number)
        named = [{"PartNumber": part.number, "ETag": part.etag} for part in ordered]
        params = {**self._params, "MultipartUpload": {"Parts": named}, **complete_params(head)}
        expected = ExpectedObject(
            sum(part.size for part in ordered),
            content_digests.etag_of_parts(part.etag for part in ordered),
            head,
            self.begun_at,
        )
        unproven = self._unproven(ordered)
        until = asyncio.get_running_loop().time() + COMPLETION_TIMEOUT_S
        self._origin.retries.earn()
        for attempt in range(1, COMPLETION_ATTEMPTS + 1):
            was_accepted = False
            try:
                done = await self._send_completion(what, params, until)
            except NoSuchUpload as error:
                failure: OriginError = error
                was_accepted = True
            except OriginError as error:
                # After an attempt whose outcome is unknown, S3 may refuse the upload because it is complete.
                is_final = not isinstance(error, OriginUnavailable) or error.is_final
                if is_final and attempt == 1 and not may_be_complete:
                    raise
                failure = error
            else:
                if done.etag:
                    return await self._completed(done, expected, ordered, unproven)
                failure = InvalidOriginResponse(f"{what}: the origin named no ETag")
                was_accepted = True
            repeats = (
                attempt < COMPLETION_ATTEMPTS
                and isinstance(failure, OriginUnavailable)
                and is_repeatable(failure)
                and self._origin.retries.spend()
            )
            # A 5xx is the response of an S3 that has most likely not made the object.
            if not (repeats and _is_refusal(failure)):
                found = await self._object_made(expected, was_accepted=was_accepted)
                if found is not None:
                    log.info("%s: a HEAD shows the object, although %s", what, failure)
                    return await self._completed(Written(found.etag, found.version), expected, ordered, unproven)
            if not repeats:
                raise failure
            log.info("%s is sent again: %s", what, failure)
            await pause(RETRY_PAUSE_S, attempt)
        raise AssertionError("unreachable")

    async def _send_completion(self, what: str, params: dict[str, Any], until: float) -> Written:
        """Return the content of the response. `until` is in the loop's time."""
        async with self._origin.connection(self.key.bucket):
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                raise OriginTimeout(f"{what}: the origin did not complete it in time")
            call = self._origin.client.complete_multipart_upload
            done = await self._origin.calls.make(what, call, params, call_timeout=left)
        # Some compatible servers leave the quotes out of their XML.
        return Written(
            etags.normalised(str(done.get("ETag") or "")), version_id(done["ResponseMetadata"]["HTTPHeaders"])
        )

    async def _completed(
        self, written: Written, expected: ExpectedObject, ordered: list[PartSent], unproven: UnprovenBytes | None
    ) -> Written:
        await self._forget()
        await check_completed(self._origin, self.key, written.etag, expected, unproven, _ends(ordered))
        return written

    def _unproven(self, ordered: list[PartSent]) -> UnprovenBytes | None:
        """Return the bytes of the first part that is to be proven, or None.

        Raises ContentMismatch if S3 has ETags that are MD5s for other parts.
        """
        start = 0
        for part in ordered:
            if part.unproven_md5 is not None:
                if must_be_md5(self._origin, self.key.bucket):
                    raise ContentMismatch(f"part {part.number} of {self.key}: the ETag {part.etag} is not its MD5")
                return UnprovenBytes(start, start + part.size, part.unproven_md5)
            start += part.size
        return None

    async def _object_made(self, expected: ExpectedObject, *, was_accepted: bool) -> Metadata | None:
        """Return what a HEAD shows if it proves that this upload made the object, else None."""
        try:
            found = await self._origin.head(self.key)
        except OriginError as error:
            log.info("whether %s was made is unknown: %s", self.key, error)
            return None
        is_proven = isinstance(found, Metadata) and expected.is_proven_by(found, was_accepted=was_accepted)
        return found if isinstance(found, Metadata) and is_proven else None

    async def abort(self) -> None:
        """Call S3 AbortMultipartUpload, so that the parts cost nothing. An upload that S3 does not know is fine.

        It finishes in the background if the caller is cancelled. Raises OriginErrors, and then the journal keeps the
        upload.
        """
        await self._origin.background.run(self._abort())

    async def _abort(self) -> None:
        async def send_abort() -> None:
            async with self._origin.connection(self.key.bucket):
                what, call = f"ABORT UPLOAD {self.key}", self._origin.client.abort_multipart_upload
                await self._origin.calls.make(what, call, self._params)

        try:
            await repeated(self._origin, send_abort)
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


def _ends(ordered: list[PartSent]) -> list[UnprovenBytes]:
    """Return the first part and the last one that have an ETag like an MD5."""
    if not ordered:
        return []
    size = sum(part.size for part in ordered)
    first, last = ordered[0], ordered[-1]
    places = ((0, first.size, first), (size - last.size, size, last))
    found = ((start, stop, content_digests.md5_of(part.etag)) for start, stop, part in places)
    return [UnprovenBytes(start, stop, md5) for start, stop, md5 in found if md5 is not None]


def _is_refusal(error: OriginError) -> bool:
    """Return whether the origin has sent a valid error response."""
    return isinstance(error, OriginServerError) and not isinstance(error, InvalidOriginResponse)


async def _abort_created(creation: "asyncio.Task[Multipart]") -> None:
    """Abort an upload whose creator was cancelled, as soon as it is created."""
    try:
        await (await creation).abort()
    except OriginError as error:
        log.info("an upload whose creator was cancelled was not aborted: %s", error)
