"""Reads during a write may see either version, and must not leave the old one in the cache."""

import asyncio
from collections.abc import Callable

import pytest
from proxy_under_test import S3, Proxy
from relay import Cut, Seen


def held(
    proxy: Proxy, method: str, then: Callable[[], bytes | None] = lambda: None
) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold the next request of this method at the relay until the second event.

    The first event is set once it is there.
    """
    came, gate = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if seen.method != method:
            return None
        came.set()
        await gate.wait()
        return then()

    proxy.relay.on_request = hold
    return came, gate


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_read_during_a_write(proxy: Proxy, s3: S3, method: str) -> None:
    """An entry that a read stores before S3 has the write is removed when the write's response is sent (I5, I6)."""
    s3.put("x", b"old")
    came, gate = held(proxy, method)
    writing = asyncio.create_task(proxy.request(method, "/x", body=b"new" if method == "PUT" else None))
    await came.wait()
    assert [(await proxy.get("/x")).body for _ in range(2)] == [b"old", b"old"]
    gate.set()
    assert (await writing).status in (201, 204)
    response = await proxy.get("/x")
    assert (response.status, response.body == b"new") == ((200, True) if method == "PUT" else (404, False))


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_write_whose_outcome_is_unknown(proxy: Proxy, s3: S3, method: str) -> None:
    """S3 stores the write and its response is lost.

    The client gets a 502 or 504, and no read has the old version again, not even one that was cached during the write
    (I5, I9).
    """
    s3.put("x", b"old")

    def lose() -> bytes | None:
        if method == "PUT":
            s3.put("x", b"new")
        else:
            s3.delete("x")
        raise Cut

    came, gate = held(proxy, method, lose)
    writing = asyncio.create_task(proxy.request(method, "/x", body=b"new" if method == "PUT" else None))
    await came.wait()
    assert (await proxy.get("/x")).body == b"old"
    gate.set()
    assert (await writing).status in (502, 504)
    response = await proxy.get("/x")
    assert (response.status, response.body == b"new") == ((200, True) if method == "PUT" else (404, False))
