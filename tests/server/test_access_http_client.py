"""What the client of rules reports of a service that fails (I28)."""

import asyncio
import errno
import os

import pytest
from held_port import held_port
from stopwatch import HANG_S

from bucketfront.errors import AccessUnavailable
from bucketfront.server.access.http_client import HttpClient

SECRET = "canary-0123456789"


async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond with what is no HTTP, and repeats the request."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 nonsense " + head.replace(b"\r\n", b" ") + b"\r\n\r\n")
    writer.close()


async def failure(url: str) -> AccessUnavailable:
    client = HttpClient(HANG_S)
    try:
        with pytest.raises(AccessUnavailable) as caught:
            await client.get(f"{url}?key={SECRET}", {"Authorization": SECRET}, 0)
    finally:
        await client.close()
    return caught.value


async def test_a_response_that_repeats_the_request() -> None:
    """The message about a malformed response has nothing of it, because it may repeat a client's credentials."""
    async with await asyncio.start_server(repeat, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/may"
        error = await failure(url)
    assert str(error) == f"{url} did not respond: the response is not HTTP"
    assert error.__cause__ is None


async def test_an_app_that_does_not_run() -> None:
    """The message has the system's reason, and not the query of the URL."""
    with held_port() as port:
        error = await failure(f"http://127.0.0.1:{port}/may")
    assert str(error) == f"http://127.0.0.1:{port}/may did not respond: {os.strerror(errno.ECONNREFUSED)}"
