"""The body of an upload as it arrives: never decompressed, never below the minimum rate, never longer than allowed.

PUT, POST and PATCH read their bodies by these functions.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

from aiohttp import HttpVersion11, StreamReader, hdrs, web

from bucketfront.errors import BodyTruncated
from bucketfront.http.aws_chunked import AwsChunked, ChunkDecoder, ChunkEncoder, Signatures
from bucketfront.http.body_checksums import BodyChecksums
from bucketfront.http.checksums import Digest
from bucketfront.server.client_limits import CLIENT_TIMEOUT_S
from bucketfront.server.error_responses import LengthRequired, SlowClient, TooLarge
from bucketfront.server.telemetry.exchange import Exchange

MAX_READ_BYTES = 64 << 10


def declared_length(request: web.BaseRequest) -> int | None:
    """Return the body's length in bytes, or None if it is chunked.

    A request without a framing field has no body (RFC 9112 section 6.3).
    """
    if hdrs.TRANSFER_ENCODING in request.headers:
        return None
    return request.content_length or 0


def required_length(request: web.BaseRequest) -> int | None:
    """Return the same for a request that needs a body, such as a PUT.

    Raises LengthRequired if there is no framing field. Such a client forgot its body, and does not mean to empty the
    object. S3 refuses such a request as well.
    """
    if not {hdrs.TRANSFER_ENCODING, hdrs.CONTENT_LENGTH} & request.headers.keys():
        raise LengthRequired("the request has neither Content-Length nor Transfer-Encoding; an empty body has length 0")
    return declared_length(request)


def invite(request: web.BaseRequest) -> None:
    """Send `100 Continue` if the client expects it. Call this once only the body itself can still be refused."""
    # RFC 9110 section 10.1.1: never to an HTTP/1.0 client.
    expects_continue = hdrs.EXPECT in request.headers and request.version >= HttpVersion11
    if expects_continue and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def received(
    exchange: Exchange, length: int | None, limit: int, deadline: float = math.inf
) -> AsyncIterator[bytes]:
    """Yield the request's body as sent.

    `length` is the declared length and `limit` the longest that is accepted, both in bytes. `deadline` is in seconds
    after the request's head.

    Raises SlowClient, TooLarge, and BodyTruncated if the client left before the end.
    """
    content = exchange.request.content
    clock = asyncio.get_running_loop().time
    until = exchange.started + deadline
    waited, got = 0.0, 0  # since the last check of the rate; time that S3 takes does not count
    while True:
        began = clock()
        chunk = await _read(content, until, deadline)
        waited, got = waited + clock() - began, got + len(chunk)
        if waited > CLIENT_TIMEOUT_S:
            if got < exchange.min_rate * waited:
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
    """Return the next bytes, or none at the end. `until` is the `deadline` in the loop's time."""
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout_at(min(clock() + CLIENT_TIMEOUT_S, until)):
            chunk = await content.read(MAX_READ_BYTES)
    except TimeoutError:
        if clock() < until:
            raise SlowClient(f"no byte of the body came for {CLIENT_TIMEOUT_S:g} s") from None
    except web.RequestPayloadError as error:
        raise BodyTruncated(f"the client's body broke off: {error}") from error
    else:
        if not chunk or clock() < until:  # a read that does not have to wait is never cut short
            return chunk
    raise SlowClient(f"the body was not whole after {deadline:g} s")


def verified(
    chunks: AsyncIterator[bytes],
    claims: Sequence[Digest],
    framing: AwsChunked | None = None,
    signatures: Signatures | None = None,
) -> AsyncIterator[bytes]:
    """Yield the object's bytes, without a `framing`, and compare them with the checksums that the client claimed.

    The last bytes follow only after all checksums held and the framing is complete, so that no consumer has a whole
    object before. `signatures` verifies those of the chunks. The iterator raises ChecksumMismatch, BadChunks and
    S3Refused.
    """
    if framing is not None:
        return _unframed(chunks, claims, framing, signatures)
    return _verified(chunks, BodyChecksums(claims)) if claims else chunks


def framed_again(
    chunks: AsyncIterator[bytes],
    claims: Sequence[Digest],
    framing: AwsChunked,
    signatures: Signatures | None,
    encoder: ChunkEncoder,
) -> AsyncIterator[bytes]:
    """Yield the object in the framing of `encoder`, with the checksums that were behind it. Raises as `verified`."""
    return _unframed(chunks, claims, framing, signatures, encoder)


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


async def _unframed(
    chunks: AsyncIterator[bytes],
    claims: Sequence[Digest],
    framing: AwsChunked,
    signatures: Signatures | None,
    encoder: ChunkEncoder | None = None,
) -> AsyncIterator[bytes]:
    decoder, checksums = ChunkDecoder(framing, signatures), BodyChecksums(claims, framing.trailing)
    held = b""
    async for chunk in chunks:
        if not (piece := decoder.feed(chunk)):
            continue
        checksums.update(piece)
        if held:
            yield held if encoder is None else encoder.feed(held)
        held = piece
    trailing = decoder.close()
    checksums.verify(trailing)
    if encoder is not None:
        yield encoder.feed(held) + encoder.close(trailing)
    elif held:
        yield held
