"""The bytes of a file into a client's socket, as fast as it takes them, and without a task's turn for each piece.

Rule 1: nothing is sent that the disk would have to be waited for: what is not in memory is brought in first.
Rule 2: one turn of the loop sends a bounded number of bytes of each file (I22), however fast the client takes them.
"""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable

from bucketfront.cache import page_cache
from bucketfront.errors import ProxyError, StoreError
from bucketfront.http.ranges import Span

SPURT = 1.0  # seconds
TURN = 1 << 20  # bytes sent in one turn of the loop, and looked for in memory at once
PATIENCE = 30.0  # seconds within which something has to move (I20)
MIN_RATE = 8 << 10  # bytes a second

_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.ESHUTDOWN, errno.EBADF}


class FileSender:
    """Sends the bytes `span` of the file `fd` behind all that the transport was given; `at` is how far it is.

    `bring_in` reads a stretch of the file from the disk into memory; `is_sound` says whether its bytes are still good.
    Nobody else may write to the transport meanwhile; it goes on reading, so that a client that leaves is noticed.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        fd: int,
        span: Span,
        bring_in: Callable[[Span], Awaitable[None]],
        is_sound: Callable[[Span], bool] = lambda _: True,
    ) -> None:
        self._transport = transport
        self._fd = fd
        self._stop = span.stop
        self._bring_in = bring_in
        self._is_sound = is_sound
        self._known = span.start  # what lies below was in memory a moment ago
        self._loop = asyncio.get_running_loop()
        self._socket = -1
        self._deadline = asyncio.timeout(patience_for(span.length))
        self._pause: asyncio.Future[None] | None = None
        self.at = span.start

    async def run(self) -> None:
        """Raises ConnectionResetError when the client left, TimeoutError when it takes too little, EOFError where the
        file ends early, StoreError when it cannot be read, or its bytes are not good any more.
        """
        async with self._deadline:
            if self._transport.get_write_buffer_size():
                await self._send_behind_buffer()
            if self._transport.is_closing():
                raise ConnectionResetError("the client left")
            # A descriptor of its own: that of the transport is asyncio's to watch.
            try:
                self._socket = os.dup(self._transport.get_extra_info("socket").fileno())
            except OSError as error:
                raise StoreError(f"no descriptor to send the file with: {error.strerror}") from error
            try:
                if self.at < self._stop and self._is_next_known():
                    self._send_some()
                    # Stretch after stretch that a client takes at once would all be one turn.
                    await asyncio.sleep(0)
                while self.at < self._stop:
                    if not self._is_next_known():
                        await self._bring_in(self._next)
                        self._known = self._next.stop
                    await self._sent_what_is_known()
            finally:
                os.close(self._socket)

    @property
    def _next(self) -> Span:
        return Span(self.at, min(self._stop, self.at + TURN))

    def _is_next_known(self) -> bool:
        """Whether there is something in memory to send next."""
        if self.at < self._known:
            return True
        if not self._is_sound(self._next):
            raise StoreError("the file has lost what comes next")
        if not page_cache.is_resident(self._fd, self._next):
            return False
        self._known = self._next.stop
        return True

    async def _send_behind_buffer(self) -> None:
        """The first stretch: asyncio knows when the transport's buffer is gone."""
        stretch = self._next
        if not self._is_next_known():
            await self._bring_in(stretch)
        try:
            sent = await self._loop.sendfile(
                self._transport,
                _Descriptor(self._fd),  # type: ignore[arg-type] # all that it uses of a file
                stretch.start,
                stretch.length,
                fallback=False,
            )
        except (RuntimeError, asyncio.SendfileNotAvailableError) as error:
            # asyncio says the first of a transport that closed meanwhile, the second of any OSError before a byte.
            raise self._translated(error.__context__) from error
        except OSError as error:
            raise self._translated(error) from error
        self._moved_to(stretch.start + sent)
        if sent != stretch.length:
            raise EOFError(f"the cached file ended {stretch.length - sent} bytes early")

    async def _sent_what_is_known(self) -> None:
        """Returns when all is sent, or when what comes next is not in memory."""
        self._pause = self._loop.create_future()
        self._loop.add_writer(self._socket, self._on_writable, self._pause)
        try:
            await self._pause
        finally:
            self._loop.remove_writer(self._socket)

    def _on_writable(self, pause: "asyncio.Future[None]") -> None:
        if pause.done():
            return
        try:
            self._send_some()
            is_over = self.at == self._stop or not self._is_next_known()
        except (OSError, EOFError, ProxyError) as error:
            pause.set_exception(error)
        else:
            if is_over:
                pause.set_result(None)

    def _send_some(self) -> None:
        """What the socket takes at once of what is known to be in memory."""
        try:
            sent = os.sendfile(self._socket, self._fd, self.at, self._known - self.at)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise self._translated(error) from error
        if not sent:
            raise EOFError(f"the cached file ended {self._stop - self.at} bytes early")
        self._moved_to(self.at + sent)

    def _moved_to(self, offset: int) -> None:
        before, self.at = self.at, offset
        if before // TURN != offset // TURN:
            self._deadline.reschedule(self._loop.time() + patience_for(self._stop - offset))

    def _translated(self, error: BaseException | None) -> Exception:
        """What an error of sendfile says, of the one or the other of its two ends."""
        if isinstance(error, OSError) and error.errno not in _GONE and not self._transport.is_closing():
            return StoreError(f"sendfile from the cache failed: {error.strerror}")
        return ConnectionResetError("the client left")


class SendfileBurst:
    """The first bytes of an answer, sent by callbacks alone: a task costs more than a megabyte does.

    It ends, and calls `then` once with the offset it came to, at the end of `span`, after SPURT seconds, and at
    whatever has to be waited for or is in the way: who goes on from there meets it again.
    """

    def __init__(self, socket: int, fd: int, span: Span, then: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = os.dup(socket)  # a descriptor of its own: that of the transport is asyncio's to watch
        self._fd = fd
        self._at = span.start
        self._known = span.start  # what lies below was in memory a moment ago
        self._stop = span.stop
        self._then = then
        self._timer = self._loop.call_later(SPURT, self.end)
        self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        sent = 0
        try:
            if self._at < self._known or self._is_next_resident():
                sent = os.sendfile(self._socket, self._fd, self._at, self._known - self._at)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._at += sent
        if not sent or self._at == self._stop:
            self.end()

    def _is_next_resident(self) -> bool:
        turn = Span(self._at, min(self._stop, self._at + TURN))
        if not page_cache.is_resident(self._fd, turn):
            return False
        self._known = turn.stop
        return True

    def end(self) -> None:
        """At once, wherever it is."""
        self._timer.cancel()
        self._loop.remove_writer(self._socket)
        os.close(self._socket)
        self._then(self._at)


class _Descriptor:
    """What `loop.sendfile` needs of a file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


def patience_for(length: int) -> float:
    """Seconds that a client has for the next TURN of bytes, or for as many as are left."""
    return max(PATIENCE, min(TURN, length) / MIN_RATE)
