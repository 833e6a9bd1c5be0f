"""The body of an upload as it comes: never decompressed, never below the minimum rate, never longer than allowed.

Whoever stores a body reads it here: PUT, POST and PATCH.
"""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import HttpVersion11, hdrs, web

from proxy.errors import BodyTruncated
from proxy.server.exchange import Exchange
from proxy.server.failures import SlowClient, TooLarge
from proxy.server.pouring import MIN_RATE, PATIENCE


def declared_length(request: web.BaseRequest) -> int | None:
    """The body's length in bytes; None for a chunked one. No framing field at all means no body (RFC 9112, 6.3)."""
    if hdrs.TRANSFER_ENCODING in request.headers:
        return None
    return request.content_length or 0


def invite(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`: only now, when nothing but the body itself can still be refused."""
    # RFC 9110 section 10.1.1: never to an HTTP/1.0 client.
    wants_word = hdrs.EXPECT in request.headers and request.version >= HttpVersion11
    if wants_word and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def received(exchange: Exchange, length: int | None, limit: int) -> AsyncIterator[bytes]:
    """The request's body, as sent. `length` is the declared one, `limit` the most that is taken, both in bytes.

    Raises SlowClient, TooLarge; BodyTruncated when the client left before the end.
    """
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
        if exchange.received > limit:
            raise TooLarge(f"the body has more than the {limit} bytes that are taken")
        yield chunk
    if length is not None and exchange.received != length:
        raise BodyTruncated(f"the client sent {exchange.received} of {length} bytes")
