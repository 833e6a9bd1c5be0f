"""A relay in front of the S3. It records each request of the proxy, and lets a test act between the two."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from held_port import held_port

CHUNK = 16 << 10


class Cut(ConnectionError):
    """A hook raises it to make the relay close the connection."""


@dataclass(eq=False, slots=True)
class Seen:
    """One request of the proxy with the origin's response. `sent` counts the body bytes sent to the proxy."""

    method: str
    target: str
    headers: dict[str, str]
    status: int | None = None
    content_range: str | None = None
    sent: int = 0
    is_over: bool = False

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def offset(self) -> int:
        """Return the offset of the next body byte in the object."""
        first = 0 if self.content_range is None else int(self.content_range.partition("-")[0])
        return first + self.sent


@dataclass(slots=True)
class Relay:
    """A relay with hooks.

    `on_request` may respond in place of the origin, wait, or raise `Cut`. `on_body` is called before each chunk of a
    body goes on to the proxy, and may wait or raise `Cut`.
    """

    upstream: str  # URL of the origin
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    on_request: Callable[[Seen], Awaitable[bytes | None]] | None = None
    on_body: Callable[[Seen], Awaitable[None]] | None = None
    _server: asyncio.Server | None = None
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Accept connections, after a stop at the same address."""
        if not self.port:
            self.port = self._held.enter_context(held_port())
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Refuse connections from now on, and close those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop for good."""
        await self.stop()
        self._held.close()

    def reset(self) -> None:
        self.seen.clear()

    @property
    def body_bytes(self) -> int:
        """Return the body bytes of all 200s and 206s to GETs."""
        return sum(seen.sent for seen in self.seen if seen.method == "GET" and seen.status in (200, 206))

    @property
    def calls(self) -> list[tuple[str, str | None]]:
        """Return method and Range of each request, in the order of arrival."""
        return [(seen.method, seen.range) for seen in self.seen]

    @property
    def running(self) -> list[Seen]:
        return [seen for seen in self.seen if not seen.is_over]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            # Only `stop` cancels, and asyncio's own callback would complain about a cancelled task.
            pass
        finally:
            self._tasks.discard(task)
            await _close(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        seen = Seen(method, target, {name.lower(): value.strip() for name, _, value in pairs})
        self.seen.append(seen)
        try:
            canned = None if self.on_request is None else await self.on_request(seen)
            if canned is not None:
                await reader.readexactly(int(seen.headers.get("content-length", 0)))
                seen.status = int(canned.split(b" ")[1])
                writer.write(canned if method != "HEAD" else canned.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
                await writer.drain()
                return
            await self._pass_on(seen, head, reader, writer)
        finally:
            seen.is_over = True

    async def _pass_on(
        self, seen: Seen, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", urlsplit(self.upstream).port)
        # Of a connection that goes on, only the first request would be seen.
        up_writer.write(head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n")
        upload = asyncio.create_task(_pump(reader, up_writer))
        try:
            response = await up_reader.readuntil(b"\r\n\r\n")
            seen.status = int(response.split(b" ")[1])
            found = re.search(rb"(?i)\r\ncontent-range: *bytes ([^\r]+)", response)
            seen.content_range = found[1].decode() if found else None
            writer.write(response)
            while True:
                if self.on_body is not None:
                    await self.on_body(seen)
                if not (chunk := await up_reader.read(CHUNK)):
                    return
                writer.write(chunk)
                await writer.drain()
                seen.sent += len(chunk)
        finally:
            upload.cancel()
            up_writer.close()  # before any wait, which a stop may cancel
            await asyncio.gather(upload, return_exceptions=True)
            await _close(up_writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward the proxy's requests until it has sent the last one.

    If the proxy leaves, close the origin's connection as well.
    """
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def canned(status: int, code: str = "", *headers: str) -> bytes:
    """Return a response as S3 would format it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>x</Message></Error>".encode() if code else b""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
