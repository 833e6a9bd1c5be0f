"""Ranges and conditions over real sockets. Every row of the table cold, warm, half warm and during a fill."""

import asyncio
import email.utils
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from http_table import ROWS, SIZE, Row, spans_of
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from relay import Seen
from wire import Response

BODY = pattern(SIZE)


def headers_of(row: Row, s3: S3, key: str) -> dict[str, str]:
    found = s3.head(key)
    at = found["LastModified"].timestamp()
    dates = {name: email.utils.formatdate(at + shift, usegmt=True) for name, shift in _SHIFTS.items()}
    values = {"etag": found["ETag"], **dates}
    return {name: _filled(value, values) for name, value in row.headers.items()}


_SHIFTS = {"modified": 0, "later": 1, "earlier": -1}


def _filled(value: str, values: dict[str, str]) -> str:
    for name, known in values.items():
        value = value.replace(f"{{{name}}}", known)
    return value


def check(row: Row, state: str, response: Response) -> None:
    where = f"{state}: {row.section}: {row.headers}"
    assert response.status == row.status, where
    if row.spans is not None:
        found = spans_of(response, SIZE)
        assert [(start, stop) for start, stop, _ in found] == list(row.spans), where
        assert all(BODY[start:stop] == data for start, stop, data in found), where
        assert response.headers["Accept-Ranges"] == "bytes", where
    elif row.status == 416:
        assert response.headers["Content-Range"] == f"bytes */{SIZE}", where
    elif row.status == 304:
        assert (response.body, response.headers.get("Content-Length")) == (b"", None), where
    assert ("ETag" in response.headers) == (row.status in (200, 206, 304)), where
    assert "Cache-Status" in response.headers, where


async def test_cold_and_warm(proxy: Proxy, s3: S3) -> None:
    """Each row for an object that is unknown, known by its metadata only, half present, and present, where no byte
    is fetched again. Then HEAD, for which a range has no meaning (RFC 9110 section 14.2).
    """
    s3.put("x", BODY)
    for row in ROWS:
        headers = headers_of(row, s3, "x")
        for state in ("cold", "metadata", "half", "warm"):
            await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')
            if state == "metadata":
                await proxy.request("HEAD", "/x")
            elif state == "half":
                await proxy.get("/x", Range=f"bytes={3 * BLOCK}-{3 * BLOCK}")
            elif state == "warm":
                await proxy.get("/x")
            await proxy.settled()
            before = proxy.relay.body_bytes
            check(row, state, await proxy.request("GET", "/x", headers))
            await proxy.settled()
            if state == "warm" or (row.spans is None and state == "metadata"):
                assert proxy.relay.body_bytes == before, f"{state}: {row.section}"
        head = await proxy.request("HEAD", "/x", headers)
        if row.status in (200, 206, 416) and row.status != 412:
            assert (head.status, head.headers["Content-Length"]) == (200, str(SIZE)), row.section
        else:
            assert head.status == row.status, row.section


@asynccontextmanager
async def held_fill(proxy: Proxy, key: str) -> AsyncIterator[asyncio.Event]:
    """Hold a download of `key` after its first 16 KiB until the event is set."""
    gate = asyncio.Event()

    async def hold(seen: Seen) -> None:
        if seen.method == "GET" and seen.sent:
            await gate.wait()

    proxy.relay.on_body = hold
    download = asyncio.create_task(proxy.get(f"/{key}"))
    await until(lambda: proxy.figures["flights_running"] and any(seen.sent for seen in proxy.relay.seen))
    try:
        yield gate
    finally:
        gate.set()
        proxy.relay.on_body = None
        assert (await download).body == BODY


async def test_during_a_fill(proxy: Proxy, s3: S3) -> None:
    """Every row while the object is being downloaded.

    Responses without bytes come at once, the others with the bytes.
    """
    s3.put("x", BODY)
    for row in ROWS:
        await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')
        proxy.relay.reset()
        async with held_fill(proxy, "x") as gate:
            asking = asyncio.create_task(proxy.request("GET", "/x", headers_of(row, s3, "x")))
            if row.spans is None:
                check(row, "during", await asking)
                continue
            await until(lambda: len([1 for seen in proxy.relay.seen]) > 0)
            gate.set()
            check(row, "during", await asking)
        await proxy.settled()


EMPTY = (("bytes=0-", 416), ("bytes=-1", 416), ("bytes=0-0,-1", 416), ("bytes=a", 200), ("", 200))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_empty_object(proxy: Proxy, s3: S3, method: str) -> None:
    """An empty object has no byte for a range, so it is a 416, as at S3.

    Invalid ranges are ignored (RFC 9110 section 14.1.2).
    """
    s3.put("empty", b"")
    for _ in range(2):
        for header, status in EMPTY:
            response = await proxy.request(method, "/empty", {"Range": header} if header else {})
            assert response.status == (200 if method == "HEAD" else status), header
            if response.status == 416:
                assert response.headers["Content-Range"] == "bytes */0"
            elif method == "GET":
                assert (response.body, response.headers["Content-Length"]) == (b"", "0")


HOSTILE = [
    "bytes=" + "0-0," * 4000,
    "bytes=" + "-" * 8000,
    "bytes=" + "9" * 7000 + "-",
    "bytes=" + ",".join(f"{n}-{n + 100000}" for n in range(90)),
    "bytes=" + "," * 8000 + "0-0",
    "bytes=0-" + " " * 7000,
    "\t bytes \t=0-0",
    "bytes=\u0660-\u0665",
    "bytes=0-0\x00",
]


async def test_hostile_ranges(proxy: Proxy, s3: S3) -> None:
    """A Range of any length and content gets a 400, a 431 or the object's own bytes (I22)."""
    s3.put("x", BODY)
    for header in HOSTILE:
        response = await proxy.request("GET", "/x", {"Range": header})
        assert response.status in (200, 206, 400, 416, 431), header[:40]
        if response.status in (200, 206):
            for start, stop, data in spans_of(response, SIZE):
                assert data == BODY[start:stop], header[:40]


async def test_bytes_are_those_of_the_version_named(start: StartProxy, s3: S3) -> None:
    """Whatever the request, and however often the object changes at S3 meanwhile, the bytes are those of the version
    that the ETag names. A range never mixes with another version's (I1).
    """
    proxy = await start(freshness={"default_ttl": "5s", "stale_while_revalidate": "5s"})
    dice = random.Random(7)
    versions: dict[str, bytes] = {}
    served = 0

    def change() -> None:
        body = pattern(dice.choice((SIZE, SIZE, 2 * BLOCK + 1, 17, 0)), seed=len(versions) + 1)
        versions[s3.put("x", body)] = body

    async def request() -> None:
        nonlocal served
        response = await proxy.request("GET", "/x", _any_headers(dice, list(versions)))
        if response.status in (200, 206) and response.is_complete:
            body = versions[response.headers["ETag"]]
            for begin, stop, data in spans_of(response, len(body)):
                assert data == body[begin:stop]
                served += len(data)
        else:
            assert response.status in (200, 206, 304, 412, 416)

    change()
    for _ in range(60):
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(request())
            if dice.random() < 0.4:
                change()
        proxy.clock.advance(dice.choice((0, 1, 3, 7)))
    assert len(versions) > 10
    assert served > 10 * SIZE


def _any_headers(dice: random.Random, etags: list[str]) -> dict[str, str]:
    headers = {}
    if dice.random() < 0.7:
        headers["Range"] = "bytes=" + ",".join(_any_spec(dice) for _ in range(dice.choice((1, 1, 1, 2, 5))))
    if dice.random() < 0.2:
        headers["If-Range"] = dice.choice(etags)
    if dice.random() < 0.1:
        headers[dice.choice(("If-Match", "If-None-Match"))] = dice.choice(etags)
    return headers


def _any_spec(dice: random.Random) -> str:
    first = dice.randrange(SIZE)
    last = first + dice.choice((0, 10, BLOCK, 3 * BLOCK))
    return dice.choice((f"{first}-{last}", f"{first}-", f"-{last - first + 1}", f"{last}-{first}"))
