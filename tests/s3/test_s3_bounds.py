"""Bodies that the SDK reads into memory: what becomes of one that is too long, or too deep."""

import asyncio
import gzip
import random
from collections.abc import Awaitable, Callable

import pytest
from fakes import Head, RawConnection, RawServer, Script, answering, response
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import AccessDenied, InvalidOriginResponse, OriginRefused, OriginServerError
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.s3 import sdk_response
from bucketfront.s3.client import S3Origin
from bucketfront.s3.delete import delete_objects

KEY = ObjectKey("bucket", "o")
ENDLESS = 1 << 40  # the declared length of a body in bytes
PIECE = b" " * (64 << 10)
Call = Callable[[S3Origin], Awaitable[None]]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make retries follow at once: the jitter is 0."""
    monkeypatch.setattr(random, "random", lambda: 0.0)


def settings(server: RawServer) -> OriginSettings:
    static = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"}
    return OriginSettings.model_validate({"endpoint_url": server.endpoint_url, "credentials": static})


async def get(origin: S3Origin) -> None:
    await origin.get(KEY, FromTo(0, 10))


async def delete(origin: S3Origin) -> None:
    await origin.delete(KEY)


async def delete_many(origin: S3Origin) -> None:
    await delete_objects(origin, [KEY])


def endless(head: bytes) -> Script:
    """Return a script that sends a body until the client closes the connection."""

    async def script(connection: RawConnection, _: Head) -> None:
        connection.writer.write(head)
        while not connection.writer.is_closing():
            await connection.send(PIECE)

    return script


def nested(levels: int) -> bytes:
    return b"<Error><Code>" + b"<a>" * levels + b"</a>" * levels + b"</Code></Error>"


@each_row("call", [get, delete, delete_many])
async def test_an_endless_error(call: Call) -> None:
    """I19: The first bytes of an error are read and its connection is closed. The status counts."""
    head = response("401 Unauthorized", length=ENDLESS, Content_Type="application/xml")
    async with asyncio.timeout(HANG_S), RawServer(endless(head)) as server, S3Origin(settings(server)) as origin:
        with pytest.raises(OriginRefused, match="401"):
            await call(origin)
        for connection in server.connections:
            await connection.ended.wait()


async def test_an_endless_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """I19: a result that is longer than any of S3 is cut, so its outcome is unknown."""
    monkeypatch.setattr(sdk_response, "MAX_RESULT_BYTES", 1 << 20)
    head = response("200 OK", length=ENDLESS, Content_Type="application/xml") + b"<DeleteResult>"
    async with asyncio.timeout(HANG_S), RawServer(endless(head)) as server, S3Origin(settings(server)) as origin:
        with pytest.raises(OriginServerError, match="200"):
            await delete_many(origin)


async def test_a_long_error_that_ends() -> None:
    """An error of 60 KiB has its code, because the bound is above that."""
    body = b"<Error><Code>AccessDenied</Code>" + b" " * (60 << 10) + b"</Error>"
    script = answering(response("403 Forbidden", body, Content_Type="application/xml"))
    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server)) as origin:
        for _ in range(2):
            with pytest.raises(AccessDenied):
                await get(origin)
        assert len(server.connections) == 1


async def test_a_compressed_error_that_grows() -> None:
    """I19: An error is decompressed up to the same bound."""
    body = gzip.compress(b"<Error><Code>AccessDenied</Code>" + b" " * (16 << 20) + b"</Error>")
    script = answering(response("403 Forbidden", body, Content_Type="application/xml", Content_Encoding="gzip"))
    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server)) as origin:
        with pytest.raises(OriginRefused, match="403"):
            await get(origin)


@each_row("levels", [2_000, 8_000, 20_000])
@each_row(
    ("call", "status"),
    [(get, "403 Forbidden"), (delete, "403 Forbidden"), (delete_many, "403 Forbidden"), (delete_many, "200 OK")],
)
async def test_deep_xml(call: Call, status: str, levels: int) -> None:
    """XML of thousands of levels is an invalid response, or an error without a code. It is no fault of bucketfront."""
    script = answering(response(status, nested(levels), Content_Type="application/xml"))
    async with asyncio.timeout(HANG_S), RawServer(script) as server, S3Origin(settings(server)) as origin:
        with pytest.raises((InvalidOriginResponse, OriginRefused, OriginServerError)):
            await call(origin)
