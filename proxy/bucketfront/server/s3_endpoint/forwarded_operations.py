"""Operations that the origin carries out: they are signed again and passed on, and the cache follows.

Theory of operation
-------------------
The body of a request is decoded and verified here, so that a body with a wrong signature or checksum never becomes an
object. Its last bytes follow only after that, and without them the origin stores nothing
(docs/invariants.md#write-atomicity). Checksums behind the body pass in a framing of our own.

An operation that changes objects has its place among the writes of their keys, as each other write has
(`ObjectWriter.change`). The last bytes of its response follow only once the cache has followed
(docs/invariants.md#read-your-writes). S3 sends white space before the result of a long one, which passes at once.

A request that the client has signed for S3 passes as it is, with its framing. S3 verifies its body.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from aiohttp import HttpVersion11, hdrs, web

from bucketfront.errors import OriginError
from bucketfront.http import aws_chunked, forwarded_fields, write_head
from bucketfront.http.aws_chunked import ChunkEncoder
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.grammar import Headers
from bucketfront.keys import ObjectKey
from bucketfront.s3.forwarded_request import UNSIGNED_PAYLOAD, ForwardedRequest
from bucketfront.s3.forwarded_response import ForwardedResponse
from bucketfront.server.client_progress import ClientWatch
from bucketfront.server.cut import broken_off
from bucketfront.server.error_responses import LengthRequired, TooLarge
from bucketfront.server.http1.aiohttp_private import DeferredHeadResponse
from bucketfront.server.object_writer import ObjectWriter
from bucketfront.server.receive.request_body import (
    declared_length,
    framed_again,
    invite,
    received,
    required_length,
    verified,
)
from bucketfront.server.send.sender import abort
from bucketfront.server.telemetry.exchange import Exchange

_NO_BODY = hashlib.sha256(b"").hexdigest()
_READS = ("GET", "HEAD")
# S3 takes them with a length only. A client without one forgot its body, and means no empty object.
_WITH_BODY = ("PutObject", "UploadPart")


class ForwardingOrigin(Protocol):
    """The part of the origin that passes requests on. `S3Origin` has it."""

    def forward(self, request: ForwardedRequest) -> AbstractAsyncContextManager[ForwardedResponse]: ...


@dataclass(frozen=True, slots=True)
class ForwardedOperation:
    """One request to pass on.

    `name` is the operation's in the S3 API. `key` is empty for a bucket, and `bucket` is None for the service. `fields`
    are all of the request, by their names in lower case. `changes` are the objects that the operation may change. Of
    them `stored` becomes the body, so that the cache can keep it. The body has at most `max_size` bytes, if that is not
    None. With `signed_target` the request is sent as it is, with this raw target and these fields alone. `body` is that
    of such a request, if it has come as a whole.
    """

    name: str
    bucket: str | None
    key: str
    query: str
    fields: Mapping[str, str]
    changes: tuple[ObjectKey, ...] = ()
    stored: ObjectKey | None = None
    max_size: int | None = None
    signed_target: str | None = None
    body: bytes | None = None


Judge = Callable[[ForwardedResponse], bool]
"""Whether a response goes to the client, by its head."""


class ForwardedOperations:
    """Passes operations on. `max_size` is the most bytes of a body, and `deadline` how long it may take in seconds."""

    def __init__(self, origin: ForwardingOrigin, writer: ObjectWriter, max_size: int, deadline: float) -> None:
        self._origin = origin
        self._writer = writer
        self._max_size = max_size
        self._deadline = deadline

    async def respond(self, exchange: Exchange, operation: ForwardedOperation) -> web.StreamResponse:
        """Respond as the origin does. Raises ProxyErrors before the head, ConnectionErrors after it."""
        response = await self.respond_if(exchange, operation, _always)
        assert response is not None
        return response

    async def respond_if(
        self, exchange: Exchange, operation: ForwardedOperation, passes: Judge
    ) -> web.StreamResponse | None:
        """Respond as the origin does, if `passes` is true of its response. If not, close that and return None.

        Raises as `respond`.
        """
        request = await self._request(exchange, operation)
        exchange.status = CacheStatus(Forward.BYPASS if exchange.request.method in _READS else Forward.METHOD)
        passing = _PassingResponse(exchange, passes)
        try:
            if operation.stored is not None:
                await self._store(request, passing, operation.stored)
            elif operation.changes:
                await self._change(request, passing, operation.changes)
            else:
                await self._pass_on(request, passing)
            return await passing.finish()
        except (OriginError, TimeoutError) as error:
            if not passing.has_begun:
                raise
            abort(exchange.request)
            raise broken_off(error) from error

    async def _store(self, request: ForwardedRequest, passing: "_PassingResponse", key: ObjectKey) -> None:
        """Pass on a body that becomes an object, and keep a copy of it."""
        if request.payload == aws_chunked.UNSIGNED_TRAILER or not isinstance(request.body, AsyncIterator):
            await self._change(request, passing, (key,))
            return
        copy = self._writer.copy(key, request.length)
        try:
            await self._change(replace(request, body=copy.filled(request.body)), passing, (key,))
            if (etag := passing.stored_etag) is not None:
                await copy.publish(etag)
        finally:
            copy.close()

    async def _change(
        self, request: ForwardedRequest, passing: "_PassingResponse", changes: tuple[ObjectKey, ...]
    ) -> None:
        """Pass on what changes objects, with the cache in step."""
        arrived = passing.exchange.request.content.is_eof
        async with self._writer.change(*changes, has_arrived=arrived) as about_to_write:
            await about_to_write()
            await self._pass_on(request, passing)

    async def _pass_on(self, request: ForwardedRequest, passing: "_PassingResponse") -> None:
        async with self._origin.forward(request) as response:
            if not passing.begin(response):
                return
            async for chunk in response.chunks():
                await passing.write(chunk)

    async def _request(self, exchange: Exchange, operation: ForwardedOperation) -> ForwardedRequest:
        """Return what the origin gets. Its body is read from the client while the origin takes it."""
        if operation.signed_target is not None:
            return self._signed_request(exchange, operation, operation.signed_target)
        is_read = exchange.request.method in _READS
        body = _ForwardedBody() if is_read else self._body(exchange, operation)
        if body.chunks is not None and body.length == 0:
            # No last bytes wait for the verification, so it comes first.
            async for _ in body.chunks:
                pass
            body = replace(body, chunks=None)
        fields = {**operation.fields, **dict(body.fields)}
        return ForwardedRequest(
            operation=operation.name,
            method=exchange.request.method,
            bucket=operation.bucket,
            key=operation.key,
            query=operation.query,
            fields=forwarded_fields.of_request(fields) + body.of_framing,
            body=body.chunks,
            length=body.length,
            payload=body.payload,
        )

    def _signed_request(self, exchange: Exchange, operation: ForwardedOperation, target: str) -> ForwardedRequest:
        """Return a request that the client has signed, as it is. S3 verifies its body, in chunks or not."""
        length = declared_length(exchange.request)
        if length is None:
            raise LengthRequired("S3 needs the length of a body before the body itself")
        limit = aws_chunked.longest_body(self._max_size)
        if length > limit:
            raise TooLarge(f"the body has {length} bytes; {limit} are taken here")
        body: AsyncIterator[bytes] | bytes | None = operation.body
        if body is None and length:
            body = self._received(exchange, is_framed=True)
        return ForwardedRequest(
            operation=operation.name,
            method=exchange.request.method,
            bucket=operation.bucket,
            key=operation.key,
            fields=tuple(operation.fields.items()),
            body=body,
            length=length,
            signed_target=target,
        )

    def _body(self, exchange: Exchange, operation: ForwardedOperation) -> "_ForwardedBody":
        """Return the body of a request, verified. It has the framing of S3 if checksums are behind it."""
        claims, framing = write_head.parse_body(exchange.request.headers.items())
        declared = (required_length if operation.name in _WITH_BODY else declared_length)(exchange.request)
        length = declared if framing is None else framing.length
        if length is None:
            raise LengthRequired("S3 needs the length of a body before the body itself")
        limit = self._max_size if operation.max_size is None else min(operation.max_size, self._max_size)
        if length > limit:
            raise TooLarge(f"the body has {length} bytes; {limit} are taken here")
        chunks = self._received(exchange, is_framed=framing is not None)
        if framing is None:
            return _ForwardedBody(verified(chunks, claims), length, UNSIGNED_PAYLOAD)
        codings = write_head.without_aws_chunked(operation.fields.get("content-encoding", ""))
        if not framing.trailing:
            chunks = verified(chunks, claims, framing, exchange.chunk_signatures)
            return _ForwardedBody(chunks, length, UNSIGNED_PAYLOAD, (("content-encoding", codings),))
        encoder = ChunkEncoder(length, framing.trailing)
        names = ",".join(aws_chunked.CHECKSUM_PREFIX + algorithm for algorithm in framing.trailing)
        return _ForwardedBody(
            framed_again(chunks, claims, framing, exchange.chunk_signatures, encoder),
            encoder.framed_length,
            aws_chunked.UNSIGNED_TRAILER,
            (("content-encoding", ", ".join(filter(None, (aws_chunked.CODING, codings)))),),
            (("x-amz-decoded-content-length", str(length)), ("x-amz-trailer", names)),
        )

    def _received(self, exchange: Exchange, *, is_framed: bool) -> AsyncIterator[bytes]:
        invite(exchange.request)
        limit = aws_chunked.longest_body(self._max_size) if is_framed else self._max_size
        return received(exchange, declared_length(exchange.request), limit, self._deadline)


@dataclass(frozen=True, slots=True)
class _ForwardedBody:
    """The body that the origin gets, and how it is declared. `fields` take the place of those of the client."""

    chunks: AsyncIterator[bytes] | None = None
    length: int | None = 0
    payload: str = _NO_BODY
    fields: Headers = ()
    of_framing: Headers = ()


def _always(_: ForwardedResponse) -> bool:
    return True


class _PassingResponse:
    """The response of the origin on its way to the client, which holds the last chunk back until `finish`."""

    def __init__(self, exchange: Exchange, passes: Judge) -> None:
        self.exchange = exchange
        self._passes = passes
        self._watch = ClientWatch(exchange.min_rate)
        self._response: DeferredHeadResponse | None = None
        self._held = b""
        self.has_begun = False

    def begin(self, response: ForwardedResponse) -> bool:
        """Begin with the head of the response. Return whether it goes to the client."""
        if not self._passes(response):
            return False
        exchange = self.exchange
        exchange.status = CacheStatus(exchange.status.fwd, fwd_status=response.status)
        headers = exchange.headers()
        headers.update(exchange.s3_fields())
        for name, value in forwarded_fields.of_response(response.headers.items()):
            headers[name] = value
        self._response = DeferredHeadResponse(status=response.status, headers=headers)
        has_body = exchange.request.method != hdrs.METH_HEAD and response.status not in (204, 304)
        if has_body and hdrs.CONTENT_LENGTH not in headers and exchange.request.version >= HttpVersion11:
            self._response.enable_chunked_encoding()
        return True

    @property
    def stored_etag(self) -> str | None:
        """Return the ETag of the object that a PutObject has made. Returns None if it has made none."""
        response = self._response
        return None if response is None or response.status != 200 else response.headers.get(hdrs.ETAG)

    async def write(self, chunk: bytes | memoryview) -> None:
        """Send what was held back, and hold `chunk` back instead."""
        held, self._held = self._held, bytes(chunk)
        if held:
            await self._send(held)

    async def finish(self) -> web.StreamResponse | None:
        if self._held:
            await self._send(self._held)
        return self._response

    async def _send(self, chunk: bytes) -> None:
        assert self._response is not None
        exchange = self.exchange
        if not self.has_begun:
            await self._response.prepare(exchange.request)
            exchange.begin(self._response.status)
            self.has_begun = True
        async with self._watch.wait(exchange.request.transport):
            await self._response.write(chunk)
        exchange.sent += len(chunk)
        exchange.from_origin = exchange.sent
