"""S3's response to a forwarded request, with its body as it comes.

A body ends cleanly only where its framing ends: at its Content-Length, or with the last chunk of HTTP. A body that
breaks off raises (docs/invariants.md#exact-length).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import aiohttp
from multidict import CIMultiDict

from bucketfront.errors import BodyTruncated, InvalidOriginResponse, OriginError, OriginTimeout
from bucketfront.http.grammar import is_token
from bucketfront.http.response_fields import ResponseFields
from bucketfront.s3 import responses
from bucketfront.s3.body import S3Body
from bucketfront.s3.error_translation import translated
from bucketfront.s3.minimum_rate import MinimumRate
from bucketfront.s3.sdk_response import SdkResponse

MAX_AHEAD_BYTES = 128 << 10  # of a list: as much as a connection of a client may have (docs/invariants.md#memory)

_OF_THE_CONNECTION = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "transfer-encoding",
    "upgrade",
})  # fmt: skip
_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), 127), " ")

Bytes = bytes | memoryview


class ChunkedBody:
    """A body that HTTP's chunks frame, or that S3 sends while it works for minutes.

    `timeout` is for each piece, in seconds. For a slow operation it is for the whole body, which has spaces at first.
    `on_close` is called once, when the connection is free, and the others with the errors of the body.
    """

    def __init__(self, response: SdkResponse, what: str, timeout: float, *, is_slow: bool) -> None:
        self._response = response
        self._what = what
        self._timeout = timeout
        self._until = asyncio.get_running_loop().time() + timeout if is_slow else None
        self._rate = None if is_slow else MinimumRate()
        self._is_closed = False
        self.on_close: Callable[[], None] | None = None
        self.on_slow: Callable[[OriginTimeout], None] | None = None
        self.on_failure: Callable[[OriginError], None] | None = None

    async def read(self) -> bytes:
        try:
            return await self._read()
        except OriginError as error:
            if self.on_failure is not None:
                self.on_failure(error)
            raise

    async def _read(self) -> bytes:
        if self._rate is not None and not self._rate.is_kept():
            slow = OriginTimeout(f"{self._what}: the body comes too slowly")
            if self.on_slow is not None:
                self.on_slow(slow)
            raise slow
        clock = asyncio.get_running_loop().time
        began = clock()
        data = b""
        try:
            with translated(self._what):
                async with asyncio.timeout_at(self._until or began + self._timeout):
                    try:
                        data = await self._response.content.readany()
                    except aiohttp.ClientPayloadError as error:
                        raise BodyTruncated(f"{self._what}: the body broke off before its end") from error
        finally:
            if self._rate is not None:
                self._rate.waited(clock() - began, len(data))
        return data

    def arrived(self) -> int:
        """Return how many bytes have come of a body that is closed without being read."""
        return self._response.content.total_bytes

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._response.content.is_eof():
            self._response.release()
        else:
            self._response.close()
        if self.on_close is not None:
            self.on_close()


class ForwardedResponse:
    """One response. `headers` are those that the origin sent, without those of its connection.

    `refusal` is the error that the response means, None for a success and for a 304.
    """

    def __init__(
        self,
        status: int,
        headers: CIMultiDict[str],
        body: S3Body | ChunkedBody | None,
        ahead: Bytes = b"",
        refusal: OriginError | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.refusal = refusal
        self._body = body
        self._ahead: list[Bytes] = [ahead] if ahead else []
        self._has_ended = body is None

    @property
    def fields(self) -> CIMultiDict[str]:
        """Return `headers`, for traces."""
        return self.headers

    def watch(
        self,
        on_close: Callable[[], None],
        on_slow: Callable[[OriginTimeout], None],
        on_failure: Callable[[OriginError], None],
    ) -> None:
        """Call `on_close` once the connection is free, and the others with the errors of the body."""
        if self._body is None:
            on_close()
            return
        self._body.on_close, self._body.on_slow, self._body.on_failure = on_close, on_slow, on_failure

    async def read(self) -> Bytes:
        """Return the next bytes of the body, or `b""` at its end. What was returned never changes.

        Raises BodyTruncated, OriginTimeout, OriginUnavailable.
        """
        return self._ahead.pop(0) if self._ahead else await self._receive()

    async def chunks(self) -> AsyncIterator[Bytes]:
        """Yield the body as it comes. Raises as `read`."""
        while piece := await self.read():
            yield piece

    async def read_ahead(self) -> None:
        """Receive a short body to its end, so that its connection is free before a slow client has read it.

        Raises as `read`. No byte may have been read before.
        """
        received = 0
        while self._body is not None and received < MAX_AHEAD_BYTES:
            piece = await self._receive()
            if not piece:
                self.close()
                return
            self._ahead.append(bytes(piece))
            received += len(piece)

    def arrived(self) -> int:
        """Return how many bytes have come of a body that is closed without being read."""
        return 0 if self._body is None else self._body.arrived()

    async def _receive(self) -> Bytes:
        if self._has_ended:
            return b""
        if self._body is None:
            raise BodyTruncated("the response was closed before its end")
        piece = await self._body.read()
        self._has_ended = not piece
        return piece

    def close(self) -> None:
        """Free the connection. Bytes that were received ahead can still be read, and no others."""
        body, self._body = self._body, None
        if body is not None:
            body.close()


def body_of(raw: SdkResponse, what: str, timeout: float, *, is_slow: bool) -> S3Body | ChunkedBody:
    """Return the body of a success, see `ChunkedBody`. `is_slow` means that its operation may take minutes.

    Raises InvalidOriginResponse if nothing shows where it ends.
    """
    if raw.method == "HEAD" or raw.status in (204, 304):
        body = S3Body(raw, what, timeout)
        body.expect(0, is_framed=False)
        return body
    if responses.is_chunked(raw.fields) or (is_slow and "content-length" in raw.fields):
        return ChunkedBody(raw, what, timeout, is_slow=is_slow)
    if "content-length" not in raw.fields:
        raise InvalidOriginResponse(f"{what}: the origin sent neither a length nor chunks, so the end is unknown")
    body = S3Body(raw, what, timeout)
    body.expect(responses.content_length(raw.fields), is_framed=True)
    return body


def headers_of(lines: Iterable[tuple[bytes, bytes]]) -> CIMultiDict[str]:
    """Return the fields of a response line by line, without those that are about the connection."""
    fields = ResponseFields(lines)
    named = {name.strip().lower() for name in fields.get("connection", "").split(",")}
    found: CIMultiDict[str] = CIMultiDict()
    for raw_name, raw_value in lines:
        name = raw_name.decode("utf-8", "surrogateescape")
        if is_token(name) and name.lower() not in _OF_THE_CONNECTION | named:
            found.add(name, raw_value.decode("utf-8", "surrogateescape").translate(_CONTROLS).strip(" \t"))
    return found
