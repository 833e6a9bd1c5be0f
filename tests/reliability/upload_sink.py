"""An S3 that accepts uploads of any size and drops their bytes. It keeps their lengths and the MD5s of their parts.

It prints its port and ends with its stdin.
"""

import asyncio
import hashlib
import re
import sys
from email.utils import formatdate

PIECE = 256 << 10


class Sink:
    def __init__(self) -> None:
        self._objects: dict[str, tuple[int, str]] = {}  # size and ETag
        self._parts: dict[int, tuple[int, bytes]] = {}  # size and MD5 by number, of the one upload

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                found = re.search(r"(?im)^content-length: *(\d+)", head)
                size, digest, start = await self._body(reader, int(found[1]) if found else 0)
                headers, body = self._response(method, target, size, digest, start)
                lines = [f"HTTP/1.1 {200 if headers else 404} Any", *(headers or ["Content-Length: 0"]), "", ""]
                writer.write("\r\n".join(lines).encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _body(self, reader: asyncio.StreamReader, length: int) -> tuple[int, bytes, bytes]:
        """Read a body and return its size, its MD5 and its first bytes."""
        digest, start, left = hashlib.md5(), b"", length
        while left:
            piece = await reader.read(min(left, PIECE))
            if not piece:
                raise ConnectionError
            start = start or piece
            await asyncio.to_thread(digest.update, piece)
            left -= len(piece)
        return length, digest.digest(), start

    def _response(self, method: str, target: str, size: int, digest: bytes, start: bytes) -> tuple[list[str], bytes]:
        path, _, query = target.partition("?")
        if part := re.search(r"partNumber=(\d+)", query):
            self._parts[int(part[1])] = size, digest
            return [f'ETag: "{digest.hex()}"', "Content-Length: 0"], b""
        if method == "PUT":
            return self._stored(path, size, digest.hex()), b""
        if method == "POST" and "uploadId" not in query:
            self._parts.clear()
            return _xml("<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
        if method == "POST":
            parts = [self._parts[number] for number in sorted(self._parts)]
            whole = hashlib.md5(b"".join(digest for _, digest in parts)).hexdigest()
            etag = f"{whole}-{len(parts)}"
            self._stored(path, sum(size for size, _ in parts), etag)
            return _xml(
                f"<CompleteMultipartUploadResult><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
            )
        if method == "HEAD" and path in self._objects:
            size, etag = self._objects[path]
            return [f'ETag: "{etag}"', f"Content-Length: {size}", f"Last-Modified: {formatdate(usegmt=True)}"], b""
        return [], b""

    def _stored(self, path: str, size: int, etag: str) -> list[str]:
        self._objects[path] = size, etag
        return [f'ETag: "{etag}"', "Content-Length: 0"]


def _xml(text: str) -> tuple[list[str], bytes]:
    return ["Content-Type: application/xml", f"Content-Length: {len(text)}"], text.encode()


async def main() -> None:
    server = await asyncio.start_server(Sink().serve, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - told to the parent
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
