"""The chaos origin follows its script and records what it did."""

import asyncio
import time
from collections.abc import AsyncIterator

import chaos_content as content
import pytest
from behaviour import FAULTS, HONEST, AtRandom, Behaviour, InTurn, OriginRequest
from chaos_origin import FOREIGN, VERSION_HEADER, ChaosOrigin
from origin_process import OriginProcess
from wire import Response, connected, fetch

SIZE = 100_000


@pytest.fixture
async def origin() -> AsyncIterator[ChaosOrigin]:
    async with ChaosOrigin() as running:
        yield running


async def get(origin: ChaosOrigin, *behaviours: Behaviour, key: str = "o", **headers: str) -> Response:
    """Send one GET, to which the origin applies the behaviours in turn."""
    origin.script = InTurn(*behaviours)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await fetch(origin.endpoint_url, f"/bucket/{key}", headers=named)


async def test_an_object_is_its_content(origin: ChaosOrigin) -> None:
    """GET, a range and HEAD agree on bytes, ETag and version, and all requests are counted and logged as sent."""
    version = origin.store("o", SIZE)
    whole = await get(origin)
    part = await get(origin, Range="bytes=99-70000")
    head = await fetch(origin.endpoint_url, "/bucket/o", method="HEAD")
    assert whole.body == content.read("o", version, 0, SIZE)
    assert part.body == whole.body[99:70001]
    assert (part.status, part.headers["Content-Range"]) == (206, f"bytes 99-70000/{SIZE}")
    assert head.headers["Content-Length"] == str(SIZE)
    assert {response.headers["ETag"] for response in (whole, part, head)} == {content.etag("o", version, SIZE)}
    assert {response.headers[VERSION_HEADER] for response in (whole, part, head)} == {str(version)}
    assert [(request.line, request.range) for request in origin.requests] == [
        ("GET /bucket/o", None),
        ("GET /bucket/o", "bytes=99-70000"),
        ("HEAD /bucket/o", None),
    ]
    assert dict(origin.counts) == {"GET": 2, "HEAD": 1, "body bytes": SIZE + 69902}


async def test_a_large_object_needs_no_memory(origin: ChaosOrigin) -> None:
    """The last bytes of a 1 GiB object arrive at once."""
    version = origin.store("big", 1 << 30)
    response = await get(origin, key="big", Range="bytes=-1000")
    assert content.check("big", response.body, (1 << 30) - 1000).is_all(version)


async def test_writes_make_history(origin: ChaosOrigin) -> None:
    """Uploaded content is recognised by its version, other bytes are foreign, and each change has its time."""
    mine = content.read("o", 77, 0, SIZE)
    began = time.monotonic()
    url = origin.endpoint_url
    put = await fetch(url, "/bucket/o", method="PUT", body=mine, headers={VERSION_HEADER: "77"})
    await fetch(url, "/bucket/o", method="PUT", body=mine[:-1] + b"?")
    assert origin.stored("o") == mine[:-1] + b"?"
    assert (await fetch(url, "/bucket/o", method="DELETE")).status == 204
    assert (await get(origin)).status == 404
    changes = origin.drain_history()
    assert [(change.version, change.size) for change in changes] == [(77, SIZE), (FOREIGN, SIZE), (None, 0)]
    assert put.headers["ETag"] == changes[0].etag == content.etag("o", 77, SIZE)
    assert began < changes[0].at < changes[1].at < changes[2].at < time.monotonic()
    assert origin.drain_history() == []


@pytest.mark.parametrize("when", ["before head", "after head", 70_000])
async def test_a_swap(origin: ChaosOrigin, when: str | int) -> None:
    """The object is overwritten at that moment, and a running response continues with the old version."""
    old = origin.store("o", SIZE)
    response = await get(origin, Behaviour(swap=when, swap_size=10))  # type: ignore[arg-type] # one of the three
    new = origin.history[-1].version
    assert new != old
    if when == "before head":
        assert response.body == content.read("o", new or 0, 0, 10)
    else:
        assert response.body == content.read("o", old, 0, SIZE)
    assert (await get(origin)).headers[VERSION_HEADER] == str(new)


async def test_if_match_is_honoured_or_not(origin: ChaosOrigin) -> None:
    """If-Match gives 412 by S3's rules, or, if ignored, the new version's bytes under its own ETag."""
    etag = content.etag("o", origin.store("o", SIZE), SIZE)
    assert (await get(origin, If_Match=etag)).status == 200
    new = content.etag("o", origin.store("o", SIZE), SIZE)
    assert (await get(origin, If_Match=etag)).status == 412
    lied = await get(origin, Behaviour(ignores_if_match=True), If_Match=etag, Range="bytes=0-9")
    assert (lied.status, lied.headers["ETag"]) == (206, new)


@pytest.mark.parametrize("status", [400, 403, 404, 412, 416, 429, 500, 503, 301])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_a_refusal(origin: ChaosOrigin, status: int, method: str) -> None:
    """The response has the script's status in S3's form, nothing changes, and the connection continues."""
    origin.store("o", SIZE)
    before = list(origin.history)
    origin.script = InTurn(Behaviour(status=status), methods=(method,))
    async with connected(origin.endpoint_url) as connection:
        body = b"new" if method == "PUT" else None
        response = await connection.request(method, "/bucket/o", body=body)
        assert response.status == status
        assert (b"<Code>" in response.body) == (method != "HEAD")
        assert (await connection.request("HEAD", "/bucket/o")).status == 200
    assert origin.history == before
    assert [misdeed.key for misdeed in origin.misdeeds] == ["o"]


@pytest.mark.parametrize("at", [0, 1, 70_000])
async def test_a_cut(origin: ChaosOrigin, at: int) -> None:
    """Exactly so many bytes arrive with FIN, and with RST the client's kernel may drop the last ones."""
    version = origin.store("o", SIZE)
    response = await get(origin, Behaviour(cut_at=at))
    assert (response.is_complete, response.body) == (False, content.read("o", version, 0, at))
    origin.script = InTurn(Behaviour(cut_at=at, with_reset=True))
    async with connected(origin.endpoint_url) as connection:
        await connection.send(b"GET /bucket/o HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await connection.reader.readexactly(2 * SIZE)


async def test_a_stall_and_a_drip(origin: ChaosOrigin) -> None:
    """A stall sends no byte after its offset, and a slow body takes its time and loses no byte."""
    version = origin.store("o", SIZE)
    origin.script = InTurn(Behaviour(stall_at=500), Behaviour(trickle=(40_000, 0.05)))
    async with connected(origin.endpoint_url) as connection:
        await connection.send(b"GET /bucket/o HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.head()
        assert await connection.reader.readexactly(500) == content.read("o", version, 0, 500)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.reader.read(1)
    began = time.monotonic()
    dripped = await fetch(origin.endpoint_url, "/bucket/o")
    assert time.monotonic() - began > 0.1
    assert dripped.body == content.read("o", version, 0, SIZE)


async def test_lies_about_the_body(origin: ChaosOrigin) -> None:
    """Content-Range, Content-Length, ETag and bytes can be wrong, Range ignored, and the response not HTTP."""
    version = origin.store("o", SIZE)
    right = content.read("o", version, 0, SIZE)
    assert (await get(origin, Behaviour(content_range="bytes 1-2/3"), Range="bytes=0-9")).headers[
        "Content-Range"
    ] == "bytes 1-2/3"
    longer = await get(origin, Behaviour(extra_length=7))
    assert (longer.is_complete, longer.body) == (False, right)
    shorter = await get(origin, Behaviour(extra_length=-7))
    assert (shorter.is_complete, shorter.body) == (True, right[:-7])
    assert (await get(origin, Behaviour(etag='"x"'))).headers["ETag"] == '"x"'
    flipped = await get(origin, Behaviour(flip_at=66_000))
    assert [at for at in range(SIZE) if flipped.body[at] != right[at]] == [66_000]
    assert (await get(origin, Behaviour(status=200), Range="bytes=5-9")).body == right
    origin.script = InTurn(Behaviour(garbage=b"SSH\r\n"))
    async with connected(origin.endpoint_url) as connection:
        await connection.send(b"GET /bucket/o HTTP/1.1\r\n\r\n")
        assert await connection.rest() == b"SSH\r\n"


async def test_writes_of_unknown_outcome(origin: ChaosOrigin) -> None:
    """A write cut before its end stores nothing, and one cut after its end is stored without a response (I8, I9)."""
    for at, is_stored in ((0, True), (5, False)):
        origin.history.clear()
        origin.script = InTurn(Behaviour(cut_at=at), methods=("PUT",))
        async with connected(origin.endpoint_url) as connection:
            await connection.send(b"PUT /bucket/new HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789")
            assert await connection.rest() == b""
        assert bool(origin.history) == is_stored


def test_a_random_script_is_the_same_for_the_same_seed() -> None:
    """The same seed gives the same faults, and keys and methods outside the script never get one."""
    first, second = AtRandom(3, 0.5), AtRandom(3, 0.5)
    one = OriginRequest("GET", "GET /bucket/o", (), "o", 0.0)
    found = [first(one) for _ in range(500)]
    assert found == [second(one) for _ in range(500)]
    assert set(FAULTS) < {HONEST, *found}
    assert AtRandom(3, 1.0, keys=frozenset({"other"}))(one) == HONEST


async def test_a_process_of_its_own() -> None:
    """The same origin works behind a pipe, with objects, scripts and history, and ends when its parent closes it."""
    with OriginProcess() as process:
        version = process.call("store", "o", SIZE)
        response = await fetch(process.endpoint_url, "/bucket/o")
        assert content.check("o", response.body, 0).is_all(version)
        process.set_script(AtRandom(1, 1.0, (Behaviour(status=503),)))
        assert (await fetch(process.endpoint_url, "/bucket/o")).status == 503
        assert [change.version for change in process.call("drain_history")] == [version]
        assert process.get("counts")["GET"] == 2
