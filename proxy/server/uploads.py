"""PUT, POST and DELETE. The old version leaves the cache before S3 is asked and again after it spoke (I5, I6, I9)."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from aiohttp import HttpVersion11, hdrs, web
from ulid import ULID

from proxy.cache.cache import Cache, Writing
from proxy.config import UploadSettings
from proxy.errors import BodyTruncated, StoreError
from proxy.http import write_head
from proxy.http.cache_status import CacheStatus, Forward
from proxy.http.write_head import WriteHead
from proxy.keys import ObjectKey
from proxy.origin.writes import Written
from proxy.server.exchange import Exchange
from proxy.server.failures import SlowClient, TooLarge, UnsupportedFraming
from proxy.server.pouring import MIN_RATE, PATIENCE
from proxy.server.routing import Route

MAX_OBJECT = 5 << 40  # bytes: S3's largest object
FORGET_TIMEOUT = 10.0  # seconds for the disk to unlink a file; it goes on after that

log = logging.getLogger("bucketfront.uploads")


class Writes(Protocol):
    """What uploads need of the origin."""

    async def put(
        self, key: ObjectKey, chunks: AsyncIterator[bytes], length: int | None, head: WriteHead, spool: Writing | None
    ) -> Written: ...

    async def delete(self, key: ObjectKey) -> None: ...


class Uploads:
    """`settings` None: no upload route, and S3's own limit on the size."""

    def __init__(self, cache: Cache, writes: Writes, settings: UploadSettings | None) -> None:
        self._cache = cache
        self._writes = writes
        self._max_size = MAX_OBJECT if settings is None else settings.max_size

    async def put(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """201 with the key. Raises ProxyErrors; whatever it raises, no shorter object was made (I8)."""
        request = exchange.request
        key = route.key(str(ULID()) if route.makes_key else "")
        length = _declared_length(request)
        if length is not None and length > self._max_size:
            raise TooLarge(f"the body has {length} bytes; uploads.max_size is {self._max_size}")
        headers = {name.lower(): value for name, value in request.headers.items()}
        if _is_aws_chunked(headers):
            raise UnsupportedFraming("aws-chunked bodies are not taken; send the plain bytes")
        # RFC 9110 section 10.1.1: never to an HTTP/1.0 client.
        wants_word = hdrs.EXPECT in request.headers and request.version >= HttpVersion11
        if wants_word and request.transport is not None:
            # Only now, when nothing but the body itself can still be refused.
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = write_head.parse(request.headers.items()).guessed(key.key)
        exchange.status = CacheStatus(Forward.METHOD)
        chunks = self._body(exchange, length)
        writing = self._cache.begin_write(key, length)
        try:
            await self._forget(key)
            try:
                written = await self._writes.put(key, chunks, length, head, writing)
            finally:
                # Also when the outcome is unknown, and when the client left in the middle.
                await asyncio.shield(self._forget(key))
            await self._cache.publish(writing, written.etag)
        finally:
            writing.close()
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=200)
        return web.Response(
            status=201,
            body=json.dumps({"key": route.relative(key)}, ensure_ascii=False).encode() + b"\n",
            headers={
                **exchange.headers(),
                "Location": route.location(key),
                "ETag": written.etag,
                "Content-Type": "application/json",
            },
        )

    async def delete(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """204, also where there was no such object, as S3 does."""
        key = route.key()
        exchange.status = CacheStatus(Forward.METHOD)
        await self._forget(key)
        try:
            await self._writes.delete(key)
        finally:
            await asyncio.shield(self._forget(key))
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=204)
        return web.Response(status=204, headers=exchange.headers())

    async def _forget(self, key: ObjectKey) -> None:
        try:
            async with asyncio.timeout(FORGET_TIMEOUT):
                await self._cache.invalidate(key)
        except (StoreError, TimeoutError) as error:
            # Memory has forgotten it, so this process never serves it again; a write must not fail for the disk (I16).
            log.warning("the file of %s could not be removed: %s", key, str(error) or "the disk does not answer")

    async def _body(self, exchange: Exchange, length: int | None) -> AsyncIterator[bytes]:
        """The request's body as sent, never decompressed, within `max_size`. Raises SlowClient, TooLarge."""
        content = exchange.request.content
        clock = asyncio.get_running_loop().time
        waited, got = 0.0, 0  # since the rate was last looked at; the time that S3 takes is not the client's
        while True:
            began = clock()
            try:
                async with asyncio.timeout(PATIENCE):
                    chunk = await content.readany()
            except TimeoutError:
                raise SlowClient(f"no byte of the body came for {PATIENCE:g} s") from None
            except web.RequestPayloadError as error:
                raise BodyTruncated(f"the client's body broke off: {error}") from error
            waited, got = waited + clock() - began, got + len(chunk)
            if waited > PATIENCE:
                if got < MIN_RATE * waited:
                    raise SlowClient(f"the body came at {got / waited:.0f} bytes a second")
                waited, got = 0.0, 0
            if not chunk:
                break
            exchange.received += len(chunk)
            if exchange.received > self._max_size:
                raise TooLarge(f"the body has more than {self._max_size} bytes, which is uploads.max_size")
            yield chunk
        if length is not None and exchange.received != length:
            raise BodyTruncated(f"the client sent {exchange.received} of {length} bytes")


def _declared_length(request: web.BaseRequest) -> int | None:
    """The body's length in bytes; None for a chunked one. No framing field at all means no body (RFC 9112, 6.3)."""
    if hdrs.TRANSFER_ENCODING in request.headers:
        return None
    return request.content_length or 0


def _is_aws_chunked(headers: Mapping[str, str]) -> bool:
    """An S3 client's own framing inside the body (S3 API, "Signature calculations: chunked upload")."""
    signed = headers.get("x-amz-content-sha256", "").lower()
    return signed.startswith("streaming-") or "aws-chunked" in headers.get("content-encoding", "").lower()
