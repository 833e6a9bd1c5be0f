"""The embedded origin: a real child process, tested over its socket."""

import asyncio
import logging
import os
import re
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError
from stopwatch import HANG_S
from yarl import URL

from bucketfront.errors import OriginTimeout, OriginUnavailable
from bucketfront.http import media_types
from bucketfront.s3.embedded import launcher
from bucketfront.s3.embedded.launcher import EmbeddedS3, read_seed

# The tests that leave the child running share one.
shared = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parent.parent
MEDIA = ROOT / "examples" / "media"
SAMPLE = (MEDIA / "sample.mp4").read_bytes()

KEYS = ("a//b", "/lead", "trail/", "a b+c", "ü", "a%2Fb", "../x", "a/./b", "q?x=1#y", "moto-api/data", "(a)'")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin() -> AsyncIterator[EmbeddedS3]:
    async with EmbeddedS3(["demo", "other"], MEDIA) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def s3(origin: EmbeddedS3) -> AsyncIterator[Any]:
    config = AioConfig(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"max_attempts": 0},
        read_timeout=HANG_S,
    )
    async with get_session().create_client(
        "s3",
        endpoint_url=origin.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=config,
    ) as client:
        yield client


def executable(folder: Path, script: str) -> str:
    """Write a stand-in for the Python interpreter. Return its path."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def open_descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def reaped(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def gone(pid: int) -> bool:
    """Return whether the process has ended, also if its new parent has not reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@shared
async def test_seeded_media_is_served_byte_for_byte(s3: Any) -> None:
    """Every file below the seed folder is an object in every bucket, with its bytes and its media type."""
    for bucket in ("demo", "other"):
        for key, body in read_seed(MEDIA):
            result = await s3.get_object(Bucket=bucket, Key=key)
            assert await result["Body"].read() == body, key
            assert result["ContentType"] == media_types.of(key)


@pytest.mark.parametrize(
    ("byte_range", "status", "span"),
    [
        ("bytes=0-", 206, (0, len(SAMPLE))),  # RFC 9110 section 14.1.2
        ("bytes=100-199", 206, (100, 200)),
        ("bytes=-5", 206, (len(SAMPLE) - 5, len(SAMPLE))),
        (f"bytes=100-{1 << 40}", 206, (100, len(SAMPLE))),
        (f"bytes={1 << 40}-", 416, None),  # section 15.5.17
    ],
)
@shared
async def test_ranges(s3: Any, byte_range: str, status: int, span: tuple[int, int] | None) -> None:
    """A ranged GET gets the requested bytes and the total, or 416."""
    if span is None:
        with pytest.raises(ClientError) as refused:
            await s3.get_object(Bucket="demo", Key="sample.mp4", Range=byte_range)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        return
    result = await s3.get_object(Bucket="demo", Key="sample.mp4", Range=byte_range)
    assert result["ResponseMetadata"]["HTTPStatusCode"] == status
    assert result["ContentRange"] == f"bytes {span[0]}-{span[1] - 1}/{len(SAMPLE)}"
    assert await result["Body"].read() == SAMPLE[slice(*span)]


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"IfMatch": '"another"'}, 412),  # RFC 9110 section 13.1.1: the origin can be held to a version
        ({"IfNoneMatch": "ETAG"}, 304),  # section 13.1.2
    ],
)
@shared
async def test_preconditions(s3: Any, condition: dict[str, str], status: int) -> None:
    """Preconditions hold on ranged GETs as well."""
    etag = (await s3.head_object(Bucket="demo", Key="sample.mp4"))["ETag"]
    held = {name: value.replace("ETAG", etag) for name, value in condition.items()}
    with pytest.raises(ClientError) as refused:
        await s3.get_object(Bucket="demo", Key="sample.mp4", Range="bytes=0-9", **held)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.parametrize("key", KEYS)
@shared
async def test_keys_are_taken_literally(s3: Any, key: str) -> None:
    """I23: an object is stored under exactly its key, and slashes are not merged."""

    async def listed() -> set[str]:
        return {item["Key"] for item in (await s3.list_objects_v2(Bucket="demo"))["Contents"]}

    before = await listed()
    await s3.put_object(Bucket="demo", Key=key, Body=key.encode())
    result = await s3.get_object(Bucket="demo", Key=key)
    assert await result["Body"].read() == key.encode()
    assert await listed() == before | {key}
    await s3.delete_object(Bucket="demo", Key=key)
    assert await listed() == before


@shared
@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
async def test_a_form_body_is_stored_as_sent(s3: Any, media_type: str) -> None:
    """An object is stored as it was sent, for any type: curl sends every body as a form."""
    await s3.put_object(Bucket="other", Key="form", Body=b"a=b&c", ContentType=media_type)
    result = await s3.get_object(Bucket="other", Key="form")
    async with result["Body"] as body:
        assert (result["ContentType"], await body.read()) == (media_type, b"a=b&c")


@shared
async def test_absence_has_a_code(s3: Any) -> None:
    """An absent key and an absent bucket get a 404, each with S3's own code."""
    for bucket, code in (("demo", "NoSuchKey"), ("absent", "NoSuchBucket")):
        with pytest.raises(ClientError) as refused:
            await s3.get_object(Bucket=bucket, Key="nothing")
        assert refused.value.response["Error"]["Code"] == code


@shared
async def test_chunked_and_expecting_uploads(origin: EmbeddedS3) -> None:
    """A chunked upload and one with `Expect: 100-continue` are stored whole.

    RFC 9112 section 7.1, RFC 9110 section 10.1.1.
    """

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"abc", b"d" * 70_000, b"e"):
            yield piece

    whole = b"abc" + b"d" * 70_000 + b"e"
    signed = {"Authorization": "any"}
    async with aiohttp.ClientSession(origin.endpoint_url, headers=signed) as http:
        for path, body, expect in (("/demo/chunked", pieces(), False), ("/demo/expect", whole, True)):
            async with http.put(path, data=body, expect100=expect) as result:
                assert result.status == 200
            async with http.get(path) as result:
                assert await result.read() == whole


@shared
async def test_no_header_is_sent_twice(origin: EmbeddedS3) -> None:
    """No response has a header twice, because strict clients refuse two `Server` or `Date` headers."""
    for path in ("/demo", "/demo/sample.mp4", "/demo/absent"):
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(origin.endpoint_url).port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: any\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        writer.close()
        await writer.wait_closed()
        names = re.findall(r"^([\w-]+):", head, re.MULTILINE)
        assert "date" in names
        assert len(names) == len(set(names)), head


@shared
async def test_one_continue(origin: EmbeddedS3) -> None:
    """`Expect: 100-continue` gets one interim response before the final one (RFC 9110 section 10.1.1)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(origin.endpoint_url).port)
    head = "Host: x\r\nAuthorization: any\r\nContent-Length: 3\r\nExpect: 100-continue"
    writer.write(f"PUT /demo/expected HTTP/1.1\r\n{head}\r\n\r\n".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abc")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()


async def test_seeded_names_are_taken_literally(tmp_path: Path) -> None:
    """I23: the name of a seeded file is its key, whatever it means in a URL."""
    names = ("a b+c.ts", "a%2Fb", "q?x=1#y", "ü")
    for name in names:
        (tmp_path / name).write_text(name)
    async with (
        EmbeddedS3(["demo"], tmp_path) as origin,
        aiohttp.ClientSession(headers={"Authorization": "any"}) as http,
    ):
        for name in names:
            async with http.get(URL(f"{origin.endpoint_url}/demo/{quote(name)}", encoded=True)) as result:
                assert await result.text() == name
                assert result.content_type == ("video/mp2t" if name.endswith(".ts") else "application/octet-stream")


async def test_absent_seed_folder(tmp_path: Path) -> None:
    """An absent seed folder fails the start, and does not make an empty origin."""
    with pytest.raises(OriginUnavailable, match="absent is no folder to seed from"):
        await EmbeddedS3(["demo"], tmp_path / "absent").start()


async def test_requests_are_not_logged() -> None:
    """The child prints nothing for a request with any response, nor for a Ctrl-C.

    A terminal sends SIGINT to the whole process group, and only the parent ends the origin.
    """
    async with EmbeddedS3(["demo"], MEDIA) as quiet:
        os.kill(quiet.pid, signal.SIGINT)
        async with aiohttp.ClientSession(quiet.endpoint_url, headers={"Authorization": "any"}) as http:
            for path, status in (("/demo/sample.mp4", 200), ("/demo/absent", 404), ("/absent/x", 404)):
                async with http.get(path) as result:
                    assert result.status == status
    assert quiet._stderr == b""  # read to its end by the stop


async def test_stop_leaves_nothing() -> None:
    """I12: after `stop` the child is reaped, and descriptors and tasks are back at the baseline."""
    before = open_descriptors(), len(asyncio.all_tasks())
    origin = EmbeddedS3(["demo"])
    await origin.start()
    pid = origin.pid
    async with asyncio.timeout(HANG_S):
        await origin.stop()
    await origin.stop()  # harmless
    assert reaped(pid)
    assert (open_descriptors(), len(asyncio.all_tasks())) == before
    with pytest.raises(RuntimeError, match="not running"):
        _ = origin.endpoint_url


async def test_stop_kills_a_child_that_ignores_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that ignores the end of stdin and SIGTERM is killed."""
    deaf = "import signal, time; signal.signal(15, 1); print(1, flush=True); time.sleep(60)"
    monkeypatch.setattr(sys, "executable", executable(tmp_path, f"exec {sys.executable} -c '{deaf}'"))
    monkeypatch.setattr(launcher, "STOP_STEP_S", 0.2)
    origin = EmbeddedS3()
    await origin.start()
    pid = origin.pid
    await origin.stop()
    assert reaped(pid)


async def test_child_dies_with_a_killed_parent() -> None:
    """I14: `kill -9` of the parent ends the child as well."""
    script = textwrap.dedent("""
        import asyncio
        from bucketfront.s3.embedded.launcher import EmbeddedS3

        async def main():
            async with EmbeddedS3(["demo"]) as origin:
                print(origin.pid, flush=True)
                await asyncio.Event().wait()

        asyncio.run(main())
    """)
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "proxy")},
    )
    assert parent.stdout is not None
    async with asyncio.timeout(HANG_S):
        child = int(await parent.stdout.readline())
        ended = asyncio.Event()
        watch = os.pidfd_open(child)  # readable once the process has ended
        asyncio.get_running_loop().add_reader(watch, ended.set)
        try:
            assert not gone(child)
            parent.kill()
            await parent.wait()
            await ended.wait()
        finally:
            asyncio.get_running_loop().remove_reader(watch)
            os.close(watch)
    assert gone(child)


async def test_missing_moto_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without site-packages there is no moto, and the error names the package to install."""
    bare = executable(tmp_path, f'exec {sys.executable} -S -E "$@"')
    monkeypatch.setattr(sys, "executable", bare)
    origin = EmbeddedS3(["demo"])
    cure = re.escape("pip install 'bucketfront[demo]' (ModuleNotFoundError: No module named 'moto'")
    with pytest.raises(OriginUnavailable, match=cure):
        await origin.start()
    assert repr(origin) == "<EmbeddedS3 stopped>"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo first >&2; echo last >&2; exit 3", "status 3 before it listened: first | last"),
        ("exit 4", "status 4 before it listened: it wrote nothing"),
        ("echo nonsense", "status 0 before it listened"),
    ],
)
async def test_the_error_of_a_child_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    """If a child ends before it listens, the error has its status and its last lines."""
    monkeypatch.setattr(sys, "executable", executable(tmp_path, script))
    with pytest.raises(OriginUnavailable, match=re.escape(message)):
        await EmbeddedS3().start()


async def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """An absent interpreter is an unavailable origin."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OriginUnavailable, match="could not be started"):
        await EmbeddedS3().start()


async def test_start_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I20: a child that never listens fails the start within the deadline, and is ended."""
    monkeypatch.setattr(sys, "executable", executable(tmp_path, "exec cat"))
    monkeypatch.setattr(launcher, "START_TIMEOUT_S", 0.2)
    with pytest.raises(OriginTimeout, match=re.escape("within 0.2 s")):
        await EmbeddedS3().start()


async def test_a_chatty_child_never_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """I19: a megabyte on stderr is read, and the last 4 KiB of it are kept."""
    script = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo end >&2; echo 1; exec cat"
    monkeypatch.setattr(sys, "executable", executable(tmp_path, script))
    caplog.set_level(logging.INFO)
    async with EmbeddedS3() as origin:
        pass
    assert len(origin._stderr) == 4096
    assert origin._stderr.endswith(b"xend\n")


def test_seed_lists_visible_files_in_key_order(tmp_path: Path) -> None:
    """Keys are relative paths with '/', sorted. Hidden files and folders are left out."""
    for name in ("b.txt", "a/z.mp4", "a/b/c.ts", ".hidden", ".git/config", "a/.DS_Store"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert read_seed(tmp_path) == [(key, key.encode()) for key in ("a/b/c.ts", "a/z.mp4", "b.txt")]
