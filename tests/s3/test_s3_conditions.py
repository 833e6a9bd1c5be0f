"""Conditions of writes are sent only to a bucket that was found to keep them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fakes import FakeClock, RawServer, object_bytes, response
from multipart_server import MultipartServer, error
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import (
    AccessDenied,
    ObjectNotFound,
    OriginError,
    OriginTimeout,
    OriginUnavailable,
    PreconditionFailed,
    WriteConflict,
)
from bucketfront.http import write_head
from bucketfront.http.write_head import NoSuchWrite, WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload import parts
from bucketfront.s3.upload.conditions import PROBE_NAME, keeps_conditions
from bucketfront.s3.upload.uploader import S3Uploader
from bucketfront.s3.upload.verdicts import FALSE_S, TRUE_S, Verdicts
from bucketfront.task_set import TaskSet

KEY = ObjectKey("bucket", "folder/o")
SMALL, LARGE = object_bytes(1000), object_bytes(3000)
ONCE = write_head.parse([("if-none-match", "*")])
SAME = write_head.parse([("if-match", '"other"')])


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_SIZE", 2000)
    monkeypatch.setattr(parts, "MAX_BUFFER_BYTES", 2000)


@asynccontextmanager
async def origin_of(server: MultipartServer, patience: str = "20s") -> AsyncIterator[S3Origin]:
    async with RawServer(server) as raw:
        settings = {
            "endpoint_url": raw.endpoint_url,
            "connect_timeout": patience,
            "read_timeout": patience,
            "credentials": {"access_key_id": "any", "secret_access_key": "any"},
        }
        async with S3Origin(OriginSettings.model_validate(settings)) as origin:
            yield origin


async def write(origin: S3Origin, body: bytes, head: WriteHead, key: ObjectKey = KEY) -> str:
    async def chunks() -> AsyncIterator[bytes]:
        yield body

    return (await S3Uploader(origin, 5.0).put(key, chunks(), None, head)).etag


FIELDS = {"if-match": SAME, "if-none-match": ONCE}


@each_row("body", [SMALL, LARGE], ids=["small", "large"])
@each_row("field", FIELDS)
@each_row("is_ignored", [True, False])
@each_row("is_there", [True, False])
async def test_a_condition_is_kept_or_refused(body: bytes, field: str, is_ignored: bool, is_there: bool) -> None:
    """A server that ignores the condition gets no such write, and one that keeps it decides. No probe is left (I8)."""
    server = MultipartServer()
    if is_there:
        server.store(KEY.key, b"old")
    if is_ignored:
        server.ignored = {("put", field), ("complete", field)}
    before = dict(server.objects)
    async with origin_of(server) as origin:
        if is_ignored:
            with pytest.raises(NoSuchWrite):
                await write(origin, body, FIELDS[field])
        elif is_there or field == "if-match":
            with pytest.raises((PreconditionFailed, ObjectNotFound)):
                await write(origin, body, FIELDS[field])
        else:
            await write(origin, body, FIELDS[field])
            before = {KEY.key: (body, *server.objects[KEY.key][1:])}
        assert server.objects == before
        assert server.uploads == {}


@pytest.mark.parametrize("field", FIELDS)
async def test_a_completion_is_asked_by_itself(field: str) -> None:
    """Some servers keep conditions of PutObject alone. A large write on a condition is refused there."""
    server = MultipartServer()
    server.ignored = {("complete", field)}
    async with origin_of(server) as origin:
        with pytest.raises(NoSuchWrite):
            await write(origin, LARGE, FIELDS[field])
        if field == "if-none-match":
            await write(origin, SMALL, ONCE)
            with pytest.raises(PreconditionFailed):
                await write(origin, SMALL, ONCE)
        assert not await keeps_conditions(origin, "bucket", "folder/")
    assert set(server.objects) <= {KEY.key}
    assert server.uploads == {}


async def test_each_condition_is_asked_by_itself() -> None:
    """Some servers keep one of the two conditions. Writes on that one are taken."""
    server = MultipartServer()
    server.ignored = {("put", "if-match"), ("complete", "if-match")}
    async with origin_of(server) as origin:
        await write(origin, LARGE, ONCE)
        with pytest.raises(NoSuchWrite):
            await write(origin, SMALL, SAME)
    assert server.objects.keys() == {KEY.key}


async def test_the_verdict_is_remembered() -> None:
    """A bucket is asked once, also by writes that run at once, and a write without a condition asks nothing."""
    server = MultipartServer()
    async with origin_of(server) as origin:
        await write(origin, SMALL, WriteHead())
        assert server.steps == ["put"]
        keys = [ObjectKey("bucket", f"o{number}") for number in range(5)]
        await asyncio.gather(*(write(origin, SMALL, ONCE, key) for key in keys))
        assert server.steps.count("put") == 1 + 2 + 5
        assert server.steps.count("delete") == 1
        assert await keeps_conditions(origin, "bucket", "")
        asked = len(server.steps)
        assert await keeps_conditions(origin, "bucket", "")
        assert len(server.steps) == asked


@each_row(
    ("answer", "raised"),
    [
        (error("503 Slow Down", "SlowDown"), OriginUnavailable),
        (error("500 Internal Server Error", "InternalError"), OriginUnavailable),
        (error("404 Not Found", "NoSuchBucket"), OriginUnavailable),
        (error("403 Forbidden", "AccessDenied"), AccessDenied),
        (response("200 OK", b"<html>log in</html>", Content_Type="text/html"), OriginUnavailable),
        (b"nonsense\r\n\r\n", OriginUnavailable),
        (b"reset", OriginUnavailable),
        (b"", OriginTimeout),
    ],
)
@each_row("field", FIELDS)
async def test_an_origin_that_fails_decides_nothing(answer: bytes, raised: type[OriginError], field: str) -> None:
    """If the probe fails, the client gets that error, nothing is written, and the next write asks again."""
    server = MultipartServer()
    server.store(KEY.key, b"old", '"other"')
    server.answer("put", answer, undone=1)
    async with asyncio.timeout(HANG_S), origin_of(server, "20s" if answer else "500ms") as origin:
        with pytest.raises(raised):
            await write(origin, SMALL, FIELDS[field])
        assert server.objects[KEY.key][0] == b"old"
        if raised is AccessDenied or b"SlowDown" in answer:
            return
        if field == "if-match":
            await write(origin, SMALL, SAME)
        else:
            with pytest.raises(PreconditionFailed):
                await write(origin, SMALL, ONCE)


async def test_a_server_that_refuses_the_condition_as_such() -> None:
    """A server that sends 501 or 400 for the condition itself does not offer it."""
    for status, code in (("501 Not Implemented", "NotImplemented"), ("400 Bad Request", "InvalidArgument")):
        server = MultipartServer()
        server.answer("put", error(status, code), undone=1)
        async with origin_of(server) as origin:
            with pytest.raises(NoSuchWrite):
                await write(origin, SMALL, SAME)


PAGE_412 = response("412 Precondition Failed", b"<html>no</html>", Content_Type="text/html")
CONFLICT = error("409 Conflict", "ConditionalRequestConflict")


@each_row("body", [SMALL, LARGE], ids=["small", "large"])
@each_row(
    ("answer", "raised"),
    [
        (CONFLICT, WriteConflict),
        (error("409 Conflict", "OperationAborted"), WriteConflict),
        (error("404 Not Found", "NoSuchKey"), OriginUnavailable),
        (error("412 Precondition Failed", "Other"), OriginUnavailable),
        (PAGE_412, OriginUnavailable),
    ],
)
@each_row("number", [1, 2])
async def test_one_refusal_does_not_prove_a_condition(
    body: bytes, answer: bytes, raised: type[Exception], number: int
) -> None:
    """A server that ignores If-None-Match and refuses one write of the probe by chance never overwrites (I8)."""
    server = MultipartServer()
    server.store(KEY.key, b"old")
    step = "put" if body is SMALL else "complete"
    server.ignored = {(step, "if-none-match")}
    server.answer(step, *[None] * (number - 1), answer)
    async with origin_of(server) as origin:
        with pytest.raises(raised):
            await write(origin, body, ONCE)
        with pytest.raises(NoSuchWrite):
            await write(origin, body, ONCE)
    assert server.objects[KEY.key][0] == b"old"
    assert server.uploads == {}


@each_row("answer", [CONFLICT, PAGE_412, error("404 Not Found", "NoSuchUpload")])
@each_row("step", ["put", "create", "part", "complete"])
async def test_only_a_code_for_a_false_condition_proves_if_match(answer: bytes, step: str) -> None:
    """A conflict, a page, or a refusal of another step leaves open whether If-Match is kept, so nothing is written."""
    server = MultipartServer()
    server.store(KEY.key, b"old")
    server.ignored = {("complete", "if-match")}
    server.answer(step, answer, undone=1)
    async with origin_of(server) as origin:
        with pytest.raises((WriteConflict, OriginUnavailable)):
            await write(origin, LARGE, SAME)
        with pytest.raises(NoSuchWrite):
            await write(origin, LARGE, SAME)
    assert server.objects[KEY.key][0] == b"old"
    assert server.uploads == {}


async def test_a_server_that_refuses_each_condition() -> None:
    """A server that refuses a true If-None-Match does not offer it, also if it sends the code of a false one."""
    server = MultipartServer()
    server.answer("put", error("412 Precondition Failed", "PreconditionFailed"), undone=1)
    async with origin_of(server) as origin:
        with pytest.raises(NoSuchWrite):
            await write(origin, SMALL, ONCE)
    assert server.objects == {}


async def test_a_probe_that_cannot_be_deleted() -> None:
    """Without the permission to delete, the verdict counts all the same, and one empty object is left."""
    server = MultipartServer()
    server.answer("delete", error("403 Forbidden", "AccessDenied"), undone=1)
    async with origin_of(server) as origin:
        await write(origin, SMALL, ONCE)
    (probe,) = server.objects.keys() - {KEY.key}
    assert probe.startswith(f"folder/{PROBE_NAME}")
    assert server.objects[probe][0] == b""


@each_row("name", ["o", "a/b/c/o", f"{'x' * 1000}/o", f"{'ü' * 300}/{'ü' * 190}/o", "/o", "//o", "a/"])
async def test_the_probe_is_beside_the_key(name: str) -> None:
    """The probe's key is in the folder of the client's, or in one above if the key would be too long."""
    server = MultipartServer()
    server.ignored = {("put", "if-match")}
    server.answer("delete", error("403 Forbidden", "AccessDenied"), undone=1)
    async with origin_of(server) as origin:
        with pytest.raises(NoSuchWrite):
            await write(origin, SMALL, SAME, ObjectKey("bucket", name))
    (probe,) = server.objects
    folder = probe.partition(PROBE_NAME)[0]
    assert name.startswith(folder)
    assert len(probe.encode()) <= 1024
    if len(name) < 100:
        assert folder == name[: name.rfind("/") + 1]


async def test_verdicts_expire() -> None:
    """A verdict is asked again after its time: soon if something did not hold, and later if it did."""
    clock, results = FakeClock(), [False, True, False]

    async def find_out() -> bool:
        return results.pop(0)

    verdicts = Verdicts(clock, TaskSet())
    for found, lasts in ((False, FALSE_S), (True, TRUE_S), (False, FALSE_S)):
        assert await verdicts.of(("a",), find_out) is found
        clock.advance(lasts - 1)
        assert await verdicts.of(("a",), find_out) is found
        clock.advance(1)
    assert results == []


async def test_a_cancelled_write_does_not_end_the_probe() -> None:
    """I12: others wait for the same probe, so it goes on without the client that began it."""
    go_on, runs = asyncio.Event(), []

    async def find_out() -> bool:
        runs.append(1)
        await go_on.wait()
        return True

    tasks = TaskSet()
    verdicts = Verdicts(FakeClock(), tasks)
    first = asyncio.create_task(verdicts.of(("a",), find_out))
    await asyncio.sleep(0)
    second = asyncio.create_task(verdicts.of(("a",), find_out))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert await second
    assert runs == [1]
    assert not len(tasks)
