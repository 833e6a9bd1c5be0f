"""The end of a multipart upload: repeated, and proven by a HEAD if the response does not tell (I9)."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fakes import RawServer, object_bytes, response
from multipart_server import RESET, SILENCE, MultipartServer, error, etag_of, etag_of_parts
from rows import each_row

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import (
    AccessDenied,
    ErrorResponse,
    NoSuchUpload,
    OriginError,
    OriginServerError,
    OriginThrottled,
    OriginTimeout,
    OriginUnavailable,
    PreconditionFailed,
)
from bucketfront.http import write_head
from bucketfront.http.delete_objects import Deleted
from bucketfront.http.write_head import WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget
from bucketfront.s3 import pace
from bucketfront.s3.client import S3Origin
from bucketfront.s3.delete import delete_objects
from bucketfront.s3.upload import multipart
from bucketfront.s3.upload.multipart import COMPLETION_ATTEMPTS, Multipart, PartSent
from bucketfront.s3.upload.params import create_params
from bucketfront.s3.upload.repetition import ATTEMPTS

KEY = ObjectKey("bucket", "folder/o")
PARTS = [object_bytes(1000, 1), object_bytes(700, 2)]
WHOLE = b"".join(PARTS)
ETAG = etag_of_parts(PARTS)
TYPED = write_head.parse([("content-type", "text/plain"), ("x-amz-meta-a", "b")])
ONCE = write_head.parse([("if-none-match", "*")])
LONG_AGO = "Wed, 01 Jan 2025 00:00:00 GMT"


def result(text: str) -> bytes:
    document = f"<CompleteMultipartUploadResult>{text}</CompleteMultipartUploadResult>"
    return response("200 OK", document.encode(), Content_Type="application/xml")


FAILURES = {
    "500": error("500 Internal Server Error", "InternalError"),
    "503": error("503 Service Unavailable", "ServiceUnavailable"),
    "slow down": error("503 Slow Down", "SlowDown"),
    "200 with an error": error("200 OK", "InternalError"),
    "200 with SlowDown": error("200 OK", "SlowDown"),
    "200 with spaces and an error": response("200 OK", b"  \n  <Error><Code>InternalError</Code></Error>"),
    "200 with spaces before the XML declaration": error("200 OK", "InternalError", before=" \r\n "),
    "200 with HTML": response("200 OK", b"<html>ok</html>", Content_Type="text/html"),
    "200 with text": response("200 OK", b"please log in"),
    "200 cut short": result("<ETag>&quot;abc")[:-40],
    "200 with truncated XML": response("200 OK", b"<CompleteMultipartUploadResult><ETag>&quot;m"),
    "502 of a proxy": response("502 Bad Gateway", b"<html>bad gateway</html>", Content_Type="text/html"),
    "reset": RESET,
}
EMPTY = {
    "empty ETag": result("<ETag></ETag>"),
    "quoted empty ETag": result("<ETag>&quot;&quot;</ETag>"),
    "no ETag": result("<Key>o</Key>"),
    "no body": response("200 OK"),
    "spaces": response("200 OK", b"   "),
}
FAILURES["200 cut short"] = FAILURES["200 cut short"].replace(b"Content-Length", b"Connection: close\r\nX-Length")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    monkeypatch.setattr(pace, "MIN_RATE", 1000.0)


@asynccontextmanager
async def origin_of(server: MultipartServer) -> AsyncIterator[S3Origin]:
    async with RawServer(server) as raw:
        settings = {
            "endpoint_url": raw.endpoint_url,
            "connect_timeout": "5s",
            "read_timeout": "5s",
            "credentials": {"access_key_id": "any", "secret_access_key": "any"},
            "max_connections": 1,  # a slot that is not returned blocks the next call
        }
        async with S3Origin(OriginSettings.model_validate(settings)) as origin:
            yield origin


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def begun(origin: S3Origin, head: WriteHead = WriteHead()) -> tuple[Multipart, list[PartSent]]:  # noqa: B008
    upload = await Multipart.begin(origin, KEY, create_params(head))
    sent = [await upload.part(number, lambda part=part: one(part), len(part)) for number, part in enumerate(PARTS, 1)]  # type: ignore[misc]
    return upload, sent


async def test_the_version_is_that_of_the_response() -> None:
    """A bucket with versions names the new one, and another names none."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin)
        document = f"<CompleteMultipartUploadResult><ETag>{ETAG}</ETag></CompleteMultipartUploadResult>"
        server.answer("complete", response("200 OK", document.encode(), x_amz_version_id="v7"), undone=0)
        assert (await upload.complete(parts)).version == "v7"
        upload, parts = await begun(origin)
        assert (await upload.complete(parts)).version is None


@each_row("failure", FAILURES.values(), ids=FAILURES)
@each_row("is_made", [False, True])
async def test_a_failure_is_cured(failure: bytes, is_made: bool) -> None:
    """A completion that fails twice is sent again. If it had made the object, that is found out (I8, I9)."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin)
        server.answer("complete", failure, failure, undone=0 if is_made else 2)
        assert (await upload.complete(parts)).etag == ETAG
    assert server.objects[KEY.key][0] == WHOLE
    assert server.steps.count("complete") <= 3


@each_row("answer", EMPTY.values(), ids=EMPTY)
async def test_a_success_without_an_etag(answer: bytes) -> None:
    """A 200 without an ETag, as Ceph RGW 16 sends it, is a success once a HEAD shows the object (I9)."""
    server = MultipartServer()
    server.answer("complete", answer)
    async with origin_of(server) as origin:
        upload, parts = await begun(origin)
        assert (await upload.complete(parts)).etag == ETAG
    assert server.steps.count("complete") == (2 if answer == EMPTY["spaces"] else 1)  # to the SDK it is no XML
    assert server.steps[-1] == "head"


@each_row("answer", EMPTY.values(), ids=EMPTY)
async def test_a_success_that_is_none(answer: bytes) -> None:
    """A 200 without an ETag and without the object is no success, whatever was there before (I9)."""
    server = MultipartServer()
    server.store(KEY.key, WHOLE[:-1] + b"?")
    server.objects[KEY.key][2]["Last-Modified"] = LONG_AGO
    server.answer("complete", *[answer] * 9, undone=9)
    async with origin_of(server) as origin:
        upload, parts = await begun(origin)
        with pytest.raises(OriginUnavailable):
            await upload.complete(parts)
    assert server.steps.count("complete") == COMPLETION_ATTEMPTS


OPAQUE = '"any-opaque-tag"'


@each_row(
    ("etag", "size", "dated", "is_proven"),
    [
        (OPAQUE, len(WHOLE), None, True),
        (OPAQUE, len(WHOLE), LONG_AGO, False),
        (OPAQUE, len(WHOLE) - 1, None, False),
        (etag_of(WHOLE), len(WHOLE), None, True),
        (etag_of_parts([WHOLE]), len(WHOLE), None, False),
        (ETAG, len(WHOLE), LONG_AGO, True),
        (ETAG, len(WHOLE) - 1, None, False),
    ],
)
async def test_what_proves_an_accepted_upload(etag: str, size: int, dated: str | None, is_proven: bool) -> None:
    """An upload that S3 no longer knows made the object of its ETag, or a new one of its size without such an ETag."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin)
        server.uploads.clear()
        server.dated = dated
        server.store(KEY.key, WHOLE[:size], etag)
        if is_proven:
            assert (await upload.complete(parts)).etag == etag
        else:
            with pytest.raises(NoSuchUpload):
                await upload.complete(parts)


@each_row(
    ("head", "stored", "dated", "is_proven"),
    [
        (WriteHead(), {}, LONG_AGO, True),  # what the client wants is there
        (TYPED, {"content-type": "text/plain", "x-amz-meta-a": "b"}, LONG_AGO, True),
        (TYPED, {}, LONG_AGO, False),
        (WriteHead(), {"x-amz-meta-a": "b"}, LONG_AGO, False),
        (TYPED, {}, None, True),
        (ONCE, {}, LONG_AGO, False),
        (ONCE, {}, None, True),
    ],
)
async def test_the_same_bytes_of_an_older_write(
    head: WriteHead, stored: dict[str, str], dated: str | None, is_proven: bool
) -> None:
    """If no attempt has a result, an object with the same bytes proves the write only if no older write made it."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin, head)
        server.dated = dated
        server.store(KEY.key, WHOLE, ETAG, stored)
        server.answer("complete", *[FAILURES["500"]] * COMPLETION_ATTEMPTS, undone=COMPLETION_ATTEMPTS)
        if is_proven:
            assert (await upload.complete(parts, head)).etag == ETAG
        else:
            with pytest.raises(OriginUnavailable):
                await upload.complete(parts, head)
    assert server.steps[-1] == "head"
    assert server.steps.count("complete") == COMPLETION_ATTEMPTS


@pytest.mark.parametrize("is_ours", [True, False])
async def test_a_condition_that_our_own_object_breaks(is_ours: bool) -> None:
    """After a lost response S3 sends 412, because the object exists. It is a success only if it is ours (I9)."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin, ONCE)
        server.store(KEY.key, WHOLE if is_ours else WHOLE[::-1], ETAG if is_ours else None)
        server.answer("complete", RESET, undone=1)
        if is_ours:
            assert (await upload.complete(parts, ONCE)).etag == ETAG
        else:
            with pytest.raises(PreconditionFailed):
                await upload.complete(parts, ONCE)


async def test_a_condition_that_is_false() -> None:
    """A 412 to the first attempt counts, also if the object has the same bytes."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin, ONCE)
        server.store(KEY.key, WHOLE, ETAG)
        with pytest.raises(PreconditionFailed):
            await upload.complete(parts, ONCE)
    assert server.steps.count("complete") == 1


async def test_a_final_refusal_is_not_repeated() -> None:
    """I9: a 403 is final."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin)
        server.answer("complete", error("403 Forbidden", "AccessDenied"), undone=1)
        with pytest.raises(AccessDenied):
            await upload.complete(parts)
    assert server.steps == ["create", "part", "part", "complete"]


@pytest.mark.parametrize("is_made", [True, False])
async def test_a_timeout(is_made: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """I9, I20: a completion without a response is not repeated, and a HEAD shows whether it made the object."""
    monkeypatch.setattr(multipart, "COMPLETION_TIMEOUT_S", 1.0)  # by then the request has arrived
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin)
        server.answer("complete", SILENCE, undone=0 if is_made else 1)
        if is_made:
            assert (await upload.complete(parts)).etag == ETAG
        else:
            with pytest.raises(OriginTimeout):
                await upload.complete(parts)
    assert server.steps.count("complete") == 1


async def test_the_retry_budget_pays() -> None:
    """Attempts beside the first cost tokens of the retry budget. Without one there is one attempt, and a HEAD."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin)
        origin.retries = RetryBudget(0)
        server.answer("complete", *[FAILURES["500"]] * 9, undone=9)
        with pytest.raises(OriginUnavailable):
            await upload.complete(parts)
    assert server.steps[3:] == ["complete", "head", "get"]


@each_row("failure", [name for name in FAILURES if name != "200 cut short"])
async def test_creation_is_repeated(failure: str) -> None:
    """I8: CreateMultipartUpload is sent again after a failure of the origin."""
    server = MultipartServer()
    server.answer("create", *[FAILURES[failure]] * (ATTEMPTS - 1))
    async with origin_of(server) as origin:
        await Multipart.begin(origin, KEY, {})
        server.answer("create", *[FAILURES[failure]] * ATTEMPTS)
        with pytest.raises(OriginUnavailable):
            await Multipart.begin(origin, KEY, {})
    assert server.steps == ["create"] * 2 * ATTEMPTS


@pytest.mark.parametrize(("code", "kind"), [("InternalError", OriginServerError), ("SlowDown", OriginThrottled)])
async def test_an_error_inside_a_200(code: str, kind: type[OriginError]) -> None:
    """Its code decides what it is, and the status that it reports is the one that was sent."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, parts = await begun(origin)
        server.answer("complete", *[error("200 OK", code)] * COMPLETION_ATTEMPTS, undone=COMPLETION_ATTEMPTS)
        with pytest.raises(kind, match=f"answered 200 with the error {code}") as raised:
            await upload.complete(parts)
    assert raised.value.response == ErrorResponse(200, code, "R1")


@each_row("failure", ["500", "503", "slow down", "reset"])
async def test_an_abort_is_repeated(failure: str) -> None:
    """I8: AbortMultipartUpload is sent again after a failure of the origin, and it is over if S3 forgot the upload."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        upload, _ = await begun(origin)
        server.answer("abort", *[FAILURES[failure]] * (ATTEMPTS - 1))
        await upload.abort()
    assert server.uploads == {}


@each_row("failure", ["500", "slow down", "200 with an error", "200 with HTML", "reset"])
async def test_a_deletion_is_repeated(failure: str) -> None:
    """DeleteObjects is sent again after a failure of the origin."""
    server = MultipartServer()
    server.store("a", b"x")
    async with origin_of(server) as origin:
        server.answer("delete many", *[FAILURES[failure]] * (ATTEMPTS - 1), undone=ATTEMPTS - 1)
        assert await delete_objects(origin, [ObjectKey("bucket", "a")]) == {ObjectKey("bucket", "a"): Deleted()}
    assert server.objects == {}


@each_row(("code", "is_final"), [("InternalError", False), ("SlowDown", False), ("AccessDenied", True)])
async def test_keys_that_could_not_be_deleted_at_the_moment(code: str, is_final: bool) -> None:
    """DeleteObjects is sent again for the keys that S3 did not delete because of a failure that does not last."""
    server = MultipartServer()
    keys = [ObjectKey("bucket", name) for name in ("a", "b", "c")]
    partly = (
        f"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>{code}</Code></Error></DeleteResult>"
    )
    async with origin_of(server) as origin:
        server.answer("delete many", response("200 OK", partly.encode()), undone=1)
        outcomes = await delete_objects(origin, keys)
    assert [outcomes[key] == Deleted() for key in keys] == [True, not is_final, True]
    assert server.steps == ["delete many"] * 2
