"""A client that checks every byte of a response and records the result."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import chaos_content as content
from chaos_content import Finding, Reading
from chaos_origin import VERSION_HEADER
from history import Operation, Outcome, Record
from wire import Connection, Head, message

BODY_TIMEOUT_S = 30.0  # seconds for the next bytes of a body
CHUNK = 256 << 10

_connections = itertools.count(1)


@dataclass
class _Seen:
    """The state of one response so far."""

    outcome: Outcome = "cut"
    status: int = 0
    version: int | None = None
    etag: str = ""
    received: int = 0
    finding: Finding = Finding()  # noqa: RUF009 - frozen
    error_body: str = ""


@dataclass
class ChaosClient:
    """One client of the proxy at `address`. It sends one request at a time, on one connection until that breaks."""

    address: str
    number: int = 0
    records: list[Record] = field(default_factory=list)
    _connection: Connection | None = None
    _connection_number: int = 0

    async def get(self, key: str, start: int = 0, stop: int | None = None, *, leave_at: int | None = None) -> Record:
        """Get the whole object, or a range of it. With `leave_at`, leave after so many bytes of the body, or a few
        more.
        """
        span = None if (start, stop) == (0, None) else (start, stop)
        headers = {} if span is None else {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        seen, began = _Seen(), time.monotonic()
        with self._watched(seen):
            connection, head = await self._request("GET", key, headers)
            _read_head(seen, head)
            await self._body(seen, connection, head, key, leave_at)
        return await self._note(seen, "GET", key, began, span)

    async def head(self, key: str) -> Record:
        seen, began = _Seen(), time.monotonic()
        with self._watched(seen):
            _, head = await self._request("HEAD", key)
            _read_head(seen, head)
            if seen.status == 200:
                seen.received = int(head.headers["Content-Length"])
            seen.outcome = _outcome(seen.status)
        return await self._note(seen, "HEAD", key, began)

    async def put(self, key: str, version: int, size: int, *, leave_at: int | None = None) -> Record:
        """Write that version. With `leave_at`, break off after so many bytes, fewer than `size`."""
        seen, began = _Seen(), time.monotonic()
        with self._watched(seen):
            connection = await self._open()
            headers = {VERSION_HEADER: str(version), "Content-Length": str(size)}
            await connection.send(message("PUT", _path(key), headers))
            for piece in content.pieces(key, version, 0, size if leave_at is None else leave_at):
                await connection.send(piece)
            if leave_at is None:
                await self._finish_write(seen, connection, await connection.head(), key)
            else:
                connection.abort()
                seen.outcome = "aborted"
        seen.version, seen.received = version, size
        return await self._note(seen, "PUT", key, began)

    async def delete(self, key: str) -> Record:
        seen, began = _Seen(), time.monotonic()
        with self._watched(seen):
            connection, head = await self._request("DELETE", key)
            await self._finish_write(seen, connection, head, key)
        return await self._note(seen, "DELETE", key, began)

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _open(self) -> Connection:
        if self._connection is None:
            where = urlsplit(self.address)
            self._connection = Connection(*await asyncio.open_connection(where.hostname, where.port))
            self._connection_number = next(_connections)
        return self._connection

    async def _request(self, method: str, key: str, headers: dict[str, str] | None = None) -> tuple[Connection, Head]:
        connection = await self._open()
        await connection.send(message(method, _path(key), headers))
        return connection, await connection.head()

    async def _finish_write(self, seen: _Seen, connection: Connection, head: Head, key: str) -> None:
        """Record the response to a write."""
        seen.status = head.status
        if head.status != 204:
            seen.error_body = await _text(connection, head)
        seen.outcome = _outcome(head.status)

    async def _body(self, seen: _Seen, connection: Connection, head: Head, key: str, leave_at: int | None) -> None:
        if head.status not in (200, 206):
            seen.error_body = await _text(connection, head)
            seen.outcome = _outcome(head.status)
            return
        # RFC 9110 section 14.4: bytes first-last/size.
        offset = int(head.headers["Content-Range"].split(" ")[1].split("-")[0]) if head.status == 206 else 0
        length = int(head.headers["Content-Length"])
        reading = Reading(key, offset, seen.version)
        while seen.received < length:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                data = await connection.reader.read(min(CHUNK, length - seen.received))
            if not data:
                return
            reading.feed(data)
            seen.received += len(data)
            seen.finding = reading.finding()
            if leave_at is not None and seen.received >= leave_at:
                connection.abort()
                seen.outcome = "aborted"
                return
        seen.outcome = "done"

    @contextlib.contextmanager
    def _watched(self, seen: _Seen) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, asyncio.IncompleteReadError):
            seen.outcome = "cut"
        except TimeoutError:
            seen.outcome = "hung"
        except (ValueError, LookupError, asyncio.LimitOverrunError):
            seen.outcome = "garbled"

    async def _note(
        self, seen: _Seen, operation: Operation, key: str, began: float, span: tuple[int, int | None] | None = None
    ) -> Record:
        record = Record(
            client=self.number,
            connection=self._connection_number,
            operation=operation,
            key=key,
            start=began,
            end=time.monotonic(),
            outcome=seen.outcome,
            status=seen.status,
            version=seen.version,
            etag=seen.etag,
            span=span,
            received=seen.received,
            finding=seen.finding,
            error_body=seen.error_body,
        )
        self.records.append(record)
        if record.outcome in ("cut", "aborted", "garbled", "hung"):
            await self.close()
        return record


def _read_head(seen: _Seen, head: Head) -> None:
    seen.status = head.status
    if head.status in (200, 206):
        seen.version = int(head.headers[VERSION_HEADER])
        seen.etag = head.headers.get("ETag", "")  # an origin without ETags is passed through


async def _text(connection: Connection, head: Head) -> str:
    async with asyncio.timeout(BODY_TIMEOUT_S):
        data = await connection.reader.readexactly(int(head.headers.get("Content-Length", 0)))
    return data.decode(errors="replace")


def _outcome(status: int) -> Outcome:
    if status < 300:
        return "done"
    if status == 404:
        return "absent"
    return "refused" if status < 500 else "failed"


def _path(key: str) -> str:
    return "/" + quote(key)
