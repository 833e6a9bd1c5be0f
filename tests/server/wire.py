"""A client that sends exact bytes and sees exact bytes: no normalised paths, no hidden retries, no joined headers."""

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import json as jsonlib
import socket
import ssl
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from multidict import CIMultiDict, CIMultiDictProxy
from stopwatch import HANG_S


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    headers: CIMultiDictProxy[str]

    @property
    def cache_status(self) -> str:
        """Return Cache-Status without the cache's name: `hit; ttl=300`."""
        return self.headers["Cache-Status"].removeprefix("bucketfront; ")


@dataclass(frozen=True, slots=True)
class Response(Head):
    """A whole response. `is_complete` is False if the connection ended before its declared length."""

    body: bytes
    is_complete: bool = True

    def json(self) -> Any:
        return jsonlib.loads(self.body)


class Connection:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def request(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        await self.send(message(method, target, headers, body))
        return await self.response(method)

    async def head(self) -> Head:
        async with asyncio.timeout(HANG_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields: CIMultiDict[str] = CIMultiDict()
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            fields.add(name, value.strip())
        return Head(int(lines[0].split(" ")[1]), CIMultiDictProxy(fields))

    async def response(self, method: str = "GET") -> Response:
        head = await self.head()
        length = int(head.headers.get("Content-Length", 0))
        if method == "HEAD" or head.status in (100, 204, 304):
            length = 0
        body, is_complete = b"", True
        async with asyncio.timeout(HANG_S):
            try:
                if head.headers.get("Transfer-Encoding") == "chunked" and not _is_endless(head):
                    body = await self._chunks()
                else:
                    body = await self.reader.readexactly(length)
            except asyncio.IncompleteReadError as error:
                body, is_complete = error.partial, False
            except ConnectionError:
                is_complete = False
        return Response(head.status, head.headers, body, is_complete)

    async def _chunks(self) -> bytes:
        """Return a body that is sent in chunks."""
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body

    async def rest(self) -> bytes:
        """Return all bytes until the other side closes."""
        async with asyncio.timeout(HANG_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()

    def abort(self) -> None:
        """Close with a reset, which drops the bytes that the other side has not taken yet."""
        # With no time to linger, a close is a reset.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    @property
    def unsent(self) -> int:
        """Return the number of bytes that the other side's kernel does not have yet."""
        (queued,) = struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))
        return self.writer.transport.get_write_buffer_size() + int(queued)

    @property
    def socket(self) -> Any:
        return self.writer.get_extra_info("socket")


def message(method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> bytes:
    """Return a request as bytes, with `Host` and, for a body, `Content-Length` unless `headers` have them.

    A DeleteObjects has a checksum, as each client of S3 sends it, unless `headers` have one.
    """
    all_headers = {"Host": "localhost", **(headers or {})}
    checksums = ("content-md5", "x-amz-checksum-", "x-amz-trailer")
    has_checksum = any(name.lower().startswith(checksums) for name in all_headers)
    if body is not None and method == "POST" and target.endswith(("?delete", "?delete=")) and not has_checksum:
        all_headers["Content-MD5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
    if body is not None and not {"Content-Length", "Transfer-Encoding"} & all_headers.keys():
        all_headers["Content-Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in all_headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + (body or b"")


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    """Return the pieces as a chunked body (RFC 9112 section 7.1)."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return framed + (b"0\r\n\r\n" if end else b"")


@contextlib.asynccontextmanager
async def connected(
    address: str, tls: ssl.SSLContext | None = None, local: str | None = None
) -> AsyncIterator[Connection]:
    """Connect, from the address `local` if there is one. The address may be `unix:` and a path."""
    where = urlsplit(address)
    if where.scheme == "unix":
        name = "localhost" if tls is not None else None
        reader, writer = await asyncio.open_unix_connection(where.path, ssl=tls, server_hostname=name)
    else:
        local_addr = None if local is None else (local, 0)
        reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=tls, local_addr=local_addr)
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        await connection.close()


async def fetch(
    address: str,
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> Response:
    """Send one request on a connection of its own."""
    async with connected(address, tls) as connection:
        return await connection.request(method, target, headers, body)


def _is_endless(head: Head) -> bool:
    """Return whether the body is a stream of events, which ends with its connection."""
    return head.headers.get("Content-Type", "").startswith("text/event-stream")
