"""Uploads in small parts to an S3 that fails: all of the body or nothing of it is stored, and nothing is left."""

import asyncio
import errno
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web
from behaviour import HONEST, Behaviour, OriginRequest, Script, honest
from interruption import Interruption
from proxy_under_test import BLOCK, pattern, until
from uploads_under_test import BODY, OLD, PART, PERCENTS, Setup, framed, running
from wire import connected, message

from bucketfront import retry
from bucketfront.cache.storage import file_storage
from bucketfront.s3.upload import multipart, parts
from bucketfront.server.application import Application

pytestmark = pytest.mark.long

MIB = 1 << 20


@pytest.fixture
async def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    async with running(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
async def full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    """Use parts of their real size."""
    async with running(tmp_path, monkeypatch, part_size=parts.PART_SIZE) as made:
        yield made


def is_step(asked: OriginRequest, step: str) -> bool:
    """Return whether a request is the step `create`, `part`, `part 15`, `complete`, `abort` or `put`."""
    method, _, target = asked.line.partition(" ")
    if step.startswith("part "):
        return target.endswith(f"partNumber={step.removeprefix('part ')}")
    if method == "PUT":
        return step == ("part" if "partNumber" in target else "put")
    if method == "POST":
        return step == ("complete" if "uploadId" in target else "create")
    return method == "DELETE" and step == "abort"


def once(step: str, behaviour: Behaviour, *, times: int = 1) -> Script:
    """Return a script in which the first `times` requests of a step get a fault."""
    left = times

    def script(asked: OriginRequest) -> Behaviour:
        nonlocal left
        if not left or not is_step(asked, step):
            return HONEST
        left -= 1
        return behaviour

    return script


CURED = {
    "503": Behaviour(status=503),
    "500 after the last byte": Behaviour(status=500),
    "503 before the body ends": Behaviour(status=503, early_at=PART // 2),
    "reset in the middle": Behaviour(cut_at=PART // 2, with_reset=True),
    "closed at its first byte": Behaviour(cut_at=1),
    "reset with no answer": Behaviour(cut_at=0, with_reset=True),
    "slow": Behaviour(trickle=(PART // 8, 0.01)),
    "late": Behaviour(pause=0.2),
    "not HTTP": Behaviour(garbage=b"SSH-2.0\r\n\r\n"),
    "no answer": Behaviour(stall_at=0),
}


@pytest.mark.parametrize("name", sorted(CURED.keys() - {"no answer"}))
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_part_that_fails_twice(setup: Setup, name: str, is_chunked: bool) -> None:
    """A part with any fault is sent again from the spool, and the object is the body (I8)."""
    setup.origin.script = once("part", CURED[name], times=2)
    assert (await setup.put(is_chunked=is_chunked)).status == 201
    assert setup.origin.stored("x") == BODY
    gets = setup.origin.counts["GET"]
    assert (await setup.request("GET")).body == BODY
    assert setup.origin.counts["GET"] == gets
    await setup.at_rest()


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_put_that_is_reset(full_size: Setup, is_chunked: bool) -> None:
    """A reset after any share of the body is a 502 after one attempt. Reads get the old version from S3 (I8, I9)."""
    setup = full_size
    for percent in PERCENTS:
        body, old = random.Random(percent).randbytes(MIB), setup.origin.stored("x")
        setup.origin.script = once("put", Behaviour(cut_at=len(body) * percent // 100, with_reset=True))
        assert (await setup.put(body, is_chunked=is_chunked)).status == 502
        assert setup.origin.counts["PUT"] == percent + 1
        await setup.is_whole(old if percent else body)  # `cut_at` 0 is the lost response
        await setup.at_rest()


@pytest.mark.parametrize("times", [1, multipart.PART_ATTEMPTS])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_part_that_is_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_chunked: bool, times: int
) -> None:
    """A reset after any share of the whole body is cured if the part succeeds in the end.

    Otherwise the client gets 502, and the version before stays (I5, I8, I12). The next read is a hit in either case.
    """
    monkeypatch.setattr(retry, "EARNED_TENTHS", retry.PRICE_TENTHS)  # each of so many uploads has its own retries
    is_cured = times < multipart.PART_ATTEMPTS
    async with running(tmp_path, monkeypatch, part_size=MIB) as setup:
        for percent in PERCENTS:
            body, old = random.Random(percent).randbytes(2 * MIB + BLOCK), setup.origin.stored("x")
            number, at = divmod(len(body) * percent // 100, MIB)
            reset = Behaviour(cut_at=at, with_reset=True)
            setup.origin.script = once(f"part {number + 1}", reset, times=times)
            await setup.is_whole(old)
            gets = setup.origin.counts["GET"]
            assert (await setup.put(body, is_chunked=is_chunked)).status == (201 if is_cured else 502)
            await setup.is_whole(body if is_cured else old)
            assert setup.origin.counts["GET"] == gets
            await setup.at_rest()


FATAL = [
    # step, behaviour, status, what is stored then
    ("create", Behaviour(status=403), 403, OLD),
    ("create", Behaviour(status=503), 503, OLD),
    ("part", Behaviour(status=403), 403, OLD),
    ("part", Behaviour(status=403, early_at=PART // 2), 403, OLD),
    ("part", Behaviour(status=503), 503, OLD),
    ("complete", Behaviour(status=400), 400, OLD),
    ("complete", Behaviour(status=500), 502, OLD),
]
LOST = [Behaviour(cut_at=0), Behaviour(cut_at=0, with_reset=True), Behaviour(garbage=b"SSH-2.0\r\n\r\n")]


@pytest.mark.parametrize("behaviour", LOST)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_lost_completion(setup: Setup, behaviour: Behaviour, is_chunked: bool) -> None:
    """If the response to the completion is lost, the object is found, and the client gets 201 (I5, I9)."""
    assert (await setup.request("GET")).body == OLD
    setup.origin.script = once("complete", behaviour)
    assert (await setup.put(is_chunked=is_chunked)).status == 201
    await setup.is_whole(BODY)
    await setup.at_rest()


@pytest.mark.parametrize(("step", "behaviour", "status", "stored"), FATAL)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_an_upload_that_fails(
    setup: Setup, step: str, behaviour: Behaviour, status: int, stored: bytes, is_chunked: bool
) -> None:
    """If retries do not help, the client gets the error, and the parts are gone. Reads return what S3 has (I8, I9)."""
    assert (await setup.request("GET")).body == OLD
    setup.origin.script = once(step, behaviour, times=100)
    assert (await setup.put(is_chunked=is_chunked)).status == status
    setup.origin.script = honest
    assert (await setup.request("GET")).body == setup.origin.stored("x") == stored
    await setup.at_rest()


async def test_a_refusal_ends_the_body(setup: Setup) -> None:
    """If S3 refuses a part the client gets the error at once, with most of its body unsent (I20)."""
    setup.origin.script = once("part", Behaviour(status=403))
    async with connected(setup.app.address) as client:
        await client.send(message("PUT", "/x", {"Content-Length": str(1 << 30)}) + pattern(PART + 1))
        assert (await client.response("PUT")).status == 403
    await setup.at_rest()
    assert setup.origin.stored("x") == OLD


async def test_a_failed_abort_is_repeated(setup: Setup) -> None:
    """An upload that could not be aborted is in the journal, and is aborted later (I8)."""

    def script(asked: OriginRequest) -> Behaviour:
        return Behaviour(status=403 if is_step(asked, "part") else 503) if asked.method != "POST" else HONEST

    setup.origin.script = script
    assert (await setup.put()).status == 403
    ((key, upload),) = setup.app.upload_journal.abandoned
    assert [*setup.origin.uploads.running] == [upload]
    assert key.key == "x"
    setup.origin.script = honest
    aborting = asyncio.create_task(setup.app.upload_journal.abort_abandoned(setup.app.origin))
    await until(lambda: not setup.app.upload_journal.abandoned)
    aborting.cancel()
    await asyncio.gather(aborting, return_exceptions=True)
    await setup.at_rest()


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_client_that_leaves(setup: Setup, is_chunked: bool) -> None:
    """If the client leaves at any byte, no part, file or slot is left, and the object is as it was (I8, I12)."""
    chance = random.Random(1)
    framing, whole = framed(BODY, is_chunked=is_chunked)
    for at in [0, 1, PART, PART + 1, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(15))]:
        async with connected(setup.app.address) as client:
            await client.send(message("PUT", "/x", framing) + whole[:at])
            if chance.random() < 0.5:
                await asyncio.sleep(0.01)
        await setup.at_rest()
        assert setup.origin.stored("x") == OLD


@pytest.mark.parametrize("size", [MIB, 2 * parts.PART_SIZE + MIB])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_client_that_is_reset(full_size: Setup, is_chunked: bool, size: int) -> None:
    """After a reset of the client at any share of the body the version before stays, unless all of the new one had
    come. Nothing is left of it, and reads return what S3 has (I5, I8, I9, I12).
    """
    setup = full_size
    for percent in PERCENTS:
        body, old = random.Random(percent).randbytes(size), setup.origin.stored("x")
        framing, whole = framed(body, is_chunked=is_chunked)
        async with connected(setup.app.address) as client:
            await client.send(message("PUT", "/x", framing) + whole[: len(whole) * percent // 100])
            await until(lambda: not client.unsent)
            client.abort()
        await setup.at_rest()
        await setup.is_whole(old, *[body] * (percent == 100))


@pytest.mark.parametrize("how", ["asleep", "woken"])
@pytest.mark.parametrize("size", [BLOCK, 3 * PART + 7])
async def test_cancelled_at_every_await(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, how: Literal["asleep", "woken"], size: int
) -> None:
    """After a cancellation at the k-th suspension, for each k, the object is the old or the new one, and readers get
    it. No part, slot, file, pin or task is left (I8, I12).
    """
    body = BODY[:size]
    answer = Application.__call__
    interruption, ended = Interruption(0, how), asyncio.Event()

    async def answered(self: Application, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "PUT":
            return await answer(self, request)
        try:
            response: web.StreamResponse = await interruption.around(answer(self, request))
            return response
        finally:
            ended.set()

    monkeypatch.setattr(Application, "__call__", answered)
    for at in range(1, 200):
        interruption = Interruption(at, how)
        ended.clear()
        setup.origin.store_bytes("x", OLD, {})
        async with connected(setup.app.address) as client:
            await client.send(message("PUT", "/x", body=body))
            await ended.wait()
        await setup.at_rest()
        await setup.is_whole(OLD, body)
        if not interruption.is_done:
            assert at > 5
            return
    raise AssertionError("more suspensions than that")


@pytest.mark.parametrize("room", [1 * PART, 3 * PART, 6 * PART])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_larger_than_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, is_chunked: bool
) -> None:
    """In any small space S3 gets the whole body, `max_size` holds at every part, and no file is left (I16, I17).

    With room for some parts, one that fails late is sent again from there.
    """
    body, limit, most = pattern(20 * PART + 99, 4), room + (200 << 10), 0  # beside the index
    fail_late = once("part 15", Behaviour(status=503)) if room > PART else honest
    async with running(tmp_path, monkeypatch, limit) as setup:

        def script(asked: OriginRequest) -> Behaviour:
            nonlocal most
            figures = setup.app.cache.statistics()
            taken = sum(file.stat().st_blocks * 512 for file in setup.files)
            assert taken <= figures.bytes_used
            most = max(most, figures.bytes_used + figures.index_bytes)
            # Slow enough for the body to be ahead of S3 by all the room that there is.
            return replace(fail_late(asked), pause=0.02)

        setup.origin.script = script
        assert (await setup.put(body, is_chunked=is_chunked)).status == 201
        assert setup.origin.stored("x") == body
        assert PART < most <= limit
        await setup.at_rest()
        assert setup.files == []


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [PART - 5, len(BODY)])
async def test_a_disk_that_fills_up(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, after: int, is_chunked: bool, size: int
) -> None:
    """After ENOSPC at any write the upload continues without the disk, and the cache has no part of it (I16)."""
    body, left, write = BODY[:size], after, file_storage._write

    def failing(*arguments: Any) -> list[int]:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "made up")
        return write(*arguments)

    monkeypatch.setattr(file_storage, "_write", failing)
    assert (await setup.put(body, is_chunked=is_chunked)).status == 201
    assert setup.origin.stored("x") == body
    await setup.at_rest()
    assert (await setup.request("GET")).body == body
    assert left < 0 or setup.files
