"""A written object is in the cache once S3 has confirmed the write, and not before."""

import asyncio
import re

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from relay import Cut, Seen, canned
from wire import Response, chunked, message

from bucketfront.cache import lookup_flow

pytestmark = pytest.mark.long

MIB = 1 << 20
PART_SIZE = 8 * MIB
SIZES = [0, 1, BLOCK, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE + 5]


async def put(proxy: Proxy, body: bytes, *, is_chunked: bool = False, target: str = "/x") -> Response:
    if not is_chunked:
        return await proxy.request("PUT", target, body=body)
    pieces = [body[at : at + MIB - 7] for at in range(0, len(body), MIB - 7)]
    return await proxy.request("PUT", target, {"Transfer-Encoding": "chunked"}, chunked(*pieces))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_the_next_get_is_a_hit(proxy: Proxy, s3: S3, size: int, is_chunked: bool) -> None:
    """After a PUT the cache has the object with S3's own metadata, and the next GET needs no request to S3 (I4, I5)."""
    body = pattern(size, 3)
    response = await put(proxy, body, is_chunked=is_chunked)
    assert response.status == 201
    before = len(proxy.relay.seen)
    got = await proxy.get("/x")
    assert (got.status, got.body) == (200, body)
    stored = s3.head("x")
    assert got.headers["ETag"] == response.headers["ETag"] == stored["ETag"]
    assert got.headers["Last-Modified"] == stored["ResponseMetadata"]["HTTPHeaders"]["last-modified"]
    assert got.headers["Cache-Status"].startswith("bucketfront; hit")
    if size > 10:
        assert (await proxy.get("/x", Range="bytes=1-10")).body == body[1:11]
    assert len(proxy.relay.seen) == before
    assert ("-" in response.headers["ETag"]) == (size > PART_SIZE)
    assert s3.get("x") == body
    assert s3.unfinished == 0


async def test_it_outlives_a_restart(start: StartProxy, s3: S3) -> None:
    """A written object is an entry like any other after a stop (I14)."""
    proxy = await start()
    body = pattern(PART_SIZE + 7)
    assert (await put(proxy, body)).status == 201
    await proxy.stop()
    again = await start()
    before = len(again.relay.seen)
    assert (await again.get("/x")).body == body
    assert len(again.relay.seen) == before
    assert len(again.files) == again.figures["entries"] == 1


async def test_the_old_version_until_s3_said_yes(proxy: Proxy, s3: S3) -> None:
    """While the body arrives and S3 stores it, readers get the old version. After the response no reader does (I5)."""
    old, new = pattern(3 * BLOCK, 1), pattern(2 * PART_SIZE, 2)
    s3.put("x", old)
    gate, completing = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if seen.method == "POST" and "uploadId=" in seen.target:
            completing.set()
            await gate.wait()
        return None

    proxy.relay.on_request = hold
    writing = asyncio.create_task(put(proxy, new))
    await completing.wait()
    for _ in range(2):
        assert (await proxy.get("/x")).body == old
    gate.set()
    assert (await writing).status == 201
    before = len(proxy.relay.seen)
    assert (await proxy.get("/x")).body == new
    assert len(proxy.relay.seen) == before


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_the_old_version_stays_a_hit_while_the_body_comes(proxy: Proxy, s3: S3, is_chunked: bool) -> None:
    """Until the call that may replace it, the cached version is current, and hits need no request to S3 (I10)."""
    old, new = pattern(3 * BLOCK, 1), pattern(2 * PART_SIZE, 2)
    s3.put("x", old)
    assert (await proxy.get("/x")).body == old
    before = len(proxy.relay.seen)
    gate, sending = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if "partNumber" in seen.target:
            sending.set()
            await gate.wait()
        return None

    proxy.relay.on_request = hold
    writing = asyncio.create_task(put(proxy, new, is_chunked=is_chunked))
    await sending.wait()
    assert (await proxy.get("/x")).body == old
    assert {seen.method for seen in proxy.relay.seen[before:]} == {"POST", "PUT"}
    gate.set()
    assert (await writing).status == 201
    assert (await proxy.get("/x")).body == new


@pytest.mark.parametrize("size", [BLOCK, 2 * PART_SIZE])
async def test_the_old_version_is_gone_before_s3_is_asked(proxy: Proxy, s3: S3, size: int) -> None:
    """If a kill comes between S3's confirmation and the next step, the cache has no old version (I5, I9)."""
    s3.put("x", b"old")
    assert (await proxy.get("/x")).body == b"old"
    left: list[int] = []

    async def look(seen: Seen) -> None:
        is_put = seen.method == "PUT" and "partNumber" not in seen.target
        if is_put or (seen.method == "POST" and "uploadId=" in seen.target):
            left.append(proxy.figures["entries"])

    proxy.relay.on_request = look
    assert (await put(proxy, pattern(size))).status == 201
    assert left == [0]


async def test_reads_join_the_publication(proxy: Proxy, s3: S3) -> None:
    """A request between S3's confirmation and the new entry waits for the one HEAD, and gets the new version (I5,
    I10).
    """
    s3.put("x", b"old")
    new = pattern(2 * BLOCK)
    gate, asked = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if seen.method == "HEAD":
            asked.set()
            await gate.wait()
        return None

    proxy.relay.on_request = hold
    writing = asyncio.create_task(put(proxy, new))
    await asked.wait()
    reading = [asyncio.create_task(proxy.get("/x")) for _ in range(3)]
    await until(lambda: proxy.figures["lookups_joined"] == 3)
    gate.set()
    assert (await writing).status == 201
    assert [response.body for response in await asyncio.gather(*reading)] == [new] * 3
    assert [seen.method for seen in proxy.relay.seen].count("HEAD") == 1
    assert "GET" not in [seen.method for seen in proxy.relay.seen]


@pytest.mark.parametrize("what", ["purge", "delete", "put"])
async def test_what_comes_while_it_is_published(proxy: Proxy, s3: S3, what: str) -> None:
    """A purge or another write between S3's confirmation and the new entry wins (I6)."""
    new, newer = pattern(2 * BLOCK, 1), pattern(2 * BLOCK, 2)
    gate, asked = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if seen.method == "HEAD" and not asked.is_set():
            asked.set()
            await gate.wait()
        return None

    proxy.relay.on_request = hold
    writing = asyncio.create_task(put(proxy, new))
    await asked.wait()
    match what:
        case "purge":
            s3.put("x", newer)
            assert (await proxy.admin("POST", "/api/v1/purge", b'{"paths": ["/x"]}')).status == 200
        case "delete":
            assert (await proxy.request("DELETE", "/x")).status == 204
        case _:
            assert (await put(proxy, newer)).status == 201
    gate.set()
    assert (await writing).status == 201
    response = await proxy.get("/x")
    assert (response.status, response.body == newer) == ((404, False) if what == "delete" else (200, True))
    await until(lambda: len(proxy.files) == proxy.figures["entries"])


async def test_somebody_else_writes_at_once(proxy: Proxy, s3: S3) -> None:
    """If another write replaces the object before the HEAD, the sent body is not published (I1, I4)."""
    new, other = pattern(2 * BLOCK, 1), pattern(2 * BLOCK, 2)

    async def overtake(seen: Seen) -> bytes | None:
        if seen.method == "HEAD":
            s3.put("x", other)
        return None

    proxy.relay.on_request = overtake
    assert (await put(proxy, new)).status == 201
    proxy.relay.reset()
    got = await proxy.get("/x")
    assert (got.body, got.headers["ETag"]) == (other, s3.head("x")["ETag"])
    await until(lambda: len(proxy.files) == proxy.figures["entries"])


@pytest.mark.parametrize("status", [403, 500])
async def test_a_head_that_fails(proxy: Proxy, s3: S3, status: int) -> None:
    """The write took place, so the client gets its success, but the cache has no entry (I13)."""

    async def refuse(seen: Seen) -> bytes | None:
        return canned(status, "") if seen.method in ("HEAD", "GET") else None

    proxy.relay.on_request = refuse
    body = pattern(2 * BLOCK)
    assert (await put(proxy, body)).status == 201
    await until(lambda: proxy.files == [] and not proxy.figures["bytes_used"])
    proxy.relay.on_request = None
    proxy.relay.reset()
    assert (await proxy.get("/x")).body == body


async def test_a_read_during_a_write_that_is_not_published(proxy: Proxy, s3: S3) -> None:
    """An entry that a read stored meanwhile is removed, even if the HEAD that would replace it fails (I5, I6)."""
    s3.put("x", b"old")
    came, gate = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if seen.method == "PUT":
            came.set()
            await gate.wait()
        return canned(500) if seen.method == "HEAD" else None

    proxy.relay.on_request = hold
    writing = asyncio.create_task(put(proxy, b"new"))
    await came.wait()
    assert (await proxy.get("/x")).body == b"old"
    gate.set()
    assert (await writing).status == 201
    assert (await proxy.get("/x")).body == b"new"


@pytest.mark.parametrize("is_large", [False, True])
async def test_an_unknown_outcome_is_not_cached(proxy: Proxy, s3: S3, is_large: bool) -> None:
    """S3 stores the body and all responses are lost, so that nothing shows whether the write or another one did it.

    The client gets a 502, no byte of the body is cached, and reads go to S3 (I9).
    """
    s3.put("x", b"old")
    body = pattern(2 * PART_SIZE if is_large else BLOCK)

    async def lose(seen: Seen) -> bytes | None:
        if seen.method == "POST" and "uploadId=" in seen.target if is_large else seen.method == "PUT":
            s3.put("x", body)
            raise Cut
        return None

    proxy.relay.on_request = lose
    assert (await proxy.get("/x")).body == b"old"
    assert (await put(proxy, body)).status in (502, 504)
    await until(lambda: proxy.files == [] and not proxy.figures["bytes_used"])
    assert (await proxy.get("/x")).body == body
    assert s3.unfinished == 0


async def test_a_head_that_is_late(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response does not wait for a late HEAD, and the entry appears once S3 has responded (I20)."""
    monkeypatch.setattr(lookup_flow, "PUBLISH_TIMEOUT_S", 0.05)
    gate = asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if seen.method == "HEAD":
            await gate.wait()
        return None

    proxy.relay.on_request = hold
    body = pattern(2 * BLOCK)
    assert (await put(proxy, body)).status == 201
    assert not proxy.figures["entries"]
    gate.set()
    await until(lambda: proxy.figures["entries"])
    before = len(proxy.relay.seen)
    assert (await proxy.get("/x")).body == body
    assert len(proxy.relay.seen) == before


@pytest.mark.parametrize("size", [2 * MIB, PART_SIZE + 2 * BLOCK])
async def test_bytes_that_go_bad_on_the_way(proxy: Proxy, s3: S3, size: int) -> None:
    """If the disk returns another byte than it was given, S3 gets no object, and the client gets an error (I8, I15)."""
    s3.put("x", b"old")
    async with proxy.connection() as client:
        await client.send(message("PUT", "/x", {"Content-Length": str(size)}) + pattern(size - 1))
        await until(lambda: proxy.files and proxy.files[0].stat().st_size >= 2 * BLOCK)
        with proxy.files[0].open("r+b") as file:
            file.seek(BLOCK + 5)
            file.write(b"?")
        await client.send(b"!")
        assert (await client.response("PUT")).status == 500
    assert s3.get("x") == b"old"
    assert (await proxy.get("/x")).body == b"old"
    assert s3.unfinished == 0


async def test_what_must_not_be_stored(proxy: Proxy, s3: S3) -> None:
    """An object with `no-store` is written to S3, and not cached (RFC 9111 section 5.2.2.5)."""
    body = pattern(2 * BLOCK)
    assert (await proxy.request("PUT", "/x", {"Cache-Control": "no-store"}, body)).status == 201
    assert (await proxy.get("/x")).body == body
    await until(lambda: proxy.files == [])


async def test_a_part_that_fails_is_sent_again(proxy: Proxy, s3: S3) -> None:
    """After a 5xx or a reset only that part is sent again, and the write succeeds (I8)."""
    body, failed = pattern(3 * PART_SIZE + 1), []

    async def fail(seen: Seen) -> bytes | None:
        part = re.search("partNumber=([123])\\b", seen.target)
        if part is None or part[1] in failed:
            return None
        failed.append(part[1])
        if part[1] == "2":
            raise Cut
        return canned(503, "SlowDown")

    proxy.relay.on_request = fail
    assert (await put(proxy, body)).status == 201
    assert sorted(failed) == ["1", "2", "3"]
    assert s3.get("x") == body
    assert (await proxy.get("/x")).body == body


async def test_parts_go_up_side_by_side(proxy: Proxy, s3: S3) -> None:
    """Four parts are sent at once while the body still arrives, and never more (I19)."""
    running, most, gate = 0, 0, asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        nonlocal running, most
        if "partNumber=" in seen.target:
            running += 1
            most = max(most, running)
            if running == 4:
                asyncio.get_running_loop().call_later(0.2, gate.set)
            await gate.wait()
            running -= 1
        return None

    proxy.relay.on_request = hold
    body = pattern(6 * PART_SIZE)
    assert (await put(proxy, body)).status == 201
    assert most == 4
    assert s3.get("x") == body


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_crowd_of_uploads(start: StartProxy, s3: S3, is_chunked: bool) -> None:
    """Sixty uploads at once, to a cache with room for a third of them.

    Each gets its response, and S3 has each object (I8, I17).
    """
    proxy = await start(cache={"max_size": "5MiB"})
    bodies = {f"/{number}": pattern(MIB // 4, number) for number in range(60)}
    responses = await asyncio.gather(
        *(put(proxy, body, is_chunked=is_chunked, target=target) for target, body in bodies.items())
    )
    assert {response.status for response in responses} == {201}
    for target, body in bodies.items():
        assert s3.get(target[1:]) == body
    assert proxy.figures["bytes_used"] <= 5 * MIB
    await until(lambda: len(proxy.files) == proxy.figures["entries"])
    for target, body in bodies.items():
        assert (await proxy.get(target)).body == body
