"""Requests whose signature the origin refuses: the credentials were rotated, or the clock is wrong."""

import asyncio
import time
from calendar import timegm
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.credentials import AioCredentials
from fakes import Head, RawConnection, RawServer, object_bytes, response
from stopwatch import HANG_S

from bucketfront.cache.origin import OriginResponse
from bucketfront.config.loader import load
from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.errors import AccessDenied, OriginError
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget
from bucketfront.s3 import credentials
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.single_call import send

pytestmark = pytest.mark.usefixtures("each_read_path")

KEY = ObjectKey("bucket", "o")
OLD, NEW = ("AKIDOLD", "old-secret-4711"), ("AKIDNEW", "new-secret-4712")
CONTENT = object_bytes(10)
ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'
PUT: tuple[str, str, dict[str, Any]] = ("PUT o", "put_object", {"Bucket": "bucket", "Key": "o"})
OTHER_REFUSALS = ("AccessDenied", "AllAccessDisabled", "InvalidObjectState")
REFUSALS = (
    (403, "InvalidAccessKeyId"),
    (403, "SignatureDoesNotMatch"),
    (400, "ExpiredToken"),
    (400, "InvalidToken"),
    (400, "TokenRefreshRequired"),
)

Judge = Callable[[Head], tuple[int, str] | None]  # the status and code of a refusal


class JudgingOrigin:
    """An origin that has one object. `judge` refuses requests, `skew` is by how much its clock is ahead."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.skew = 0.0
        self.date_skew = 0.0  # of the header Date beside that
        self.requests: list[tuple[str, int]] = []  # method and status

    async def script(self, connection: RawConnection, head: Head) -> None:
        if head.method == "PUT":
            await connection.reader.readexactly(int(head.headers["content-length"]))
        date = formatdate(time.time() + self.skew + self.date_skew, usegmt=True)
        refusal = self.judge(head)
        self.requests.append((head.method, refusal[0] if refusal else 200))
        if refusal is not None:
            status, code = refusal
            body = b"" if head.method == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
            await connection.send(response(f"{status} No", body, Date=date, Content_Type="application/xml"))
        elif head.method == "GET":
            body = CONTENT[:1] if head.headers["range"] == "bytes=0-0" else CONTENT
            span = f"bytes 0-{len(body) - 1}/10"
            await connection.send(response("206 Partial", body, ETag=ETAG, Content_Range=span, Date=date))
        else:
            await connection.send(response("200 OK", length=10 * (head.method == "HEAD"), ETag=ETAG, Date=date))

    def refuse_by_time(self, head: Head) -> tuple[int, str] | None:
        signed = timegm(time.strptime(head.headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))
        return (403, "RequestTimeTooSkewed") if abs(signed - time.time() - self.skew) > 15 * 60 else None


def signed_by(head: Head) -> str:
    return head.headers["authorization"].partition("Credential=")[2].partition("/")[0]


def accepting(key_id: str, refusal: tuple[int, str]) -> Judge:
    return lambda head: None if signed_by(head) == key_id else refusal


@asynccontextmanager
async def origin_of(judging: JudgingOrigin, given: object) -> AsyncIterator[S3Origin]:
    async with asyncio.timeout(HANG_S), RawServer(judging.script) as server:
        settings = OriginSettings.model_validate({"endpoint_url": server.endpoint_url, "credentials": given})
        async with S3Origin(settings) as origin:
            yield origin
            assert repr(origin.retries) == repr(RetryBudget())
            assert "0 failures" in repr(origin.breaker)


async def fetch(origin: S3Origin) -> bytes:
    answer = await origin.get(KEY, FromTo(0, 10))
    assert isinstance(answer, OriginResponse)
    data = await answer.body.read()
    answer.body.close()
    return bytes(data)


async def outcome(origin: S3Origin) -> bytes | OriginError:
    """Return what `fetch` returns or raises."""
    try:
        return await fetch(origin)
    except OriginError as error:
        return error


class Keys:
    """Two secret files, and the settings that name them."""

    def __init__(self, folder: Path) -> None:
        self.id, self.secret = folder / "id", folder / "secret"
        self.write(OLD)
        self.file = folder / "proxy.yaml"
        self.file.write_text(
            "mounts: [{path: /, bucket: b}]\norigin:\n  credentials:\n"
            f'    access_key_id: "file:{self.id}"\n    secret_access_key: "file:{self.secret}"\n'
        )

    def write(self, keys: tuple[str, str]) -> None:
        self.id.write_text(keys[0] + "\n")
        self.secret.write_text(keys[1] + "\n")

    def settings(self) -> Any:
        return load(self.file, {}).origin.credentials


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, str]], None]:
    """Return what writes the shared credentials file of the environment."""
    path = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def write(keys: tuple[str, str]) -> None:
        lines = f"aws_access_key_id = {keys[0]}\naws_secret_access_key = {keys[1]}\n"
        path.write_text(f"[default]\n{lines}[other]\n{lines}")

    write(OLD)
    return write


# --- credentials ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal[1])
async def test_rotated_secret_files(keys: Keys, refusal: tuple[int, str]) -> None:
    """I35: credentials that the origin refuses are read from their files again, and the request succeeds."""
    judging = JudgingOrigin(accepting(NEW[0], refusal))
    async with origin_of(judging, keys.settings()) as origin:
        keys.write(NEW)
        assert await outcome(origin) == CONTENT
        assert await outcome(origin) == CONTENT
    assert judging.requests == [("GET", refusal[0]), ("GET", 200), ("GET", 200)]


@pytest.mark.parametrize("status", [400, 403])
async def test_a_head_with_rotated_credentials(keys: Keys, status: int) -> None:
    """I35: a refusal of a HEAD has no code. The GET that has it loads the credentials, and the metadata."""
    judging = JudgingOrigin(accepting(NEW[0], (status, "ExpiredToken")))
    async with origin_of(judging, keys.settings()) as origin:
        keys.write(NEW)
        await origin.head(KEY)
    assert judging.requests == [("HEAD", status), ("GET", status), ("GET", 200)]


@pytest.mark.parametrize("given", ["default", {"profile": "other"}])
async def test_a_rotated_credentials_file(shared: Callable[[tuple[str, str]], None], given: object) -> None:
    """I35: the SDK's shared credentials file is read again, for the default profile and for a named one."""
    judging = JudgingOrigin(accepting(NEW[0], (400, "ExpiredToken")))
    async with origin_of(judging, given) as origin:
        shared(NEW)
        assert await fetch(origin) == CONTENT


async def test_many_refused_at_once(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """I35: requests that are refused together load the credentials once, and each is sent once more."""
    loads = []
    read = credentials._static

    def counted(settings: StaticCredentials) -> AioCredentials:
        loads.append(1)
        return read(settings)

    monkeypatch.setattr(credentials, "_static", counted)
    judging = JudgingOrigin(accepting(NEW[0], (403, "InvalidAccessKeyId")))
    async with origin_of(judging, keys.settings()) as origin:
        keys.write(NEW)
        assert await asyncio.gather(*(fetch(origin) for _ in range(20))) == [CONTENT] * 20
    assert len(loads) == 2  # the start's and this one
    assert len(judging.requests) <= 40


@pytest.mark.parametrize("code", [*(code for _, code in REFUSALS), *OTHER_REFUSALS])
async def test_credentials_that_did_not_change(keys: Keys, code: str) -> None:
    """I35: a request is not sent again if a load brings the same credentials, or if others would not help."""
    judging = JudgingOrigin(lambda _: (403, code))
    async with origin_of(judging, keys.settings()) as origin:
        for _ in range(3):
            with pytest.raises(OriginError):
                await origin.calls.make("GET", origin.client.get_object, {"Bucket": "b", "Key": "o"})
    assert len(judging.requests) == 3


async def test_a_request_is_sent_at_most_twice(keys: Keys) -> None:
    """I35: new credentials that the origin refuses as well end the request."""
    judging = JudgingOrigin(lambda _: (403, "InvalidAccessKeyId"))
    async with origin_of(judging, keys.settings()) as origin:
        keys.write(NEW)
        with pytest.raises(OriginError):
            await origin.calls.make("GET", origin.client.get_object, {"Bucket": "b", "Key": "o"})
    assert len(judging.requests) == 2


async def test_a_broken_source(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    """I31: a secret file that is gone leaves the credentials as they are. The log names the fault, and no secret."""
    judging = JudgingOrigin(accepting(NEW[0], (403, "InvalidAccessKeyId")))
    async with origin_of(judging, keys.settings()) as origin:
        keys.secret.unlink()
        with pytest.raises(OriginError):
            await origin.calls.make("GET", origin.client.get_object, {"Bucket": "b", "Key": "o"})
        judging.judge = lambda _: None
        assert await fetch(origin) == CONTENT
    assert "the credentials cannot be loaded" in caplog.text
    assert OLD[1] not in caplog.text


async def test_a_streamed_body_is_not_sent_again(keys: Keys) -> None:
    """I9: a write whose body is consumed is sent once. The next one has the new credentials."""
    judging = JudgingOrigin(accepting(NEW[0], (400, "ExpiredToken")))

    async def body() -> AsyncIterator[bytes]:
        yield CONTENT

    async with origin_of(judging, keys.settings()) as origin:
        keys.write(NEW)
        with pytest.raises(OriginError):
            await send(origin, *PUT, body, len(CONTENT), HANG_S, is_repeatable=False)
        await send(origin, *PUT, body, len(CONTENT), HANG_S, is_repeatable=False)
    assert judging.requests == [("PUT", 400), ("PUT", 200)]


async def test_a_body_that_can_begin_anew(keys: Keys) -> None:
    """I35: a refused write whose body waits in a file is sent again, with all of its bytes."""
    judging = JudgingOrigin(accepting(NEW[0], (400, "ExpiredToken")))
    sent = []

    async def body() -> AsyncIterator[bytes]:
        sent.append(CONTENT)
        yield CONTENT

    async with origin_of(judging, keys.settings()) as origin:
        keys.write(NEW)
        await send(origin, *PUT, body, len(CONTENT), HANG_S, is_repeatable=True)
    assert judging.requests == [("PUT", 400), ("PUT", 200)]
    assert sent == [CONTENT] * 2


# --- the clock -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-3600.0, 3600.0, 1e8])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_wrong_clock(skew: float, method: str, caplog: pytest.LogCaptureFixture) -> None:
    """I35: a request that is refused because of our clock gets the origin's time. A HEAD's 403 has no code."""
    judging = JudgingOrigin(lambda _: None)
    judging.skew, judging.judge = skew, judging.refuse_by_time
    async with origin_of(judging, {"access_key_id": OLD[0], "secret_access_key": OLD[1]}) as origin:
        for _ in range(3):
            if method == "GET":
                assert await fetch(origin) == CONTENT
            else:
                await origin.head(KEY)
        assert abs(origin.signing_clock.skew - skew) < 30
    assert [status for _, status in judging.requests] == [403, 200, 200, 200]
    assert ("behind" if skew > 0 else "ahead of") in caplog.text


async def test_an_origin_whose_clock_is_set_right() -> None:
    """I35: a correction is corrected in its turn."""
    judging = JudgingOrigin(lambda _: None)
    judging.skew, judging.judge = 3600, judging.refuse_by_time
    async with origin_of(judging, {"access_key_id": OLD[0], "secret_access_key": OLD[1]}) as origin:
        await fetch(origin)
        judging.skew = 0
        await fetch(origin)
        await fetch(origin)
        assert origin.signing_clock.skew == 0
    assert [status for _, status in judging.requests] == [403, 200, 403, 200, 200]


async def test_a_false_date() -> None:
    """I35: a Date by which the origin does not judge is not believed beyond one request."""
    judging = JudgingOrigin(lambda _: (403, "AccessDenied"))
    judging.date_skew = 1e8
    async with origin_of(judging, {"access_key_id": OLD[0], "secret_access_key": OLD[1]}) as origin:
        with pytest.raises(AccessDenied):
            await fetch(origin)
        assert origin.signing_clock.skew == 0
        judging.judge = judging.refuse_by_time
        assert await fetch(origin) == CONTENT
    assert [status for _, status in judging.requests] == [403, 403, 200]


async def test_a_denial_with_a_small_skew() -> None:
    """A refusal is not about the time if the clocks differ by less than S3 allows."""
    judging = JudgingOrigin(lambda _: (403, "AccessDenied"))
    judging.date_skew = 600
    async with origin_of(judging, {"access_key_id": OLD[0], "secret_access_key": OLD[1]}) as origin:
        with pytest.raises(AccessDenied):
            await fetch(origin)
    assert len(judging.requests) == 1


async def test_an_anonymous_origin() -> None:
    """Requests without credentials are not signed, and a refusal is final."""
    judging = JudgingOrigin(lambda _: (403, "InvalidAccessKeyId"))
    async with origin_of(judging, "anonymous") as origin:
        with pytest.raises(OriginError):
            await origin.calls.make("GET", origin.client.get_object, {"Bucket": "b", "Key": "o"})
    assert len(judging.requests) == 1
