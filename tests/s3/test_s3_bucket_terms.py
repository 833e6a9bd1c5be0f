"""Requester Pays and the expected owner go with every operation that takes them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from fakes import Head, RawConnection, RawServer, response
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import OriginError
from bucketfront.http.ranges import FromTo
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.multipart import Multipart, PartSent
from bucketfront.s3.upload.uploader import S3Uploader

KEY = ObjectKey("bucket", "o")
OWNER = "123456789012"


async def body() -> AsyncIterator[bytes]:
    yield b"data"


async def delete_many(origin: S3Origin) -> None:
    await S3Uploader(origin, HANG_S).delete_objects([KEY])


CALLS: dict[str, Callable[[S3Origin], Any]] = {
    "GET": lambda origin: origin.get(KEY, FromTo(0, 10)),
    "GET of a version": lambda origin: origin.get(KEY._replace(version="v1"), FromTo(0, 10)),
    "HEAD": lambda origin: origin.head(KEY),
    "PUT": lambda origin: S3Uploader(origin, HANG_S).put(KEY, body(), 4, WriteHead()),
    "begin": lambda origin: Multipart.begin(origin, KEY, {}),
    "part": lambda origin: Multipart.resumed(origin, KEY, "u").part(1, body, 4),
    "complete": lambda origin: Multipart.resumed(origin, KEY, "u").complete([PartSent(1, '"e"', 4)]),
    "abort": lambda origin: Multipart.resumed(origin, KEY, "u").abort(),
    "DELETE": lambda origin: origin.delete(KEY),
    "delete many": delete_many,
}


async def refuse(connection: RawConnection, head: Head) -> None:
    await connection.reader.readexactly(int(head.headers.get("content-length", "0")))
    text = b"" if head.method == "HEAD" else b"<Error><Code>InvalidObjectState</Code></Error>"
    await connection.send(response("403 Forbidden", text, Content_Type="application/xml"))


async def heads_of(call: Callable[[S3Origin], Any], **terms: Any) -> list[Head]:
    async with asyncio.timeout(HANG_S), RawServer(refuse) as server:
        keys = {"access_key_id": "any", "secret_access_key": "any"}
        settings = {"endpoint_url": server.endpoint_url, "credentials": keys, **terms}
        async with S3Origin(OriginSettings.model_validate(settings)) as origin:
            with suppress(OriginError):
                await call(origin)
        return server.heads


@each_row("name", CALLS)
async def test_terms_go_with_every_operation(name: str) -> None:
    """Reads, writes, parts and deletes have both fields, and both are signed."""
    heads = await heads_of(CALLS[name], request_payer=True, expected_bucket_owner=OWNER)
    assert heads
    for head in heads:
        assert head.headers["x-amz-request-payer"] == "requester"
        assert head.headers["x-amz-expected-bucket-owner"] == OWNER
        assert "x-amz-expected-bucket-owner;" in head.headers["authorization"]


@each_row("name", CALLS)
async def test_no_terms_by_default(name: str) -> None:
    """Without the settings no request has the fields, because some S3-alikes refuse what they do not know."""
    for head in await heads_of(CALLS[name]):
        assert not {"x-amz-request-payer", "x-amz-expected-bucket-owner"} & set(head.headers)
