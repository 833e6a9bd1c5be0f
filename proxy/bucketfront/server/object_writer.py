"""Writes and deletes at the origin, with the cache in step.

The old version leaves the cache right before the call that replaces it, and again once S3 has responded or the outcome
is unknown. See read your writes (docs/invariants.md#read-your-writes), no stale fill
(docs/invariants.md#no-stale-fill) and unknown outcome (docs/invariants.md#unknown-outcome).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from bucketfront.cache import Cache, Upload
from bucketfront.errors import StoreError
from bucketfront.http.delete_objects import DeleteOutcome
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.upload.uploader import Written
from bucketfront.server.write_order import WriteOrder, WritePlace, is_whole_already

INVALIDATE_TIMEOUT_S = 10.0  # for the disk to unlink a file; memory has dropped the entry long before
MAX_INVALIDATED_AT_ONCE = 32  # keys in one turn of the loop (docs/invariants.md#cost-of-a-request)

AboutToWrite = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


class OriginWriter(Protocol):
    """The writes of the origin."""

    async def put(
        self,
        key: ObjectKey,
        chunks: AsyncIterator[bytes],
        length: int | None,
        head: WriteHead,
        spool: Upload | None,
        about_to_write: AboutToWrite,
    ) -> Written: ...

    async def delete(self, key: ObjectKey) -> None: ...

    async def delete_objects(self, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteOutcome]: ...


class ObjectWriter:
    """Stores and deletes objects, and invalidates their keys in the cache."""

    def __init__(self, cache: Cache, origin: OriginWriter) -> None:
        self._cache = cache
        self._origin = origin
        self._order = WriteOrder()

    async def store(
        self,
        key: ObjectKey,
        chunks: AsyncIterator[bytes],
        length: int | None,
        head: WriteHead,
        has_arrived: Callable[[], bool] = is_whole_already,
    ) -> Written:
        """Store `chunks` as the object and as the cached entry of its key.

        `has_arrived` returns whether the client has sent all of `chunks`. Later writes of the key wait for such a one.

        Raises what the origin and `chunks` raise. The object then has its old version, or the outcome is unknown.
        """
        upload = self._cache.begin_write(key, length)
        try:
            async with self.change(key, has_arrived=has_arrived) as about_to_write:
                written = await self._origin.put(key, chunks, length, head, upload, about_to_write)
            if written.etag:  # without one, the object is not cached
                await self._cache.publish(upload, written.etag)
        finally:
            upload.close()
        return written

    def copy(self, key: ObjectKey, length: int | None) -> "BodyCopy":
        """Return a copy for the cache of a body that goes to S3 past this writer. Close it."""
        return BodyCopy(self._cache, self._cache.begin_write(key, length))

    async def delete(self, key: ObjectKey) -> None:
        async with self.change(key) as about_to_write:
            await about_to_write()
            await self._origin.delete(key)

    async def delete_many(self, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteOutcome]:
        """Delete objects and versions of objects. Return the outcome of each.

        The version that is deleted may be the current one, so the object changes as well.
        """
        changed = dict.fromkeys(changed for key in keys for changed in (key._replace(version=None), key))
        async with self.change(*changed) as about_to_write:
            await about_to_write()
            return await self._origin.delete_objects(keys)

    @asynccontextmanager
    async def change(
        self, *keys: ObjectKey, has_arrived: Callable[[], bool] = is_whole_already
    ) -> AsyncIterator[AboutToWrite]:
        """Give a write its place among those of `keys`, until the end of the block.

        The block awaits what this yields right before the call to S3 that may change the objects.
        """
        with self._order.place(keys, has_arrived) as place:
            try:
                yield partial(self._begin, place)
            finally:
                if place.is_writing:  # also if the outcome is unknown, and if the client left in the middle
                    await asyncio.shield(self.invalidate(*keys))

    async def _begin(self, place: WritePlace) -> None:
        """Wait for the turn of a write, and invalidate its keys right before it."""
        await place.turn()
        await self.invalidate(*place.keys, announces=False)

    async def invalidate(self, *keys: ObjectKey, announces: bool = True) -> None:
        """Remove the entries of `keys` from the cache. Never raises for an error of the disk.

        With `announces` other caches learn of it, which is of use once S3 has the write.
        """
        async with asyncio.TaskGroup() as group:
            for at in range(0, len(keys), MAX_INVALIDATED_AT_ONCE):
                group.create_task(self._invalidate(keys[at : at + MAX_INVALIDATED_AT_ONCE], announces=announces))
                await asyncio.sleep(0)

    async def _invalidate(self, keys: Sequence[ObjectKey], *, announces: bool) -> None:
        try:
            async with asyncio.timeout(INVALIDATE_TIMEOUT_S):
                await self._cache.invalidate(*keys, announces=announces)
        except (StoreError, TimeoutError) as error:
            # Memory no longer has the entry, so this process never serves it again. The write goes on, because disk
            # faults degrade (docs/invariants.md#disk-faults-degrade).
            why = str(error) or "the disk does not answer"
            log.warning("a file of %s could not be removed: %s", ", ".join(map(str, keys)), why)


class BodyCopy:
    """A body that is written into the cache while it is on its way to S3. `close` it."""

    def __init__(self, cache: Cache, upload: Upload) -> None:
        self._cache = cache
        self._upload = upload

    async def filled(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks, and write them. A disk that refuses some, or has no room, ends only the copy."""
        is_kept = True
        async for chunk in chunks:
            if is_kept:
                try:
                    await self._upload.write(chunk)
                except StoreError as error:
                    is_kept = False
                    log.info("%r is not kept in the cache: %s", self._upload, error)
            yield chunk

    async def publish(self, etag: str) -> None:
        """Make the copy the entry of its key, if it has the whole body. S3 has that as `etag`, after a `change`."""
        if self._upload.is_whole:
            await self._cache.publish(self._upload, etag)

    def close(self) -> None:
        self._upload.close()
