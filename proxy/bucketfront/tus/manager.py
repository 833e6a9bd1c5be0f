"""All resumable uploads: begun, continued, finished, given up; the same after a restart.

Rule 1: what `TusUpload.offset` counts is at S3 and noted here, or it waits here.
Rule 2: a part is noted when S3 has it, and its file goes after that: a kill in between sends the part again.
Rule 3: what S3 was told to begin is noted before its first part, and forgotten after S3 said that it is gone.
"""

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from bucketfront.errors import NoSuchUpload, ObjectNotFound, OriginError, PreconditionFailed, ProxyError, StoreError
from bucketfront.http import checksums
from bucketfront.http.checksums import Digest
from bucketfront.http.metadata import Metadata
from bucketfront.http.tus_fields import WrongChecksum
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.multipart import Multipart, PartSent
from bucketfront.s3.upload.params import complete_params, create_params
from bucketfront.s3.upload.parts import part_size
from bucketfront.s3.upload.uploader import Written
from bucketfront.tus.record import BadRecord, Record, decode, encode
from bucketfront.tus.staging import PIECE, PartStaging, StagingSpace, pages
from bucketfront.tus.tus_upload import TusUpload
from bucketfront.tus.uninterrupted import settled
from bucketfront.tus.upload_folder import Found, Kept, UploadFolder

MAX_UPLOADS = 4096  # known at once, finished ones among them
MAX_DROPPED = 4096  # known at once that S3 has not aborted yet
MAX_CHECKED = 64 << 20  # bytes of one request with a checksum; all of them wait until it is known to hold
SILENCE = 2.0  # seconds without a byte after which a request makes way for the client's next one
MAKES_WAY = 2.0  # seconds that this may take
IDLE = 60.0  # seconds without a byte after which what waits makes way for others, where there is no room for both
UPKEEP = 60.0  # seconds between two looks at what has expired
TOUCH = 60.0  # seconds that the record may be behind with the time of the last byte

_MD5_ETAG = re.compile(r'"[0-9a-f]{32}"')

log = logging.getLogger(__name__)


class UnknownUpload(ProxyError):
    """No upload has this id (any more)."""


class UploadBusy(ProxyError):
    """Another request is at work on the upload."""


class UploadLost(ProxyError):
    """S3 does not know the upload any more, or not what became of it. It has to begin again."""


class TooManyUploads(ProxyError):
    """As many uploads are unfinished as there may be."""


StoreBody = Callable[[ObjectKey, AsyncIterator[bytes], int, WriteHead], Awaitable[Written]]


class UploadManager:
    """`store` makes an object of a body in one piece, and its cached entry; `forget` takes a key out of the cache.
    `source` names the endpoint, `boot` this boot of the machine. `clock` is the cache's; `idle_since` gives the time,
    by it, since which an upload has to have got a byte to stay.
    """

    def __init__(
        self,
        *,
        folder: UploadFolder,
        origin: S3Origin,
        store: StoreBody,
        forget: Callable[[ObjectKey], Awaitable[None]],
        space: StagingSpace,
        source: str,
        boot: int,
        clock: Callable[[], float],
        idle_since: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._waiting = PartStaging(folder, space, self._make_way)
        self._origin = origin
        self._store = store
        self._forget_key = forget
        self._space = space
        self._source = source
        self._boot = boot
        self._clock = clock
        self._idle_since = idle_since
        self._uploads: dict[str, TusUpload] = {}
        self._dropped: dict[str, TusUpload] = {}  # to be aborted at S3
        self._upkeep: asyncio.Task[None] | None = None

    # --- from start to stop --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on with what a former process left. The disk's failures are no reason not to start (I16)."""
        try:
            found = await self._folder.load()
        except StoreError as error:
            log.warning("unfinished uploads of a former run are not known: %s", error)
            found = {}
        for name, item in found.items():
            try:
                await self._restore(name, item)
            except StoreError as error:
                log.warning("an unfinished upload of a former run is left as it is: %s", error)
        self._upkeep = asyncio.create_task(self._run(), name="uploads")

    async def _restore(self, name: str, item: Found) -> None:
        try:
            record = decode(item.record or b"")
        except BadRecord as error:
            log.warning("an unfinished upload of a former run cannot be read: %s", error)
            await self._folder.remove(name, *item.waiting, record=True)
            return
        if record.origin != self._source:
            log.warning("an unfinished upload of %s is another endpoint's: its parts are left to that one", record.key)
            await self._folder.remove(name, *item.waiting, record=True)
            return
        # After power loss a file may lack what was written to it, whatever its size says (I14).
        is_sound = record.boot == self._boot and record.etag is None and not record.is_dropped
        kept = item.waiting.get(record.next_part, Kept()) if is_sound else Kept()
        if 0 < kept.size <= min(record.part_size, record.length - record.sent):
            del item.waiting[record.next_part]
        else:
            kept = Kept()
        if item.waiting:
            await self._folder.remove(name, *item.waiting)
        upload = TusUpload(name, replace(record, boot=self._boot), kept.size, kept.checksum)
        upload.charged = pages(len(item.record or b""))
        self._space.budget.take(upload.charged)
        self._waiting.restored(upload)
        (self._dropped if record.is_dropped else self._uploads)[name] = upload

    async def stop(self) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        self._folder.close()

    async def _run(self) -> None:
        while True:
            await self.step()
            await asyncio.sleep(UPKEEP)

    async def step(self) -> None:
        """One round of the upkeep: what has expired is dropped, what was dropped is aborted at S3, files that are of no
        use go.
        """
        since = self._idle_since()
        for upload in [*self._uploads.values()]:
            if upload.record.touched_at < since and not upload.is_busy:
                self._forget(upload)
        for upload in [*self._dropped.values()]:
            await self._clear(upload)
        await self._waiting.sweep()

    @property
    def unfinished(self) -> tuple[int, int]:
        """How many there are, and the bytes of them that S3 does not have yet."""
        waiting = [upload.waiting for upload in self._uploads.values() if upload.etag is None]
        return len(waiting), sum(waiting)

    # --- one upload ----------------------------------------------------------------------------------------

    async def create(
        self, key: ObjectKey, length: int, fields: tuple[tuple[str, str], ...], metadata: str
    ) -> TusUpload:
        """`fields` are what the client says of the object, `metadata` is Upload-Metadata as sent.

        Raises TooManyUploads; BadWriteHead, NoSuchWrite and PreconditionFailed of `fields`.
        """
        record = Record(key, self._source, self._boot, length, part_size(1, length), metadata, fields, self._clock())
        _ = record.head  # says now what cannot be
        await self._make_room()
        upload = TusUpload(secrets.token_hex(16), record)
        self._uploads[upload.id] = upload
        try:
            await settled(self._save(upload))
        except asyncio.CancelledError:
            await self._drop(upload)
            raise
        return upload

    async def _make_room(self) -> None:
        while len(self._dropped) >= MAX_DROPPED:
            await self._leave_at_s3(next(iter(self._dropped.values())))
        if len(self._uploads) < MAX_UPLOADS:
            return
        finished = next((upload for upload in self._uploads.values() if upload.etag and not upload.is_busy), None)
        if finished is None:
            raise TooManyUploads(f"{MAX_UPLOADS} uploads are unfinished")
        self._forget(finished)
        await self._clear(finished)

    def find(self, name: str) -> TusUpload:
        """Raises UnknownUpload."""
        upload = self._uploads.get(name)
        if upload is None or (upload.record.touched_at < self._idle_since() and not upload.is_busy):
            raise UnknownUpload("there is no such upload (any more)")
        return upload

    @asynccontextmanager
    async def busy(self, upload: TusUpload) -> AsyncIterator[None]:
        """One request at a time. Raises UploadBusy; UnknownUpload where it ended meanwhile.

        One whose client says nothing any more makes way: its connection is dead, and nobody has told us yet.
        """
        if upload.is_busy and upload.silence >= SILENCE:
            upload.interrupt()
            with suppress(TimeoutError):
                async with asyncio.timeout(MAKES_WAY):
                    await upload.is_free.wait()
        if upload.is_busy:
            raise UploadBusy("another request is at work on this upload")
        if self._uploads.get(upload.id) is not upload:
            raise UnknownUpload("there is no such upload (any more)")
        upload.is_busy = True
        upload.is_free.clear()
        try:
            yield
        finally:
            upload.is_busy = False
            upload.is_free.set()

    async def append(self, upload: TusUpload, chunks: AsyncIterator[bytes]) -> None:
        """Take these bytes, `upload.length` at most in all. Where it raises, or is cancelled, the bytes that
        `upload.offset` counts are ours all the same.

        Raises OriginErrors, UploadLost, StoreError; what `chunks` raises.
        """
        assert upload.is_busy
        gathered, start = bytearray(), upload.offset
        end = start
        try:
            async for chunk in upload.heard(chunks):
                gathered += chunk
                end += len(chunk)
                if len(gathered) >= PIECE:
                    await self._take(upload, gathered)
            await self._take(upload, gathered)
        finally:
            if upload.offset + len(gathered) != end:
                gathered.clear()  # what waited before it was lost: it has no place any more (I8)
            await settled(self._put_by(upload, gathered, start))

    async def append_verified(self, upload: TusUpload, chunks: AsyncIterator[bytes], claim: Digest) -> None:
        """The same for bytes of which none counts before all of them are known to be those that were sent.

        Raises WrongChecksum, and what `append` raises.
        """
        state, aside = checksums.hasher(claim.algorithm), self._waiting.aside(upload)
        try:
            async for piece in _pieces(upload.heard(chunks)):
                state.update(piece)
                await aside.write(piece)
            if state.digest() != claim.value:
                raise WrongChecksum(f"the body's {claim.algorithm} is not the one that was sent with it")
            await self.append(upload, aside.read())
        finally:
            await settled(aside.clear())

    async def _take(self, upload: TusUpload, gathered: bytearray) -> None:
        while gathered:
            assert upload.etag is None, "more bytes than the upload has"
            if not upload.room:
                await self._send_part(upload)
            await settled(self._waiting.keep(upload, gathered))

    async def _put_by(self, upload: TusUpload, gathered: bytearray, start: int) -> None:
        """The end of a request: what is in memory is kept, as far as it fits without S3, and the time is noted if a
        byte came.
        """
        if self._uploads.get(upload.id) is not upload:
            return  # it was lost meanwhile
        with suppress(StoreError):
            if gathered and upload.room:
                await self._waiting.keep(upload, gathered)
        if upload.offset == start:
            return
        now = self._clock()
        is_due = now - upload.record.touched_at >= TOUCH
        upload.record = replace(upload.record, touched_at=now)
        if is_due:
            await self._save(upload)

    async def _make_way(self) -> bool:
        """What waits of the upload that got no byte for longest is dropped: its client sends that again."""
        before = self._clock() - IDLE
        idle = [one for one in self._uploads.values() if one.in_file and not one.is_busy]
        upload = min(idle, key=lambda one: one.record.touched_at, default=None)
        if upload is None or upload.record.touched_at > before:
            return False
        log.info("what waits of %r makes way for others", upload)
        async with self.busy(upload):
            await self._waiting.clear(upload)
        return True

    # --- to S3 ---------------------------------------------------------------------------------------------

    async def finish(self, upload: TusUpload) -> str:
        """Make the object, of whose bytes none is missing. Returns its ETag. Done again, it finds what came of it.

        Raises OriginErrors: the outcome is unknown where they are OriginUnavailable. UploadLost, StoreError.
        """
        assert upload.is_busy
        assert upload.is_whole
        if upload.etag is not None:
            return upload.etag
        try:
            if upload.record.upload_id is None:
                written = await self._store(upload.key, self._waiting.read(upload), upload.length, upload.record.head)
            else:
                if upload.waiting:
                    await self._send_part(upload)
                written = await self._complete(upload)
            etag = written.etag
        except (NoSuchUpload, PreconditionFailed) as error:
            # An earlier call may have been carried out, and its answer lost. Then the object is there.
            parts = upload.record.parts
            made = _etag_of(parts) if parts else await self._etag_of_waiting(upload)
            if made is None or made != await self._current_etag(upload.key):
                raise (self._lost(upload) if isinstance(error, NoSuchUpload) else error) from error
            etag = made
        await settled(self._note_finished(upload, etag))
        return etag

    async def _complete(self, upload: TusUpload) -> Written:
        await self._forget_key(upload.key)
        try:
            return await self._multipart(upload).complete(upload.record.parts, **complete_params(upload.record.head))
        finally:
            # Also when the outcome is unknown, and when the client left in the middle (I5, I9).
            await asyncio.shield(self._forget_key(upload.key))

    async def _note_finished(self, upload: TusUpload, etag: str) -> None:
        part, in_file = upload.record.next_part, self._waiting.left(upload)
        upload.record = upload.record.finished(etag)
        await self._save(upload)
        await self._waiting.remove(upload, part, in_file)

    async def _etag_of_waiting(self, upload: TusUpload) -> str:
        """That of a single PutObject (S3 User Guide, "Checking object integrity")."""
        state = checksums.hasher(checksums.MD5)
        async for piece in self._waiting.read(upload):
            state.update(piece)
        return f'"{state.digest().hex()}"'

    async def _current_etag(self, key: ObjectKey) -> str | None:
        try:
            metadata = await self._origin.head(key)
        except ObjectNotFound:
            return None
        return metadata.etag if isinstance(metadata, Metadata) else None

    async def _send_part(self, upload: TusUpload) -> None:
        """What waits becomes a part at S3."""
        if upload.record.upload_id is None:
            await self._begin(upload)
        number, size = upload.record.next_part, upload.waiting
        try:
            sent = await self._multipart(upload).part(number, lambda: self._waiting.read(upload), size)
        except NoSuchUpload as error:
            raise self._lost(upload) from error
        await settled(self._note_part(upload, sent))

    async def _begin(self, upload: TusUpload) -> None:
        multipart = await Multipart.begin(self._origin, upload.key, create_params(upload.record.head))
        upload.record = replace(upload.record, upload_id=multipart.id)
        await settled(self._save(upload))

    async def _note_part(self, upload: TusUpload, sent: PartSent) -> None:
        upload.record = upload.record.with_part(sent)
        in_file = self._waiting.left(upload)
        await self._save(upload)
        await self._waiting.remove(upload, sent.number, in_file)

    def _multipart(self, upload: TusUpload) -> Multipart:
        assert upload.record.upload_id is not None
        return Multipart.resumed(self._origin, upload.key, upload.record.upload_id)

    # --- the end -------------------------------------------------------------------------------------------

    async def terminate(self, upload: TusUpload) -> None:
        """The client wants nothing more of it. A finished one leaves its object where it is."""
        assert upload.is_busy
        await self._drop(upload)

    async def _drop(self, upload: TusUpload) -> None:
        self._forget(upload)
        await settled(self._clear(upload))

    def _lost(self, upload: TusUpload) -> UploadLost:
        self._forget(upload)
        return UploadLost("the origin does not know this upload any more")

    def _forget(self, upload: TusUpload) -> None:
        """From now on nobody finds it; `_clear` does the rest, now or in a later round."""
        self._uploads.pop(upload.id, None)
        self._dropped[upload.id] = upload

    async def _clear(self, upload: TusUpload) -> None:
        is_first_time = not upload.record.is_dropped
        if is_first_time:
            upload.record = replace(upload.record, is_dropped=True)
            await self._save(upload)
            await self._waiting.clear(upload)
        try:
            if upload.record.upload_id is not None:
                await self._multipart(upload).abort()
            await self._folder.remove(upload.id, record=True)
        except (OriginError, StoreError) as error:
            log.log(logging.WARNING if is_first_time else logging.DEBUG, "%r is not aborted yet: %s", upload, error)
            return
        self._removed(upload)

    async def _leave_at_s3(self, upload: TusUpload) -> None:
        """More are to be aborted than are kept in mind."""
        log.warning("the parts of %r stay at S3, which aborts none", upload)
        with suppress(StoreError):
            await self._folder.remove(upload.id, record=True)
        self._removed(upload)

    def _removed(self, upload: TusUpload) -> None:
        self._dropped.pop(upload.id, None)
        self._space.budget.give_back(upload.charged)
        upload.charged = 0

    async def _save(self, upload: TusUpload) -> None:
        """Where the disk refuses, memory knows it still (I16): it does not outlive the process then."""
        text = encode(upload.record)
        try:
            grows = pages(len(text)) - upload.charged
            if grows > 0:
                await self._space.reserve(grows)
                upload.charged += grows
            await self._folder.save(upload.id, text)
        except StoreError as error:
            log.warning("%r would not outlive this process: %s", upload, error)


def _etag_of(parts: tuple[PartSent, ...]) -> str | None:
    """The ETag of an object of these parts, where theirs are MD5s (S3 User Guide, "Checking object integrity")."""
    if not all(_MD5_ETAG.fullmatch(part.etag) for part in parts):
        return None
    joined = b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts)
    return f'"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"'


async def _pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, fewer and larger."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= PIECE:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
