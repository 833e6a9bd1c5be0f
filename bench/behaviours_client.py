"""A client that sends exact bytes and records the response, without a library that corrects either of them."""

import asyncio
import contextlib
import re
from dataclasses import dataclass, field

KEPT = 8 << 20  # bytes of a body that are kept; further ones are counted
PATIENCE = 8.0  # seconds without a byte after which a server counts as silent


@dataclass(slots=True)
class Answer:
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

    async def receive(self, method: str = "GET", limit: int | None = None, patience: float = PATIENCE) -> Answer:
        """Receive the response to a request with this method. The client leaves after `limit` bytes of the body."""
        answer = Answer()
        try:
            await self._head(answer, patience)
            while answer.status is not None and answer.status < 200:
                answer.interim = True
                answer.fields.clear()
                await self._head(answer, patience)
            await self._body(answer, method, limit, patience)
        except TimeoutError:
            answer.fault, answer.whole = "silent", False
        except ValueError as error:
            answer.fault, answer.whole = str(error), False
        except (OSError, asyncio.IncompleteReadError):
            answer.fault, answer.whole = "closed", False
        answer.seconds = self._elapsed()
        return answer

    async def is_open(self) -> bool:
        """Return whether the server keeps the connection open for a moment without sending a byte."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(0.3):
                await self._reader.read(1)
            return False
        return not self._reader.at_eof()

    def _elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self._started

    async def _head(self, answer: Answer, patience: float) -> None:
        async with asyncio.timeout(patience):
            raw = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        found = re.match(r"HTTP/1\.[01] (\d{3})", first)
        if found is None:
            raise ValueError(f"malformed: {first}")
        pairs = (line.partition(":") for line in lines)
        answer.fields += [(name.lower(), value.strip()) for name, _, value in pairs]
        answer.status = int(found[1])

    async def _body(self, answer: Answer, method: str, limit: int | None, patience: float) -> None:
        if method == "HEAD" or answer.status in (204, 304):
            return
        if (answer.get("transfer-encoding") or "").lower() == "chunked":
            while length := int((await self._reader.readline()).partition(b";")[0], 16):
                await self._take(answer, length, None, patience)
                await self._reader.readexactly(2)
            await self._reader.readline()
            return
        length_field = answer.get("content-length")
        await self._take(answer, None if length_field is None else int(length_field), limit, patience)

    async def _take(self, answer: Answer, length: int | None, limit: int | None, patience: float) -> None:
        """Read a body. With `length` None, read to the end of the connection."""
        left = length
        while left is None or left:
            async with asyncio.timeout(patience):
                data = await self._reader.read(min(left or 1 << 18, 1 << 18))
            if not data:
                if left is None:
                    return
                raise asyncio.IncompleteReadError(b"", left)
            if not answer.received:
                answer.first_byte = self._elapsed()
            answer.received += len(data)
            if len(answer.body) < KEPT:
                answer.body += data
            left = None if left is None else left - len(data)
            if limit is not None and answer.received >= limit:
                return


async def exchange(
    port: int, raw: bytes, *, method: str = "GET", limit: int | None = None, patience: float = PATIENCE
) -> Answer:
    """Send one request on a connection of its own."""
    connection = await Connection.to(port)
    try:
        connection.send(raw)
        return await connection.receive(method, limit, patience)
    finally:
        connection.close()
