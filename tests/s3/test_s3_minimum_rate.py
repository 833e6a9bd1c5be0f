"""Bodies that come too slowly: the rule, and its effect on a real socket."""

import asyncio

import pytest
from fakes import Head, RawConnection, RawServer, object_bytes, response
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from stopwatch import HANG_S

from bucketfront.cache.origin import OriginResponse
from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.errors import OriginTimeout
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.s3 import minimum_rate
from bucketfront.s3.breaker import MAX_FAILURES
from bucketfront.s3.client import S3Origin
from bucketfront.s3.minimum_rate import MIN_BYTES_PER_S, WINDOW_S, MinimumRate

KEY = ObjectKey("bucket", "drips")
CONTENT = object_bytes(1 << 16)
SHORT = 0.2  # seconds: a window that a test waits out

Waits = st.lists(st.tuples(st.floats(0, WINDOW_S / 2), st.integers(0, 100_000)), max_size=50)


def outcomes(waits: list[tuple[float, int]]) -> list[bool]:
    rate = MinimumRate()
    kept = []
    for seconds, count in waits:
        rate.waited(seconds, count)
        kept.append(rate.is_kept())
    return kept


@given(Waits)
def test_a_body_at_the_rate_is_never_ended(waits: list[tuple[float, int]]) -> None:
    """A link of MIN_BYTES_PER_S is slow and legitimate, in any distribution of its bytes."""
    assert all(outcomes([(seconds, int(seconds * MIN_BYTES_PER_S) + 1) for seconds, _ in waits]))


@given(Waits)
def test_no_body_is_ended_without_a_wait(waits: list[tuple[float, int]]) -> None:
    """While our disk is slow no read waits for the origin, so that few bytes are not the origin's fault."""
    assert all(outcomes([(0.0, count) for _, count in waits]))


@given(Waits)
def test_a_slow_body_is_ended_within_two_windows(waits: list[tuple[float, int]]) -> None:
    """I20: a body that brings next to no bytes is ended, whatever it brought before."""
    rate = MinimumRate()
    for seconds, count in waits:
        rate.waited(seconds, count)
        rate.is_kept()
    dripping = []
    for _ in range(40):
        rate.waited(WINDOW_S / 20, 1)
        dripping.append(rate.is_kept())
    assert not all(dripping)


def settings(endpoint: str) -> OriginSettings:
    keys = StaticCredentials(access_key_id=SecretStr("any"), secret_access_key=SecretStr("any"))
    return OriginSettings.model_validate({"endpoint_url": endpoint, "credentials": keys})


async def drip(connection: RawConnection, head: Head) -> None:
    """Send a valid head, then a byte now and then."""
    start = int(head.headers["range"].removeprefix("bytes=").partition("-")[0])
    body = CONTENT[start:]
    there = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    await connection.send(response("206 Partial Content", length=len(body), ETag='"1"', Content_Range=there))
    for at in range(len(body)):
        if connection.writer.is_closing():
            return
        await connection.send(body[at : at + 1])
        await asyncio.sleep(0.01)  # the slow body itself, no synchronisation


async def dripped(origin: S3Origin, key: ObjectKey) -> bytes:
    """Read until the body is ended. Return the bytes that came."""
    answer = await origin.get(key, FromTo(0))
    assert isinstance(answer, OriginResponse)
    got = b""
    try:
        while data := await answer.body.read():
            got += data
    except OriginTimeout as error:
        assert "too slowly" in str(error)  # noqa: PT017 - what came before it counts
    else:
        raise AssertionError("a drip was not ended")
    finally:
        answer.body.close()
    return got


async def test_a_slow_body_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """I12, I20: a byte now and then keeps `read_timeout`, and is OriginTimeout all the same.

    The bytes that came are right, and the connection is closed.
    """
    monkeypatch.setattr(minimum_rate, "WINDOW_S", SHORT)
    async with asyncio.timeout(HANG_S), RawServer(drip) as server, S3Origin(settings(server.endpoint_url)) as origin:
        got = await dripped(origin, KEY)
        assert got
        assert CONTENT.startswith(got)
        assert len(got) < MIN_BYTES_PER_S * SHORT
        await server.connections[0].ended.wait()
        assert origin.slow_bodies == 1


async def test_a_slow_reader_is_not_a_slow_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that wait for a slow reader count as no wait for the origin, however few they are."""
    monkeypatch.setattr(minimum_rate, "WINDOW_S", 0.3)
    monkeypatch.setattr(minimum_rate, "MIN_BYTES_PER_S", 100 << 10)
    piece, wanted = 1 << 10, asyncio.Semaphore(0)

    async def script(connection: RawConnection, head: Head) -> None:
        there = f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"
        await connection.send(response("206 Partial Content", length=len(CONTENT), ETag='"1"', Content_Range=there))
        for start in range(0, len(CONTENT), piece):
            await wanted.acquire()
            await connection.send(CONTENT[start : start + piece])

    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server.endpoint_url)) as origin:
        answer = await origin.get(KEY, FromTo(0))
        assert isinstance(answer, OriginResponse)
        for start in range(0, 30 * piece, piece):
            wanted.release()
            await asyncio.sleep(0.03)  # the slowness itself: a third of the rate
            assert await answer.body.read() == CONTENT[start : start + piece]
        answer.body.close()
        assert origin.slow_bodies == 0


async def test_slow_bodies_of_one_key_are_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The breaker counts a slow body like a 5xx: those of one key cause no probe, those of several do."""
    monkeypatch.setattr(minimum_rate, "WINDOW_S", SHORT)
    async with asyncio.timeout(HANG_S), RawServer(drip) as server, S3Origin(settings(server.endpoint_url)) as origin:
        await asyncio.gather(*(dripped(origin, KEY) for _ in range(2 * MAX_FAILURES)))
        assert repr(origin.breaker) == "<Breaker closed, 1 failures>"
        assert origin.slow_bodies == 2 * MAX_FAILURES
        await asyncio.gather(*(dripped(origin, KEY._replace(key=str(number))) for number in range(2 * MAX_FAILURES)))
        assert "verifying" in repr(origin.breaker)
