"""The body of a forwarded request, on its way from the client to the origin."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from bucketfront.errors import ProxyError
from bucketfront.s3.forwarded_request import ForwardedRequest
from bucketfront.s3.upload.upload_slots import UploadSlots

FIRST_BYTES = 64 << 10  # that have come before a connection is taken (docs/invariants.md#fair-share)
PIECE_BYTES = 64 << 10  # of a body that is in memory


class WrongLength(ProxyError):
    """The body of a request has another length than it declares, so it is not sent to its end."""


class Progress:
    """The deadline of one exchange up to the head of its response. `seconds` may pass without a step.

    While the client's next bytes are awaited it stands still, because the client has deadlines of its own.
    """

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        self._timeout = timeout
        self._seconds = seconds
        self._is_over = False

    def hold(self) -> None:
        """Let no time pass."""
        self._reschedule(None)

    def move(self) -> None:
        """Begin anew."""
        self._reschedule(asyncio.get_running_loop().time() + self._seconds)

    def end(self) -> None:
        """Change the deadline no more, although the body may still be on its way."""
        self._is_over = True

    def _reschedule(self, when: float | None) -> None:
        if not self._is_over and not self._timeout.expired():
            self._timeout.reschedule(when)


class SentBody:
    """The body of a request, as aiohttp iterates over it. An iteration begins anew if the body is in memory.

    `failure` is what the body raised, because aiohttp wraps that.
    """

    def __init__(self, request: ForwardedRequest, progress: Progress, slots: UploadSlots) -> None:
        self._request = request
        self._progress = progress
        self._slots = slots
        self._sent = 0
        self.failure: Exception | None = None

    @property
    def is_repeatable(self) -> bool:
        return not self._request.is_streamed

    @property
    def is_complete(self) -> bool:
        """Return whether all bytes were given to the connection, as far as their number is known."""
        return self._request.body is None or self._request.length in (None, self._sent)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._sent = 0
        try:
            pieces = self._pieces()
            while True:
                self._progress.hold()
                piece = await anext(pieces, None)
                self._progress.move()
                if piece is None:
                    break
                self._sent += len(piece)
                if self._request.length is not None and self._sent > self._request.length:
                    raise WrongLength(f"the body has more than {self._request.length} bytes")  # noqa: TRY301
                yield piece
                self._slots.moved_bytes += len(piece)
            if self._request.length not in (None, self._sent):
                raise WrongLength(f"the body ends after {self._sent} bytes of {self._request.length}")  # noqa: TRY301
        except Exception as error:
            self.failure = error
            raise

    async def _pieces(self) -> AsyncIterator[bytes]:
        body = self._request.body
        if isinstance(body, bytes):
            for at in range(0, len(body), PIECE_BYTES):
                yield body[at : at + PIECE_BYTES]
        elif body is not None:
            async for piece in body:
                if piece:  # an empty chunk would end the body in the framing of HTTP
                    yield piece


async def begun(request: ForwardedRequest) -> ForwardedRequest:
    """Return the request once the begin of its body has come, so that a slow client holds no connection meanwhile.

    A body that has come as a whole is in memory, and can be sent again. Raises WrongLength, and what the body raises.
    """
    body = request.body
    if body is None or isinstance(body, bytes):
        return request
    pieces: list[bytes] = []
    received = 0
    async for piece in body:
        pieces.append(piece)
        received += len(piece)
        # The last bytes of a body may come only after all of it was verified, so its length alone shows no end.
        if received >= FIRST_BYTES:
            return replace(request, body=_joined(pieces, body))
    if request.length not in (None, received):
        raise WrongLength(f"the body has {received} bytes, and {request.length} are declared")
    return replace(request, body=b"".join(pieces), length=received)


async def _joined(pieces: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while pieces:
        yield pieces.pop(0)
    async for piece in rest:
        yield piece
