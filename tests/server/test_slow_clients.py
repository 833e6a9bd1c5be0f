"""Clients that send or take a few bytes now and then, so that no single wait is long. The whole has a bound (I20)."""

import asyncio
from typing import Any

import pytest
from proxy_under_test import S3, Proxy
from wire import Connection as Wire
from wire import message

from bucketfront.server.http1 import connection as server_connection
from bucketfront.server.http1.connection import Connection
from bucketfront.server.receive import request_body

DRIPS = 100
PAUSE = 0.02  # seconds


async def drips(connection: Wire, drop: bytes) -> bool:
    """Send `drop` again and again. Returns whether the other side closed before DRIPS of them."""
    try:
        for _ in range(DRIPS):
            await connection.send(drop)
            await asyncio.sleep(PAUSE)  # the drip itself, no synchronisation
            if connection.reader.at_eof() or connection.reader._buffer:  # type: ignore[attr-defined] # an answer came
                return True
    except ConnectionError:
        return True
    return False


async def test_head_that_drips(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline of a head covers all of it, and a field now and then does not postpone it (I20)."""
    monkeypatch.setattr(server_connection, "HEAD_TIMEOUT_S", 10 * PAUSE)
    async with proxy.connection() as connection:
        await connection.send(b"GET /x HTTP/1.1\r\nHost: a\r\n")
        assert await drips(connection, b"X: y\r\n")


@pytest.mark.parametrize("framing", [{"Content-Length": "1000000"}, {"Transfer-Encoding": "chunked"}])
async def test_upload_that_drips(
    proxy: Proxy, s3: S3, framing: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload below the minimum rate is a 408, and makes no object (I8, I20)."""
    monkeypatch.setattr(request_body, "CLIENT_TIMEOUT_S", 10 * PAUSE)
    async with proxy.connection() as connection:
        await connection.send(message("PUT", "/x", framing))
        assert await drips(connection, b"1\r\nx\r\n")
        assert (await connection.response("PUT")).status == 408
    assert s3.keys() == []


@pytest.mark.parametrize("is_stopping", [False, True])
async def test_a_body_that_comes_before_its_handler(
    proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch, is_stopping: bool
) -> None:
    """Bytes of a body that arrive before the first step of its handler start no head's deadline, and a stop in
    between does not cut the request off (I8, I20).
    """
    handle, is_over = Connection._handle_request, asyncio.Event()

    async def late(self: Connection, *arguments: Any) -> Any:
        if is_stopping:
            self.close()
        self.data_received(b"da")
        return await handle(self, *arguments)

    monkeypatch.setattr(server_connection, "HEAD_TIMEOUT_S", 0.05)
    monkeypatch.setattr(Connection, "_handle_request", late)
    async with proxy.connection() as client:
        await client.send(message("PUT", "/x", {"Content-Length": "4"}))
        asyncio.get_running_loop().call_later(0.2, is_over.set)
        await is_over.wait()
        assert not client.reader.at_eof()
        await client.send(b"ta")
        assert (await client.response("PUT")).status == 201
    assert s3.get("x") == b"data"
