"""Long bodies from the origin, which are received without aiohttp's parser."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import TypeAlias

import pytest
import trustme
from fakes import Head, RawConnection, RawServer, Script, object_bytes, response
from stopwatch import HANG_S

from bucketfront.cache.origin import OriginResponse
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import BodyTruncated, OriginTimeout
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.s3 import body_receiver
from bucketfront.s3.body_receiver import BUFFER_BYTES, BodyReceiver
from bucketfront.s3.client import S3Origin

KEY = ObjectKey("bucket", "o")
SIZE = 5 * BUFFER_BYTES + 12_345
CONTENT = object_bytes(SIZE, seed=1)
HEAD = response("206 OK", length=SIZE, ETag='"v1"', Content_Range=f"bytes 0-{SIZE - 1}/{SIZE}")

Serving: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[S3Origin, RawServer]]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["plain", "TLS"])
def serving(request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path) -> Serving:
    """Return a function that starts a server with or without TLS, and an origin client of it."""

    @asynccontextmanager
    async def start(script: Script, read_timeout: str = "20s") -> AsyncIterator[tuple[S3Origin, RawServer]]:
        given = {"read_timeout": read_timeout, "keep_alive_timeout": "1h", "credentials": "anonymous"}
        context = None
        if request.param == "TLS":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            authority.cert_pem.write_to_path(tmp_path / "authority.pem")
            given["ca_bundle"] = str(tmp_path / "authority.pem")
        async with asyncio.timeout(HANG_S), RawServer(script, context) as server:
            settings = OriginSettings.model_validate(given | {"endpoint_url": server.endpoint_url})
            async with S3Origin(settings) as origin:
                yield origin, server

    return start


@pytest.fixture(autouse=True)
def receivers(monkeypatch: pytest.MonkeyPatch) -> list[BodyReceiver]:
    """Return the receivers that are made, so that a test sees that its bodies do not take the ordinary way."""
    made: list[BodyReceiver] = []
    begin = BodyReceiver.__init__

    def noted(self: BodyReceiver, *given: object) -> None:
        made.append(self)
        begin(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(BodyReceiver, "__init__", noted)
    return made


async def begin(origin: S3Origin) -> OriginResponse:
    answer = await origin.get(KEY, FromTo(0))
    assert isinstance(answer, OriginResponse)
    return answer


async def pieces_of(answer: OriginResponse) -> list[bytes | memoryview]:
    found = []
    while piece := await answer.body.read():
        found.append(piece)
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_pieces_of_any_size(seed: int, serving: Serving, receivers: list[BodyReceiver]) -> None:
    """I1: however the body arrives and is read, no byte is lost, and what was read before never changes."""
    dice = Random(seed)

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(HEAD)
        at = 0
        while at < SIZE:
            stop = at + dice.choice([1, 1000, 70_000, 300_000, 2 * BUFFER_BYTES])
            await connection.send(CONTENT[at:stop])
            at = stop
            if dice.random() < 0.3:
                await asyncio.sleep(0)

    async with serving(script) as (origin, server):
        for _ in range(2):
            answer = await begin(origin)
            pieces: list[bytes | memoryview] = []
            while piece := await answer.body.read():
                pieces.append(piece)
                for _ in range(dice.choice([0, 0, 1, 20])):
                    await asyncio.sleep(0)
            answer.body.close()
            assert b"".join(pieces) == CONTENT
        assert len(receivers) == 2
        assert len(server.connections) == 1  # used again (I12)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_body_that_ends_early(serving: Serving, receivers: list[BodyReceiver], *, is_reset: bool) -> None:
    """I3, I12: all bytes that came before the end of the connection are returned, then BodyTruncated."""
    sent = 3 * BUFFER_BYTES
    has_all = asyncio.Event()

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(HEAD + CONTENT[:sent])
        await has_all.wait()
        if is_reset:
            connection.reset()
        else:
            connection.writer.close()

    async with serving(script) as (origin, _):
        answer = await begin(origin)
        got = b""
        while len(got) < sent:
            got += await answer.body.read()
        has_all.set()
        with pytest.raises(BodyTruncated, match=f"{SIZE - sent} bytes early"):
            await answer.body.read()
        answer.body.close()
        assert got == CONTENT[:sent]
        assert len(receivers) == 1


async def test_a_body_that_stalls(serving: Serving) -> None:
    """I20: `read_timeout` without a byte is OriginTimeout, and closing the body closes its connection."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(HEAD + CONTENT[:100_000])
        await connection.hang()

    async with serving(script, read_timeout="300ms") as (origin, server):
        answer = await begin(origin)
        with pytest.raises(OriginTimeout):
            await pieces_of(answer)
        answer.body.close()
        await server.connections[0].ended.wait()


async def test_a_cancelled_read_loses_no_byte(serving: Serving) -> None:
    """I12: reads that are cancelled while they wait leave the bytes to later ones."""
    go_on = asyncio.Event()

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(HEAD)
        for at in range(0, SIZE, 700_000):
            go_on.clear()
            await go_on.wait()
            await connection.send(CONTENT[at : at + 700_000])

    async with serving(script) as (origin, _):
        answer = await begin(origin)
        got = b""
        while len(got) < SIZE:
            reading = asyncio.ensure_future(answer.body.read())
            await asyncio.sleep(0)
            if not reading.done():
                reading.cancel()
                await asyncio.wait([reading])
                go_on.set()
                got += await answer.body.read()
            else:
                got += await reading
        answer.body.close()
        assert got == CONTENT


async def test_a_buffer_is_used_again_only_without_views(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """I1: while pieces of a body are held, other bodies do not change them. Later their buffers are used again."""
    monkeypatch.setattr(body_receiver, "_buffers", body_receiver._Buffers())
    contents = [object_bytes(SIZE, seed=seed) for seed in (1, 2, 3)]
    answers = iter(contents)

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(HEAD + next(answers))

    async def read(origin: S3Origin) -> list[bytes | memoryview]:
        answer = await begin(origin)
        pieces = await pieces_of(answer)
        answer.body.close()
        return pieces

    def buffers_of(pieces: list[bytes | memoryview]) -> list[object]:
        return [piece.obj for piece in pieces if isinstance(piece, memoryview)]

    async with serving(script) as (origin, _):
        held = [await read(origin), await read(origin)]
        assert [b"".join(pieces) for pieces in held] == contents[:2]
        known = {id(buffer): buffer for pieces in held for buffer in buffers_of(pieces)}
        held.clear()
        pieces = await read(origin)
        assert b"".join(pieces) == contents[2]
        assert any(id(buffer) in known for buffer in buffers_of(pieces))


async def test_a_slow_reader(serving: Serving, receivers: list[BodyReceiver]) -> None:
    """I19: while the body is not read, the origin is held up, and one buffer is held in memory."""
    size = 64 << 20
    sent = 0

    async def script(connection: RawConnection, head: Head) -> None:
        nonlocal sent
        await connection.send(response("206 OK", length=size, ETag='"v1"', Content_Range=f"bytes 0-{size - 1}/{size}"))
        while sent < size:
            await connection.send(CONTENT[:BUFFER_BYTES])
            sent += BUFFER_BYTES

    async with serving(script) as (origin, _):
        answer = await begin(origin)
        before = -1
        while sent > before or not sent:  # the kernel's buffers are full once nothing more is sent
            before = sent
            await asyncio.sleep(0.2)
        assert sent < size
        assert sum(len(receiver._buffer) for receiver in receivers) <= BUFFER_BYTES
        assert sum(map(len, await pieces_of(answer))) == size
        answer.body.close()


@pytest.mark.parametrize("surplus", [b"\r\n", b"x", HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"])
async def test_bytes_behind_a_body(surplus: bytes, serving: Serving, receivers: list[BodyReceiver]) -> None:
    """I12: a long body with bytes behind its end is good, but its connection is not used again."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(HEAD + CONTENT + surplus)

    async with serving(script) as (origin, server):
        for _ in range(3):
            answer = await begin(origin)
            assert b"".join(await pieces_of(answer)) == CONTENT
            answer.body.close()
        assert (len(server.heads), len(server.connections), len(receivers)) == (3, 3, 3)


async def test_a_body_that_is_left(serving: Serving) -> None:
    """I12: a body that is closed before its end closes its connection."""

    async def script(connection: RawConnection, head: Head) -> None:
        await connection.send(HEAD + CONTENT)

    async with serving(script) as (origin, server):
        for _ in range(2):
            answer = await begin(origin)
            assert CONTENT.startswith(await answer.body.read())
            answer.body.close()
            answer.body.close()
            await server.connections[-1].ended.wait()
        assert len(server.connections) == 2
