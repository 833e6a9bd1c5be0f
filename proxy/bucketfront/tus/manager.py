"""All resumable uploads: create, continue, finish and drop them, also after a restart.

Three rules hold:

- The bytes that `TusUpload.offset` counts are at S3 and in the record, or they are staged here.
- A part is noted in the record once S3 has it, and its file is removed after that. A kill in between sends it again.
- A multipart upload is noted in the record before its first part, and forgotten once S3 has removed it.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

from bucketfront.errors import NoShare, OriginError, StoreError
from bucketfront.fair_share import Client, FairShares, Resource, UsedUp, current_client
from bucketfront.http import checksums
from bucketfront.http.checksums import Digest
from bucketfront.http.tus_fields import TusChecksumMismatch
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.parts import part_size
from bucketfront.task_set import TaskSet
from bucketfront.tus.record import BadRecord, Record, decode, encode
from bucketfront.tus.refusals import UnknownUpload, UploadBusy, UploadLost
from bucketfront.tus.s3_transfer import ChangeObject, S3Transfer, StoreObject
from bucketfront.tus.staging import GATHER_BYTES, PartStaging, StagingSpace, pages
from bucketfront.tus.tus_upload import TusUpload
from bucketfront.tus.uninterrupted import run_uninterrupted
from bucketfront.tus.upload_folder import StagedFile, UploadFiles, UploadFolder

MAX_UPLOADS = 4096  # in memory at once, finished ones among them: some KiB each
MAX_DROPPED = 4096  # in memory at once that S3 has not aborted yet
MAX_CHECKED_BYTES = 64 << 20  # of one request with a checksum: all of them are staged before the checksum is known
STALL_TIMEOUT_S = 2.0  # without a byte, after which a request makes way for the client's next one
TAKEOVER_TIMEOUT_S = 2.0  # for the request that makes way to end
IDLE_S = 60.0  # without a byte, after which staged bytes make way for other uploads, if there is no room for both
UPKEEP_INTERVAL_S = 60.0  # expiry is a matter of hours
HANDOVER_GRACE_S = 0.5  # in which a short request ends, while new connections wait
HANDOVER_TIMEOUT_S = 10.0  # for S3 to take a part or to complete an object
HANDOVER_STEP_S = 0.01  # between two looks at the requests
TOUCH_INTERVAL_S = 60.0  # `touched_at` on disk is at most this old, so that an active upload costs a write a minute

log = logging.getLogger(__name__)


class UploadManager:
    """The uploads of one cache folder, by id.

    `store` makes an object of a body in one call, and its cached entry. `change` is around any other write of a key.
    `source` names the endpoint, and `boot` identifies the boot of the machine. `clock` is the cache's. `idle_since`
    returns the time, by that clock, since which an upload must have received a byte to be kept. `shares` has those of
    the clients in MAX_UPLOADS, and each has `share_of_one` of the staging area, from 0 to 1.
    """

    def __init__(
        self,
        *,
        folder: UploadFolder,
        origin: S3Origin,
        store: StoreObject,
        change: ChangeObject,
        space: StagingSpace,
        source: str,
        boot: int,
        clock: Callable[[], float],
        idle_since: Callable[[], float],
        shares: FairShares,
        share_of_one: float,
    ) -> None:
        self.folder = folder
        self.staging = PartStaging(folder, space, self._drop_idle, shares, share_of_one)
        self._transfer = S3Transfer(origin, self.staging, store=store, change=change, save=self._save)
        self._space = space
        self._source = source
        self._boot = boot
        self._clock = clock
        self._idle_since = idle_since
        self._shares = shares
        self._unfinished = shares.shares[Resource.RESUMABLE_UPLOADS]
        self._uploads: dict[str, TusUpload] = {}
        self._dropped: dict[str, TusUpload] = {}  # to be aborted at S3
        self._tasks = TaskSet()
        self._is_released = False  # another process has the uploads

    # --- from start to stop --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore the uploads of earlier runs. A disk that fails does not prevent the start.

        See docs/invariants.md#disk-faults-degrade.
        """
        try:
            found = await self.folder.load()
        except StoreError as error:
            log.warning("unfinished uploads of a former run are not known: %s", error)
            found = {}
        for name, files in found.items():
            try:
                await self._restore(name, files)
            except StoreError as error:
                log.warning("an unfinished upload of a former run is left as it is: %s", error)
        self._tasks.start(self._run(), name="uploads")

    async def _restore(self, name: str, files: UploadFiles) -> None:
        try:
            record = decode(files.record or b"")
        except BadRecord as error:
            log.warning("an unfinished upload of a former run cannot be read: %s", error)
            await self.folder.remove(name, *files.staged, record=True)
            return
        if record.origin != self._source:
            log.warning("an unfinished upload of %s is another endpoint's: its parts are left to that one", record.key)
            await self.folder.remove(name, *files.staged, record=True)
            return
        # After a loss of power a file may lack what was written to it, whatever its size is.
        is_sound = record.boot == self._boot and record.etag is None and not record.is_dropped
        staged = files.staged.get(record.next_part, StagedFile()) if is_sound else StagedFile()
        if 0 < staged.size <= min(record.part_size, record.length - record.sent):
            del files.staged[record.next_part]
        else:
            staged = StagedFile()
        if files.staged:
            await self.folder.remove(name, *files.staged)
        upload = TusUpload(name, replace(record, boot=self._boot), staged.size, staged.checksum)
        upload.charged = pages(len(files.record or b""))
        self._space.budget.take(upload.charged)
        self.staging.count_restored(upload)
        if record.is_dropped:
            self._dropped[name] = upload
        else:
            self._know(upload)

    async def stop(self) -> None:
        """Stop the upkeep and wait for the disk. The next start restores the uploads."""
        await self._tasks.close()
        self.folder.close()

    async def hand_over(self) -> None:
        """Leave all uploads to another process, which restores them.

        A request that goes on for longer than HANDOVER_GRACE_S makes way. Its bytes so far are kept, and its client
        sends the others. Raises StoreError if a request does not end. `take_back` is due then.
        """
        self._is_released = True
        await self._tasks.close()
        began = asyncio.get_running_loop().time()
        while busy := [one for one in (*self._uploads.values(), *self._dropped.values()) if one.is_busy]:
            waited = asyncio.get_running_loop().time() - began
            if waited > HANDOVER_TIMEOUT_S:
                raise StoreError(f"S3 has not taken what it was sent of {busy[0]!r}")
            if waited > HANDOVER_GRACE_S:
                for upload in busy:
                    upload.interrupt()
            await asyncio.sleep(HANDOVER_STEP_S)
        for upload in [*self._uploads.values(), *self._dropped.values()]:
            self._space.budget.give_back(upload.charged)
            upload.charged = 0
            self.staging.forget(upload)
        for upload in self._uploads.values():
            self._unfinished.give_back(upload.record.client)
        self._uploads.clear()
        self._dropped.clear()

    async def take_back(self) -> None:
        """Restore the uploads, also after a `hand_over` that failed."""
        self._is_released = False
        known = {*self._uploads, *self._dropped}
        if known:
            self._tasks.start(self._run(), name="uploads")
        else:
            await self.start()

    def _require_uploads(self) -> None:
        if self._is_released:
            raise UploadBusy("another process has the uploads now; try again")

    async def _run(self) -> None:
        while True:
            await self.step()
            await asyncio.sleep(UPKEEP_INTERVAL_S)

    async def step(self) -> None:
        """Run one round of the upkeep: drop expired uploads, abort dropped ones at S3, remove files."""
        since = self._idle_since()
        for upload in [*self._uploads.values()]:
            if upload.record.touched_at < since and not upload.is_busy:
                self._forget(upload)
        for upload in [*self._dropped.values()]:
            await self._clear(upload)
        await self.staging.sweep()

    @property
    def unfinished(self) -> tuple[int, int]:
        """Return the number of unfinished uploads, and their bytes that S3 does not have."""
        staged = [upload.staged for upload in self._uploads.values() if upload.etag is None]
        return len(staged), sum(staged)

    # --- one upload ----------------------------------------------------------------------------------------

    async def create(
        self, key: ObjectKey, length: int, fields: tuple[tuple[str, str], ...], metadata: str
    ) -> TusUpload:
        """Create an upload. `fields` are the client's headers for the object, `metadata` is Upload-Metadata as sent.

        Raises ShareUsedUp, WholeUsedUp; BadWriteHead, NoSuchWrite and PreconditionFailed for `fields`.
        """
        self._require_uploads()
        client, now = current_client(), self._clock()
        size = part_size(1, length)
        record = Record(key, self._source, self._boot, length, size, metadata, fields, now, client=client)
        _ = record.head  # raises now, and not at the end of the upload
        await self._make_room(client)
        upload = TusUpload(secrets.token_hex(16), record)
        self._know(upload)
        try:
            await run_uninterrupted(self._save(upload))
        except asyncio.CancelledError:
            await self._drop(upload)
            raise
        return upload

    def _know(self, upload: TusUpload) -> None:
        self._unfinished.take(upload.record.client)
        self._uploads[upload.id] = upload

    async def _make_room(self, client: Client) -> None:
        """Return when the client may have one more upload, for which another one may make way.

        Raises ShareUsedUp, WholeUsedUp.
        """
        while len(self._dropped) >= MAX_DROPPED:
            await self._leave_at_s3(next(iter(self._dropped.values())))
        while (refusal := self._unfinished.refusal(client)) is not None:
            upload = self._first_to_go(client, refusal)
            if upload is None:
                self._shares.refuse(Resource.RESUMABLE_UPLOADS, client, refusal)
            self._forget(upload)
            if upload.etag is not None:
                await self._clear(upload)
            else:
                log.info("%r of the client %a makes way for others", upload, upload.record.client)
                self._tasks.start(self._clear(upload), name="clear an upload")  # S3 may be slow

    def _first_to_go(self, client: Client, refusal: UsedUp) -> TusUpload | None:
        """Return the upload that makes way for a new one of the client, or None.

        A finished one goes first. If only the share of the client is used up, the upload must be its own. If the whole
        is used up, the longest idle upload of a client beyond its share goes next.
        """
        free = [one for one in self._uploads.values() if not one.is_busy]
        for upload in free:
            if upload.etag is not None and (refusal is UsedUp.WHOLE or upload.record.client == client):
                return upload
        if refusal is UsedUp.SHARE:
            return None
        before = self._clock() - IDLE_S
        idle = [
            one for one in free if one.record.touched_at <= before and self._unfinished.is_beyond(one.record.client)
        ]
        return min(idle, key=lambda one: one.record.touched_at, default=None)

    def find(self, name: str) -> TusUpload:
        """Return the upload with the id `name`. Raises UnknownUpload, UploadBusy."""
        self._require_uploads()
        upload = self._uploads.get(name)
        if upload is None or (upload.record.touched_at < self._idle_since() and not upload.is_busy):
            raise UnknownUpload("there is no such upload (any more)")
        return upload

    @asynccontextmanager
    async def busy(self, upload: TusUpload) -> AsyncIterator[None]:
        """Hold the upload for one request.

        A request that has received no byte for STALL_TIMEOUT_S makes way, because its connection is probably dead.
        Raises UploadBusy, or UnknownUpload if the upload ended meanwhile.
        """
        self._require_uploads()
        if upload.is_busy and upload.stalled_s >= STALL_TIMEOUT_S:
            upload.interrupt()
            with suppress(TimeoutError):
                async with asyncio.timeout(TAKEOVER_TIMEOUT_S):
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
        """Append `chunks`, which have no more bytes than the upload lacks.

        Bytes that `upload.offset` counts are kept, also if this raises or is cancelled. Raises OriginErrors,
        UploadLost, StoreError; what `chunks` raises passes through.
        """
        assert upload.is_busy
        gathered, start = bytearray(), upload.offset
        end = start
        try:
            async for chunk in upload.receive(chunks):
                gathered += chunk
                end += len(chunk)
                if len(gathered) >= GATHER_BYTES:
                    await self._stage(upload, gathered)
            await self._stage(upload, gathered)
        except NoShare:
            gathered.clear()  # they would be refused again
            raise
        finally:
            if upload.offset + len(gathered) != end:
                gathered.clear()  # the staged bytes before it were lost, so that it has no place
            await run_uninterrupted(self._end_request(upload, gathered, start))

    async def append_verified(self, upload: TusUpload, chunks: AsyncIterator[bytes], claim: Digest) -> None:
        """Append `chunks` if their checksum is `claim`. Before that none of them counts.

        Raises TusChecksumMismatch, and what `append` raises.
        """
        state, unverified = checksums.hasher(claim.algorithm), self.staging.unverified(upload)
        try:
            async for piece in _gathered(upload.receive(chunks)):
                state.update(piece)
                await unverified.write(piece)
            if state.digest() != claim.value:
                raise TusChecksumMismatch(f"the body's {claim.algorithm} is not the one that was sent with it")
            await self.append(upload, unverified.read())
        finally:
            await run_uninterrupted(unverified.clear())

    async def finish(self, upload: TusUpload) -> str:
        """Make the object of a whole upload. Return its ETag. A repeated call finds the object that it made before.

        Raises OriginErrors, UploadLost, StoreError. After an OriginUnavailable the outcome is unknown.
        """
        assert upload.is_busy
        assert upload.is_whole
        with self._forget_if_lost(upload):
            return await self._transfer.finish(upload)

    async def _stage(self, upload: TusUpload, gathered: bytearray) -> None:
        while gathered:
            assert upload.etag is None, "more bytes than the upload has"
            if not upload.room:
                with self._forget_if_lost(upload):
                    await self._transfer.send_part(upload)
            await run_uninterrupted(self.staging.add(upload, gathered))

    @contextmanager
    def _forget_if_lost(self, upload: TusUpload) -> Iterator[None]:
        try:
            yield
        except UploadLost:
            self._forget(upload)
            raise

    async def _end_request(self, upload: TusUpload, gathered: bytearray, start: int) -> None:
        """Stage the rest in memory if it fits without a request to S3, and note the time if a byte came."""
        if self._uploads.get(upload.id) is not upload:
            return  # it was lost meanwhile
        with suppress(StoreError, NoShare):
            if gathered and upload.room:
                await self.staging.add(upload, gathered)
        if upload.offset == start:
            return
        now = self._clock()
        is_due = now - upload.record.touched_at >= TOUCH_INTERVAL_S
        upload.record = replace(upload.record, touched_at=now)
        if is_due:
            await self._save(upload)

    async def _drop_idle(self) -> bool:
        """Drop the staged bytes of the upload that received no byte for longest. Returns False if none is idle."""
        before = self._clock() - IDLE_S
        idle = [one for one in self._uploads.values() if one.in_file and not one.is_busy]
        upload = min(idle, key=lambda one: one.record.touched_at, default=None)
        if upload is None or upload.record.touched_at > before:
            return False
        log.info("what waits of %r makes way for others", upload)
        async with self.busy(upload):
            await self.staging.clear(upload)
        return True

    # --- the end -------------------------------------------------------------------------------------------

    async def terminate(self, upload: TusUpload) -> None:
        """End an upload for its client. The object of a finished one stays."""
        assert upload.is_busy
        await self._drop(upload)

    async def _drop(self, upload: TusUpload) -> None:
        self._forget(upload)
        await run_uninterrupted(self._clear(upload))

    def _forget(self, upload: TusUpload) -> None:
        """Make the upload unknown to requests. `_clear` does the rest, now or in a later round."""
        if self._uploads.pop(upload.id, None) is not None:
            self._unfinished.give_back(upload.record.client)
        self._dropped[upload.id] = upload

    async def _clear(self, upload: TusUpload) -> None:
        is_first_time = not upload.record.is_dropped
        if is_first_time:
            upload.record = replace(upload.record, is_dropped=True)
            await self._save(upload)
            await self.staging.clear(upload)
        try:
            await self._transfer.abort(upload)
            await self.folder.remove(upload.id, record=True)
        except (OriginError, StoreError) as error:
            log.log(logging.WARNING if is_first_time else logging.DEBUG, "%r is not aborted yet: %s", upload, error)
            return
        self._count_removed(upload)

    async def _leave_at_s3(self, upload: TusUpload) -> None:
        """Forget an upload that S3 does not abort, because there are too many of them."""
        log.warning("the parts of %r stay at S3, which aborts none", upload)
        with suppress(StoreError):
            await self.folder.remove(upload.id, record=True)
        self._count_removed(upload)

    def _count_removed(self, upload: TusUpload) -> None:
        self._dropped.pop(upload.id, None)
        self._space.budget.give_back(upload.charged)
        upload.charged = 0

    async def _save(self, upload: TusUpload) -> None:
        """Write the record to the disk. If the disk refuses it, the upload does not outlive this process."""
        text = encode(upload.record)
        try:
            growth = pages(len(text)) - upload.charged
            if growth > 0:
                await self._space.reserve(growth)
                upload.charged += growth
            await self.folder.save(upload.id, text)
        except StoreError as error:
            log.warning("%r would not outlive this process: %s", upload, error)


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same bytes in fewer pieces, of GATHER_BYTES or more."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= GATHER_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
