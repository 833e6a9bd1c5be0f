"""PUT, POST and DELETE. The old version leaves the cache right before the call that replaces it, and again after S3
spoke (I5, I6, I9).
"""

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import hdrs, web
from ulid import ULID

from bucketfront.cache import Cache, Upload
from bucketfront.config.mount_settings import MountSettings, UploadSettings
from bucketfront.errors import BadPath, StoreError
from bucketfront.http import delete_objects, multipart_form, write_head
from bucketfront.http.body_checksums import BodyChecksums
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.delete_objects import DeleteFailure, DeleteRequest
from bucketfront.http.key_template import KeyTemplate
from bucketfront.http.write_head import NoSuchWrite, WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.upload.uploader import Written
from bucketfront.server.error_responses import Overloaded, TooLarge
from bucketfront.server.receive import forms
from bucketfront.server.receive.forms import Form
from bucketfront.server.receive.request_body import invite, received, required_length, verified
from bucketfront.server.router import Route
from bucketfront.server.telemetry.exchange import Exchange

FORGET_TIMEOUT = 10.0  # seconds for the disk to unlink a file; it goes on after that
FORGET_AT_ONCE = 32  # keys that leave the cache in one step, which may not hold the loop for long (I22)
DELETES_AT_ONCE = 8  # DeleteObjects, of each of which a document and up to 1000 keys are in memory (I19)
DELETE_PATIENCE = 10.0  # seconds until one of them is over
DELETE_DEADLINE = 60.0  # seconds that a document may take to come in

log = logging.getLogger(__name__)


class Writes(Protocol):
    """What uploads need of the origin."""

    async def put(
        self,
        key: ObjectKey,
        chunks: AsyncIterator[bytes],
        length: int | None,
        head: WriteHead,
        spool: Upload | None,
        about_to_write: Callable[[], Awaitable[None]],
    ) -> Written: ...

    async def delete(self, key: ObjectKey) -> None: ...

    async def delete_objects(self, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteFailure | None]: ...


class UploadHandler:
    """`settings` None: no upload route, and the bounds are the defaults. `clock` is in seconds since the epoch."""

    def __init__(
        self, cache: Cache, writes: Writes, settings: UploadSettings | None, clock: Callable[[], float]
    ) -> None:
        self._cache = cache
        self._writes = writes
        self._settings = settings or UploadSettings()
        self._clock = clock
        self._deletes = asyncio.Semaphore(DELETES_AT_ONCE)

    async def put(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """201 with the key, or with those of a form's files. Raises ProxyErrors; whatever it raises, no shorter object
        was made (I8).
        """
        request = exchange.request
        content_type = request.headers.get(hdrs.CONTENT_TYPE)
        if request.method == hdrs.METH_POST and multipart_form.is_form(content_type):
            return await self._put_form(exchange, route, multipart_form.boundary_of(content_type or ""))
        head = write_head.parse(request.headers.items())
        key = route.key_to_write(self._new_name(route) if route.makes_key else "")
        head = _fitted(head, key, route.mount)
        length, limit = required_length(request), self._limit(route.mount)
        _refuse_too_large(length, limit)
        if not length and length is not None:
            BodyChecksums(head.checksums).verify()  # nobody asks for the pieces of what has none
        chunks = verified(self._body(exchange, length, limit), head.checksums)
        written = await self.store(key, chunks, length, head)
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=200)
        return _created(exchange, route, key, written.etag)

    async def delete(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """204, also where there was no such object, as S3 does."""
        head = write_head.parse(exchange.request.headers.items())
        if head.only_if_absent or head.if_match is not None:
            raise NoSuchWrite("a DELETE on a condition is not taken here")
        key = route.key()
        exchange.status = CacheStatus(Forward.METHOD)
        await self.forget(key)
        try:
            await self._writes.delete(key)
        finally:
            await asyncio.shield(self.forget(key))
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=204)
        return web.Response(status=204, headers=exchange.headers())

    async def delete_many(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """S3's DeleteObjects, of keys below the mount: its own answer in XML, 200 whatever became of each key."""
        request = exchange.request
        head = write_head.parse(request.headers.items())
        length, limit = required_length(request), delete_objects.MAX_BODY_BYTES
        _refuse_too_large(length, limit)
        try:
            async with asyncio.timeout(DELETE_PATIENCE):
                await self._deletes.acquire()
        except TimeoutError:
            raise Overloaded("too many DeleteObjects at once") from None
        try:
            chunks = verified(self._body(exchange, length, limit, DELETE_DEADLINE), head.checksums)
            return await self._answer_deletes(exchange, route, await _delete_request(chunks))
        finally:
            self._deletes.release()

    async def _answer_deletes(self, exchange: Exchange, route: Route, wanted: DeleteRequest) -> web.Response:
        outcomes: dict[str, DeleteFailure | None] = {}
        keys: dict[ObjectKey, str] = {}
        for named in wanted.objects:
            outcomes[named.key] = None
            try:
                key = route.key(named.key)
            except BadPath:
                outcomes[named.key] = DeleteFailure("KeyTooLongError", "Your key is too long.")
                continue
            if named.is_plain:
                keys[key] = named.key
            else:
                outcomes[named.key] = DeleteFailure("NotImplemented", "Versions and conditions are not taken here.")
        if keys:
            told = await self._delete_objects(list(keys))
            outcomes |= {keys[key]: refusal for key, refusal in told.items()}
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=200)
        return web.Response(
            body=delete_objects.result(outcomes.items(), quiet=wanted.quiet),
            headers={**exchange.headers(), hdrs.CONTENT_TYPE: "application/xml"},
        )

    async def store(self, key: ObjectKey, chunks: AsyncIterator[bytes], length: int | None, head: WriteHead) -> Written:
        """`chunks` become the object, and the cached entry of its key. Raises what the origin and `chunks` raise."""
        writing = self._cache.begin_write(key, length)
        try:
            try:
                written = await self._writes.put(key, chunks, length, head, writing, lambda: self.forget(key))
            finally:
                # Also when the outcome is unknown, and when the client left in the middle.
                await asyncio.shield(self.forget(key))
            await self._cache.publish(writing, written.etag)
        finally:
            writing.close()
        return written

    async def forget(self, *keys: ObjectKey) -> None:
        """What the cache has of `keys`, before S3 is asked to write them and after it spoke. Never raises for the
        disk.
        """
        async with asyncio.TaskGroup() as group:
            for at in range(0, len(keys), FORGET_AT_ONCE):
                group.create_task(self._forget(keys[at : at + FORGET_AT_ONCE]))
                await asyncio.sleep(0)

    async def _forget(self, keys: Sequence[ObjectKey]) -> None:
        try:
            async with asyncio.timeout(FORGET_TIMEOUT):
                await self._cache.invalidate(*keys)
        except (StoreError, TimeoutError) as error:
            # Memory has forgotten it, so this process never serves it again; a write must not fail for the disk (I16).
            why = str(error) or "the disk does not answer"
            log.warning("a file of %s could not be removed: %s", ", ".join(map(str, keys)), why)

    async def _put_form(self, exchange: Exchange, route: Route, boundary: str) -> web.StreamResponse:
        head = write_head.parse(exchange.request.headers.items())
        mount, limit = route.mount, self._limit(route.mount)
        length = required_length(exchange.request)
        _refuse_too_large(length, limit + forms.MAX_OVERHEAD_BYTES)

        async def store(key: ObjectKey, chunks: AsyncIterator[bytes], head: WriteHead) -> Written:
            return await self.store(
                key, verified(_bounded(chunks, limit), head.checksums), None, _fitted(head, key, mount)
            )

        form = Form(route, head, store, self._clock())
        stored = await form.read(self._body(exchange, length, limit + forms.MAX_OVERHEAD_BYTES), boundary)
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=200)
        if len(stored) == 1:
            return _created(exchange, route, stored[0].key, stored[0].etag)
        return _json(exchange, [forms.description(route, one) for one in stored])

    async def _delete_objects(self, keys: Sequence[ObjectKey]) -> dict[ObjectKey, DeleteFailure | None]:
        await self.forget(*keys)
        try:
            return await self._writes.delete_objects(keys)
        finally:
            await asyncio.shield(self.forget(*keys))

    def _body(
        self, exchange: Exchange, length: int | None, limit: int, deadline: float = math.inf
    ) -> AsyncIterator[bytes]:
        """Asked for only now, when nothing but the body itself can still be refused."""
        invite(exchange.request)
        exchange.status = CacheStatus(Forward.METHOD)
        return received(exchange, length, limit, min(deadline, self._settings.deadline))

    def _limit(self, mount: MountSettings) -> int:
        """Bytes of one upload."""
        of_all = self._settings.max_size
        return of_all if mount.max_size is None else min(mount.max_size, of_all)

    def _new_name(self, route: Route) -> str:
        return KeyTemplate(route.mount.key_template).key(self._clock(), str(ULID()))


def _fitted(head: WriteHead, key: ObjectKey, mount: MountSettings) -> WriteHead:
    """As the mount wants it. Raises PreconditionFailed."""
    if mount.guess_types:
        head = head.with_guessed_type(key.key)
    return head.write_once() if mount.write_once else head


def _refuse_too_large(length: int | None, limit: int) -> None:
    """Raises TooLarge."""
    if length is not None and length > limit:
        raise TooLarge(f"the body has {length} bytes; {limit} are taken here")


async def _delete_request(chunks: AsyncIterator[bytes]) -> DeleteRequest:
    """Raises MalformedXml."""
    parser = delete_objects.DeleteRequestParser()
    async for chunk in chunks:
        parser.feed(chunk)
        await asyncio.sleep(0)  # what is there already comes without a pause (I22)
    return parser.close()


async def _bounded(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Raises TooLarge."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"a file has more than the {limit} bytes that are taken here")
        yield chunk


def _created(exchange: Exchange, route: Route, key: ObjectKey, etag: str) -> web.Response:
    response = _json(exchange, {"key": route.relative(key)})
    response.headers[hdrs.LOCATION] = route.location(key)
    response.headers[hdrs.ETAG] = etag
    return response


def _json(exchange: Exchange, told: object) -> web.Response:
    return web.Response(
        status=201,
        body=json.dumps(told, ensure_ascii=False).encode() + b"\n",
        headers={**exchange.headers(), hdrs.CONTENT_TYPE: "application/json"},
    )
