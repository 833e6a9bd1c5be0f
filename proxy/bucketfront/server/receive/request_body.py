"""The body of an upload as it comes: never decompressed, never below the minimum rate, never longer than allowed.

Whoever stores a body reads it here: PUT, POST and PATCH.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

from aiohttp import HttpVersion11, StreamReader, hdrs, web

from bucketfront.errors import BodyTruncated
from bucketfront.http.body_checksums import BodyChecksums
from bucketfront.http.checksums import Digest
from bucketfront.server.error_responses import LengthRequired, SlowClient, TooLarge
from bucketfront.server.send.sendfile import MIN_RATE, PATIENCE
from bucketfront.server.telemetry.exchange import Exchange

PIECE = 64 << 10  # bytes of a body taken at once


def declared_length(request: web.BaseRequest) -> int | None:
    """The body's length in bytes; None for a chunked one. No framing field at all means no body (RFC 9112, 6.3)."""
    if hdrs.TRANSFER_ENCODING in request.headers:
        return None
    return request.content_length or 0


def required_length(request: web.BaseRequest) -> int | None:
    """The same, of a request that is nothing without its body. Raises LengthRequired: a client that forgot to frame its
    body, or lost it, does not mean to empty the object. S3 takes no such request either.
    """
    if not {hdrs.TRANSFER_ENCODING, hdrs.CONTENT_LENGTH} & request.headers.keys():
        raise LengthRequired("the request has neither Content-Length nor Transfer-Encoding; an empty body has length 0")
    return declared_length(request)


def invite(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`: only now, when nothing but the body itself can still be refused."""
    # RFC 9110 section 10.1.1: never to an HTTP/1.0 client.
    wants_word = hdrs.EXPECT in request.headers and request.version >= HttpVersion11
    if wants_word and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def received(
    exchange: Exchange, length: int | None, limit: int, deadline: float = math.inf
) -> AsyncIterator[bytes]:
    """The request's body, as sent. `length` is the declared one, `limit` the most that is taken, both in bytes;
    `deadline` is in seconds after the request's head.

    Raises SlowClient, TooLarge; BodyTruncated when the client left before the end.
    """
    content = exchange.request.content
    clock = asyncio.get_running_loop().time
    until = exchange.started + deadline
    waited, got = 0.0, 0  # since the rate was last looked at; the time that S3 takes is not the client's
    while True:
        began = clock()
        chunk = await _read(content, until, deadline)
        waited, got = waited + clock() - began, got + len(chunk)
        if waited > PATIENCE:
            if got < MIN_RATE * waited:
                raise SlowClient(f"the body came at {got / waited:.0f} bytes a second")
            waited, got = 0.0, 0
        if not chunk:
            break
        exchange.received += len(chunk)
        if exchange.received > limit:
            raise TooLarge(f"the body has more than the {limit} bytes that are taken")
        yield chunk
    if length is not None and exchange.received != length:
        raise BodyTruncated(f"the client sent {exchange.received} of {length} bytes")


async def _read(content: StreamReader, until: float, deadline: float) -> bytes:
    """The next piece, empty at the end. `until` is the `deadline` by the loop's clock."""
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout_at(min(clock() + PATIENCE, until)):
            chunk = await content.read(PIECE)
    except TimeoutError:
        if clock() < until:
            raise SlowClient(f"no byte of the body came for {PATIENCE:g} s") from None
    except web.RequestPayloadError as error:
        raise BodyTruncated(f"the client's body broke off: {error}") from error
    else:
        if not chunk or clock() < until:  # a read that does not have to wait is never cut short
            return chunk
    raise SlowClient(f"the body was not whole after {deadline:g} s")


def verified(chunks: AsyncIterator[bytes], claims: Sequence[Digest]) -> AsyncIterator[bytes]:
    """The same bytes, held against what was said of them: the last ones are given away only after all `claims` held,
    so that whoever stores them never has a whole object before. The iterator raises ChecksumMismatch.
    """
    return _verified(chunks, BodyChecksums(claims)) if claims else chunks


async def _verified(chunks: AsyncIterator[bytes], checksums: BodyChecksums) -> AsyncIterator[bytes]:
    held = b""
    async for chunk in chunks:
        checksums.update(chunk)
        if held:
            yield held
        held = chunk
    checksums.verify()
    if held:
        yield held
