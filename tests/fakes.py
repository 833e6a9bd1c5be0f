"""Stand-ins under the control of tests: bytes, a clock, and an HTTP server that misbehaves."""

import asyncio
import contextlib
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self


def object_bytes(size: int, seed: int = 0) -> bytes:
    """Return `size` bytes, the same for the same seed. No byte is zero, so a hole in a sparse file shows."""
    return random.Random(seed).randbytes(size).replace(b"\0", b"\1")


class FakeClock:
    """A clock in seconds. Time passes only by a call of the test."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def ago(self, seconds: float) -> float:
        return self.now - seconds

    def advance(self, seconds: float) -> None:
        self.now += seconds


# --- an HTTP server that misbehaves on purpose ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """The head of one request. `headers` have lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]


class RawConnection:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._is_tls = writer.get_extra_info("sslcontext") is not None
        self.ended = asyncio.Event()  # set once the client has closed it, or the script has

    async def head(self) -> Head | None:
        """Return the next request's head, None if the client closed the connection."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        request, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = request.split(" ")
        pairs = (line.partition(":") for line in lines)
        return Head(method, target, {name.lower(): value.strip() for name, _, value in pairs})

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def hang(self) -> None:
        """Send nothing until the client closes the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    def reset(self) -> None:
        transport = self.writer.transport
        # Python 3.11.2 forgets the protocol of a TLS transport that is closed twice, and cannot abort it.
        if not (self._is_tls and transport.is_closing()):
            transport.abort()


Script = Callable[[RawConnection, Head], Awaitable[None]]


class RawServer:
    """Runs `script` for each request on a free loopback port, with TLS if it has a context. An async context manager.

    The script sends the response, and reads the body if there is one. After it has returned, the next head is read.
    """

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.connections: list[RawConnection] = []
        self.heads: list[Head] = []
        self.head_received = asyncio.Event()  # set by the first head

    @property
    def endpoint_url(self) -> str:
        assert self._server is not None
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._is_closed = True
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            connection.reset()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = RawConnection(reader, writer)
        if self._is_closed:  # the kernel accepted it before
            connection.reset()
            return
        self.connections.append(connection)  # here, because a task that is cancelled at once never begins
        task = asyncio.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: RawConnection) -> None:
        try:
            while (head := await connection.head()) is not None:
                self.heads.append(head)
                self.head_received.set()
                await self._script(connection, head)
        finally:
            connection.writer.close()
            connection.ended.set()


def answering(*responses: bytes | None) -> Script:
    """Return a script that sends the n-th response to the n-th request, and the last one to all later requests.

    A HEAD gets the head only, and None means no response. The response does not wait for the body of its request.
    """
    left = deque(responses)

    async def script(connection: RawConnection, head: Head) -> None:
        chosen = left.popleft() if len(left) > 1 else left[0]
        if chosen is None:
            await connection.hang()
        else:
            end = chosen.index(b"\r\n\r\n") + 4
            await connection.send(chosen[:end] if head.method == "HEAD" else chosen)
            # Otherwise the body would be taken for the next head, if the client uses the connection again.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await connection.reader.readexactly(int(head.headers.get("content-length", 0)))

    return script


def response(status: str, body: bytes = b"", /, *, length: int | None = None, **headers: str | None) -> bytes:
    """Return an HTTP/1.1 response. `length` replaces the true Content-Length; -1 omits the header.

    Header names have '_' in place of '-', and None omits a header.
    """
    declared = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}"]
    if declared >= 0:
        lines.append(f"Content-Length: {declared}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
