"""The bytes of a file into a client's socket by `sendfile(2)`, as fast as the client takes them.

The senders below repeat one step: `FileSender` in a task, with timeouts and the disk behind it, and `SendfileBurst`
by callbacks alone. The step keeps two rules:

1. It never sends a byte that the kernel would read from disk; such bytes are brought into memory first.
2. One turn of the loop sends a bounded number of bytes of a file, however fast the client takes them
   (docs/invariants.md#cost-of-a-request).
"""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable

from bucketfront.cache import Region, page_cache
from bucketfront.errors import ProxyError, StoreError
from bucketfront.http.ranges import Span
from bucketfront.server.client_progress import ClientWatch

MAX_BURST_S = 1.0  # a client that is slower than this costs little as a task
MAX_PER_TURN_BYTES = 1 << 20  # sent in one turn of the loop, and looked up in the page cache at once

_CLIENT_LEFT = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.ESHUTDOWN, errno.EBADF}


class SendfileStep:
    """The step that the senders share. `socket` is the descriptor to write to, and the caller closes it.

    Offsets count from the first byte of the object, whose place in a file is `region`. `at` is the offset reached.
    Bytes below `known` were in memory a moment ago.
    """

    def __init__(self, region: Region, span: Span, socket: int = -1) -> None:
        self.socket = socket
        self.at = self.known = span.start
        self.stop = span.stop
        self.region = region

    @property
    def is_done(self) -> bool:
        return self.at == self.stop

    @property
    def next(self) -> Span:
        """Return the span of the next turn."""
        return Span(self.at, min(self.stop, self.at + MAX_PER_TURN_BYTES))

    def is_next_in_memory(self) -> bool:
        if self.at < self.known:
            return True
        turn = self.next
        if not page_cache.is_resident(self.region.fd, self.region.locate(turn)):
            return False
        self.known = turn.stop
        return True

    def send(self) -> None:
        """Send what the socket takes at once of the bytes known to be in memory.

        Raises OSError on an error of either end, EOFError if the file ends early.
        """
        try:
            sent = os.sendfile(self.socket, self.region.fd, self.region.offset + self.at, self.known - self.at)
        except (BlockingIOError, InterruptedError):
            return
        if not sent:
            raise EOFError(f"the cached file ended {self.stop - self.at} bytes early")
        self.at += sent


class FileSender:
    """Sends the bytes `span` of the object at `region` behind everything that the transport holds.

    `at` is the offset reached. `bring_in` reads a span from disk into memory. `is_sound` returns whether a span is
    still free of corruption. `watch` ends it if the client takes too little.

    The transport must get no other bytes meanwhile. It keeps reading, so that the loop notices a client that leaves.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        region: Region,
        span: Span,
        bring_in: Callable[[Span], Awaitable[None]],
        is_sound: Callable[[Span], bool] = lambda _: True,
        watch: ClientWatch | None = None,
    ) -> None:
        self._transport = transport
        self._step = SendfileStep(region, span)
        self._bring_in = bring_in
        self._is_sound = is_sound
        self._loop = asyncio.get_running_loop()
        self._watch = watch or ClientWatch()

    @property
    def at(self) -> int:
        return self._step.at

    async def run(self) -> None:
        """Send the whole span.

        Raises ConnectionResetError if the client left, TimeoutError if it takes too little, EOFError if the file ends
        early, StoreError if the file is unreadable or was found corrupt meanwhile.
        """
        async with self._watch.wait(self._transport):
            if self._transport.is_closing():
                raise ConnectionResetError("the client left")
            # A descriptor of its own, because asyncio watches that of the transport.
            try:
                self._step.socket = os.dup(self._transport.get_extra_info("socket").fileno())
            except OSError as error:
                raise StoreError(f"no descriptor to send the file with: {error.strerror}") from error
            try:
                if self._transport.get_write_buffer_size():
                    await self._wait_for_buffer()
                await self._send_from_memory()
            finally:
                os.close(self._step.socket)

    async def _send_from_memory(self) -> None:
        step = self._step
        if not step.is_done and self._may_send_next():
            self._send_some()
            # Without this a client that takes every stretch at once would get all of them in one turn.
            await asyncio.sleep(0)
        while not step.is_done:
            if not self._may_send_next():
                span = step.next
                await self._bring_in(span)
                step.known = span.stop
            await self._send_while_in_memory()

    def _may_send_next(self) -> bool:
        """Return whether the next bytes are in memory. Raises StoreError if they are corrupt."""
        if self._step.at >= self._step.known and not self._is_sound(self._step.next):
            raise StoreError("the file has lost what comes next")
        return self._step.is_next_in_memory()

    async def _wait_for_buffer(self) -> None:
        """Wait until the transport has sent all bytes that it holds.

        `loop.sendfile` waits for that as well, but then asyncio logs a traceback if the client resets the connection.
        """
        emptied = self._loop.create_future()
        self._loop.add_writer(self._step.socket, self._on_progress, emptied)
        try:
            await emptied
        finally:
            self._loop.remove_writer(self._step.socket)

    def _on_progress(self, emptied: "asyncio.Future[None]") -> None:
        if emptied.done():
            return
        if self._transport.is_closing():
            emptied.set_exception(ConnectionResetError("the client left"))
        elif not self._transport.get_write_buffer_size():
            emptied.set_result(None)

    async def _send_while_in_memory(self) -> None:
        """Send until the span ends, or until the next bytes are on disk."""
        ended = self._loop.create_future()
        self._loop.add_writer(self._step.socket, self._on_writable, ended)
        try:
            await ended
        finally:
            self._loop.remove_writer(self._step.socket)

    def _on_writable(self, ended: "asyncio.Future[None]") -> None:
        if ended.done():
            return
        try:
            self._send_some()
            is_over = self._step.is_done or not self._may_send_next()
        except (OSError, EOFError, ProxyError) as error:
            ended.set_exception(error)
        else:
            if is_over:
                ended.set_result(None)

    def _send_some(self) -> None:
        try:
            self._step.send()
        except OSError as error:
            raise self._translated(error) from error

    def _translated(self, error: BaseException | None) -> Exception:
        """Return the error of the end that failed: the file's or the client's."""
        if isinstance(error, OSError) and error.errno not in _CLIENT_LEFT and not self._transport.is_closing():
            return StoreError(f"sendfile from the cache failed: {error.strerror}")
        return ConnectionResetError("the client left")


class Burst:
    """Sends the first bytes of a response by callbacks alone, because a task costs more than sending a megabyte.

    It ends at the end of the span, after MAX_BURST_S seconds, and at any error or byte that is not in memory. Then it
    calls `then` once with the offset reached. A sender that goes on from there meets the same error, and reports it.
    """

    def __init__(self, step: SendfileStep, then: Callable[[int], None]) -> None:
        """Begin. `step` has a descriptor of its own, because asyncio watches the transport's. The end closes it."""
        self._loop = asyncio.get_running_loop()
        self._step = step
        self._then = then
        self._timer = self._loop.call_later(MAX_BURST_S, self.end)
        self._loop.add_writer(self._step.socket, self._on_writable)

    def _on_writable(self) -> None:
        try:
            is_over = not self._step.is_next_in_memory()
            if not is_over:
                self._step.send()
                is_over = self._step.is_done
        except (OSError, EOFError):
            is_over = True
        if is_over:
            self.end()

    def end(self) -> None:
        """End the burst now, wherever it is."""
        self._timer.cancel()
        self._loop.remove_writer(self._step.socket)
        os.close(self._step.socket)
        self._then(self._step.at)


class SendfileBurst(Burst):
    def __init__(self, socket: int, region: Region, span: Span, then: Callable[[int], None]) -> None:
        super().__init__(SendfileStep(region, span, os.dup(socket)), then)
