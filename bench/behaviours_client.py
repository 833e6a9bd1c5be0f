"""A client that sends exact bytes and records the response, without a library that corrects either of them."""

import asyncio
import contextlib
import re
from dataclasses import dataclass, field

MAX_KEPT_BYTES = 8 << 20  # bytes of a body that are kept; further ones are counted
SILENCE_TIMEOUT_S = 8.0  # seconds without a byte after which a server counts as silent


@dataclass(slots=True)
class Response:
    """A server's response to one request.

    `status` is None if there is no response; then `fault` is "closed", "silent" or the bytes sent instead. `whole`: the
    body is complete by its framing. `first_byte` and `seconds` count from before the connection was made. `interim`: a
    1xx came before.
    """

    status: int | None = None
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    received: int = 0
    whole: bool = True
    first_byte: float = 0.0
    seconds: float = 0.0
    interim: bool = False
    fault: str = ""

    def get(self, name: str) -> str | None:
        """Return the value of a header; several are joined by a comma."""
        values = [value for each, value in self.fields if each == name.lower()]
        return ", ".join(values) if values else None


class Connection:
    """One connection, which can carry several requests in a row."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, started: float) -> None:
        self._reader = reader
        self._writer = writer
        self._started = started

    @classmethod
    async def to(cls, port: int) -> "Connection":
        started = asyncio.get_running_loop().time()
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20), started)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        self._writer.transport.abort()

    async def receive(
        self, method: str = "GET", limit: int | None = None, timeout_s: float = SILENCE_TIMEOUT_S
    ) -> Response:
        """Receive the response to a request with this method. The client leaves after `limit` bytes of the body."""
        response = Response()
        try:
            await self._head(response, timeout_s)
            while response.status is not None and response.status < 200:
                response.interim = True
                response.fields.clear()
                await self._head(response, timeout_s)
            await self._body(response, method, limit, timeout_s)
        except TimeoutError:
            response.fault, response.whole = "silent", False
        except ValueError as error:
            response.fault, response.whole = str(error), False
        except (OSError, asyncio.IncompleteReadError):
            response.fault, response.whole = "closed", False
        response.seconds = self._elapsed()
        return response

    async def is_open(self) -> bool:
        """Return whether the server keeps the connection open for a moment without sending a byte."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(0.3):
                await self._reader.read(1)
            return False
        return not self._reader.at_eof()

    def _elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self._started

    async def _head(self, response: Response, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            raw = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        found = re.match(r"HTTP/1\.[01] (\d{3})", first)
        if found is None:
            raise ValueError(f"malformed: {first}")
        pairs = (line.partition(":") for line in lines)
        response.fields += [(name.lower(), value.strip()) for name, _, value in pairs]
        response.status = int(found[1])

    async def _body(self, response: Response, method: str, limit: int | None, timeout_s: float) -> None:
        if method == "HEAD" or response.status in (204, 304):
            return
        if (response.get("transfer-encoding") or "").lower() == "chunked":
            while length := int((await self._reader.readline()).partition(b";")[0], 16):
                await self._take(response, length, None, timeout_s)
                await self._reader.readexactly(2)
            await self._reader.readline()
            return
        length_field = response.get("content-length")
        await self._take(response, None if length_field is None else int(length_field), limit, timeout_s)

    async def _take(self, response: Response, length: int | None, limit: int | None, timeout_s: float) -> None:
        """Read a body. With `length` None, read to the end of the connection."""
        left = length
        while left is None or left:
            async with asyncio.timeout(timeout_s):
                data = await self._reader.read(min(left or 1 << 18, 1 << 18))
            if not data:
                if left is None:
                    return
                raise asyncio.IncompleteReadError(b"", left)
            if not response.received:
                response.first_byte = self._elapsed()
            response.received += len(data)
            if len(response.body) < MAX_KEPT_BYTES:
                response.body += data
            left = None if left is None else left - len(data)
            if limit is not None and response.received >= limit:
                return


async def exchange(
    port: int, raw: bytes, *, method: str = "GET", limit: int | None = None, timeout_s: float = SILENCE_TIMEOUT_S
) -> Response:
    """Send one request on a connection of its own."""
    connection = await Connection.to(port)
    try:
        connection.send(raw)
        return await connection.receive(method, limit, timeout_s)
    finally:
        connection.close()
