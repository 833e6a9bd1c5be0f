"""S3 over aiobotocore: ranged read, head and delete. Uploads are in `s3/upload/`.

Everything that has a default in the SDK and matters is set here (I30). There is one layer of retries, here, for
the head of an answer; a body that was cut is continued by the cache, which knows what is missing. Reads ask the
breaker first and tell it what became of them; writes are tried whatever it says. What is asked twice, here or there,
is paid from one budget.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.utils import parse_timestamp

from bucketfront import __version__
from bucketfront.cache import NotModified, OriginResponse
from bucketfront.config.origin_settings import OriginSettings, ProfileCredentials, StaticCredentials
from bucketfront.errors import (
    OriginBusy,
    OriginCircuitOpen,
    OriginError,
    OriginServerError,
    OriginTimeout,
    OriginUnavailable,
    RangeUnsatisfiable,
)
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget, backoff
from bucketfront.s3 import responses
from bucketfront.s3.body import S3Body
from bucketfront.s3.breaker import Breaker
from bucketfront.s3.connection_slots import ConnectionSlots
from bucketfront.s3.error_translation import VersionUnchanged, translated
from bucketfront.s3.transport import StrictHTTPSession
from bucketfront.s3.upload.upload_slots import UploadSlots

T = TypeVar("T")

ATTEMPTS = 3
RETRY_PAUSE_S = (
    0.1  # at most before the second attempt, doubled for the third: short beside S3's 0.1 to 0.2 s for a head
)


class S3Origin:
    """One endpoint, one set of credentials, a bounded number of connections.

    `endpoint_url` overrides the settings' own: the embedded S3 knows its port only once it runs.
    """

    def __init__(
        self, settings: OriginSettings, endpoint_url: str | None = None, breaker: Breaker | None = None
    ) -> None:
        self.breaker = breaker or Breaker(time.monotonic, random.random)
        self.retries = RetryBudget()  # of all who ask again: the heads here, the bytes in the cache
        self._settings = settings
        self._endpoint_url = endpoint_url or settings.endpoint_url
        self._deadline = settings.connect_timeout + settings.read_timeout
        self._slots = ConnectionSlots(settings.max_connections)
        self.upload_slots = UploadSlots(self._slots, settings.max_connections)
        self.drips = 0  # bodies that were ended because they came too slowly
        self.parts = 0  # of uploads, that S3 took
        self.parts_retried = 0
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._background: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        # Resolving the credential chain may read files; it has to work before the first request does.
        with translated("start"):
            self._client = await self._stack.enter_async_context(self._create_client())
        self._client.meta.events.register("before-call.s3", _before_call)
        for operation in ("GetObject", "HeadObject"):
            self._client.meta.events.register(f"before-call.s3.{operation}", _ask_for_checksum)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
        await self._stack.aclose()

    def _create_client(self) -> Any:
        settings = self._settings
        session = AioSession()
        keys: dict[str, str] = {}
        signature: Any = "s3v4"
        match settings.credentials:
            case StaticCredentials() as static:
                keys["aws_access_key_id"] = static.access_key_id.get_secret_value()
                keys["aws_secret_access_key"] = static.secret_access_key.get_secret_value()
                if static.session_token is not None:
                    keys["aws_session_token"] = static.session_token.get_secret_value()
            case ProfileCredentials(profile=profile):
                session = AioSession(profile=profile)
            case "anonymous":
                signature = UNSIGNED
            case "default":
                pass
        # A fifth of what botocore does for a GET is to read Last-Modified and to build its own User-Agent again.
        session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
        return session.create_client(
            "s3",
            endpoint_url=self._endpoint_url,
            region_name=settings.region,
            config=AioConfig(
                http_session_cls=StrictHTTPSession,
                signature_version=signature,
                connect_timeout=settings.connect_timeout,
                read_timeout=settings.read_timeout,
                max_pool_connections=settings.max_connections,
                retries={"total_max_attempts": 1, "mode": "standard"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                parameter_validation=True,
                user_agent=f"bucketfront/{__version__}",
                s3={"addressing_style": settings.addressing_style, "payload_signing_enabled": False},
            ),
            **keys,
        )

    async def get(
        self,
        key: ObjectKey,
        part: FromTo | Suffix,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OriginResponse | NotModified:
        """S3 GetObject, see `bucketfront.cache.Origin.get`."""
        what = f"GET {key}"
        asked = _params(key, Range=_range_header(part), IfMatch=if_match, IfNoneMatch=if_none_match)

        async def attempt() -> OriginResponse:
            response = await self.call(what, self._client.get_object, asked)
            body = S3Body(response["Body"], what, self._settings.read_timeout)
            try:
                head = response["ResponseMetadata"]
                span, size = responses.span_sent(head["HTTPStatusCode"], head["HTTPHeaders"], part)
                metadata = responses.metadata(head["HTTPHeaders"], size, key.version, is_whole=span.length == size)
                if not size:  # moto and others answer 200 or 206 to some ranges of an empty object
                    raise RangeUnsatisfiable(f"{what}: the object is empty")
                responses.same_version(metadata, if_match)
            except OriginError:
                body.close()
                raise
            body.expect(span.length)
            return OriginResponse(metadata, span.start, span.stop, body)

        self.breaker.check()
        async with _Held(self, key) as slot:
            try:
                answer = await self._retried(what, key, attempt)
            except VersionUnchanged as unchanged:
                return responses.not_modified(unchanged.headers, key.version)
            assert isinstance(answer.body, S3Body)
            answer.body.on_close = slot.keep()
            answer.body.on_drip = lambda error: self._dripped(key, error)
            return answer

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:
        """S3 HeadObject, see `bucketfront.cache.Origin.head`."""

        async def attempt() -> Metadata:
            response = await self.call(f"HEAD {key}", self._client.head_object, _params(key, IfNoneMatch=if_none_match))
            headers = response["ResponseMetadata"]["HTTPHeaders"]
            return responses.metadata(headers, responses.content_length(headers), key.version, is_whole=True)

        self.breaker.check()
        async with _Held(self, key):
            try:
                return await self._retried(f"HEAD {key}", key, attempt)
            except VersionUnchanged as unchanged:
                return responses.not_modified(unchanged.headers, key.version)

    async def delete(self, key: ObjectKey) -> None:
        """S3 DeleteObject; the absence of the object is no error there. Raises AccessDenied, OriginUnavailable."""
        assert key.version is None, "a version of the past is never deleted"
        async with self.connection():
            await self.call(f"DELETE {key}", self._client.delete_object, _params(key))

    async def create_bucket(self, bucket: str) -> None:
        """S3 CreateBucket, unless HeadBucket says that it is there."""
        try:
            await self.probe(bucket)
        except OriginError:
            where = {"LocationConstraint": self._settings.region}
            params: dict[str, Any] = {"Bucket": bucket}
            if self._endpoint_url is None and self._settings.region != "us-east-1":
                params["CreateBucketConfiguration"] = where
            await self.call(f"CREATE {bucket}", self._client.create_bucket, params)

    async def probe(self, bucket: str) -> None:
        """S3 HeadBucket. Raises ObjectNotFound, AccessDenied, OriginUnavailable."""
        await self.call(f"HEAD {bucket}", self._client.head_bucket, {"Bucket": bucket})

    async def call(
        self,
        what: str,
        operation: Callable[..., Awaitable[Any]],
        params: dict[str, Any],
        *,
        deadline: float | None = None,
    ) -> Any:
        """One S3 call up to the head of its answer, within `deadline` seconds, or connect_timeout + read_timeout."""
        with translated(what, is_versioned="VersionId" in params):
            async with asyncio.timeout(deadline or self._deadline):
                return await operation(**params)

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """What has to be told to S3 though nobody waits for it. It ends before the client is closed."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def connection(self) -> "_Held":
        """A context in which one of `max_connections` is held, on behalf of no object that is read. Entered, raises
        OriginBusy.
        """
        return _Held(self, None)

    @property
    def client(self) -> Any:
        """Aiobotocore's client, for `s3/` alone."""
        return self._client

    async def _retried(self, what: str, key: ObjectKey, attempt: Callable[[], Awaitable[T]]) -> T:
        """All attempts together have one deadline. Those after the first are paid for, by all requests together."""
        self.retries.earn()
        until = asyncio.get_running_loop().time() + self._deadline
        for number in range(1, ATTEMPTS + 1):
            try:
                with self.breaker.attempt(key), translated(what):
                    # Within the attempt: a deadline around it would look like a client that leaves.
                    async with asyncio.timeout_at(until):
                        return await attempt()
            except OriginCircuitOpen:
                raise
            except OriginUnavailable:
                pause = backoff(RETRY_PAUSE_S, number, random.random())  # noqa: S311 - jitter, no secret
                if number == ATTEMPTS or asyncio.get_running_loop().time() + pause >= until or not self.retries.spend():
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _dripped(self, key: ObjectKey, error: OriginTimeout) -> None:
        """The head was good, so the breaker heard of a success. What it hears of now is this key's fault alone, as a
        5xx would be: one sick object must not shut out all others.
        """
        self.drips += 1
        if not self.breaker.is_open:
            with suppress(OriginCircuitOpen):  # as many attempts run as it may be given: they will tell
                self.breaker.failed(self.breaker.admit(), key, OriginServerError(str(error)))

    @property
    def free_slots(self) -> int:
        return self._slots.free

    async def take_slot(self, key: ObjectKey | None = None) -> None:
        """Wait for one of `max_connections`, to read `key`. Return it with the same key.

        Raises OriginBusy when none came free within the deadline.
        """
        try:
            async with asyncio.timeout(self._deadline):
                await self._slots.take(key)
        except TimeoutError:
            raise OriginBusy(
                f"no origin connection came free within {self._deadline:g} s; see origin.max_connections"
            ) from None

    def return_slot(self, key: ObjectKey | None = None) -> None:
        self._slots.give_back(key)


class _Held:
    """A connection's slot: returned at the end of the block, unless a body keeps it."""

    def __init__(self, origin: S3Origin, key: ObjectKey | None) -> None:
        self._origin = origin
        self._key = key
        self._kept = False

    async def __aenter__(self) -> Self:
        await self._origin.take_slot(self._key)
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._kept:
            self._give_back()

    def keep(self) -> Callable[[], None]:
        self._kept = True
        return self._give_back

    def _give_back(self) -> None:
        self._origin.return_slot(self._key)


def _timestamp(value: Any) -> datetime:
    """Botocore's own takes any form of a date, and 0.1 ms; S3's headers have one of RFC 9110 section 5.6.7.

    The credentials that the session asks for have other forms, numbers among them.
    """
    if isinstance(value, str) and value.endswith(" GMT"):
        with suppress(ValueError):
            return parsedate_to_datetime(value)
    found: datetime = parse_timestamp(value)
    return found


def _before_call(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    # botocore adds it to every streamed body, and aiohttp waits for the 100 without limit.
    params["headers"].pop("Expect", None)
    # Makes botocore's region redirector stand aside: connections go to the configured endpoint only (I29).
    context.setdefault("s3_redirect", {})["redirected"] = True


def _ask_for_checksum(params: dict[str, Any], **_: Any) -> None:
    # Not by the parameter: with that botocore would compare it itself, and puts a slower stream around each body.
    params["headers"]["x-amz-checksum-mode"] = "ENABLED"


def _params(key: ObjectKey, **optional: str | None) -> dict[str, Any]:
    given = {name: value for name, value in optional.items() if value is not None}
    if key.version is not None:
        given["VersionId"] = key.version
    return {"Bucket": key.bucket, "Key": key.key, **given}


def _range_header(part: FromTo | Suffix) -> str:
    if isinstance(part, Suffix):
        return f"bytes=-{part.length}"
    return f"bytes={part.start}-" if part.stop is None else f"bytes={part.start}-{part.stop - 1}"
