"""S3 over aiobotocore: ranged reads, HEAD and DELETE. Uploads are in `s3/upload/`, defaults of the SDK in `sdk_client`.

Retries of reads exist in one layer, here, and cover a request up to the head of its response. The cache continues a
body that broke off, because it knows which bytes are missing. Both pay for repeated requests from one budget.

Reads pass the circuit breaker and report their outcome to it. Writes are tried in any state of the breaker.
"""

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from bucketfront.cache import NotModified, OriginResponse, boottime
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import (
    AccessDenied,
    AmbiguousPart,
    InvalidOriginResponse,
    NoSuchBucket,
    ObjectChanged,
    ObjectNotFound,
    OriginCircuitOpen,
    OriginError,
    OriginRefused,
    OriginServerError,
    OriginThrottled,
    OriginTimeout,
    OriginUnavailable,
    RangeUnsatisfiable,
)
from bucketfront.http import ranges
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.http.response_fields import ResponseFields
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget, backoff
from bucketfront.s3 import responses
from bucketfront.s3.accepted_codings import AcceptedCodings
from bucketfront.s3.body import S3Body
from bucketfront.s3.breaker import Breaker
from bucketfront.s3.connection_slots import ConnectionSlots, HeldSlot
from bucketfront.s3.credentials import credentials_of
from bucketfront.s3.endpoint import DEFAULT_REGION, S3Endpoint
from bucketfront.s3.error_translation import Unexplained, VersionUnchanged, translated
from bucketfront.s3.failures import OriginFailures
from bucketfront.s3.pace import Pace
from bucketfront.s3.sdk_client import SdkClient
from bucketfront.s3.signature import Signature
from bucketfront.s3.signing_clock import SigningClock
from bucketfront.s3.transport import accept_encoding
from bucketfront.s3.upload.upload_slots import UploadSlots
from bucketfront.s3.upload.verdicts import Verdicts
from bucketfront.task_set import TaskSet
from bucketfront.troubles import Troubles

T = TypeVar("T")

log = logging.getLogger(__name__)

READ_ATTEMPTS = 3  # of one read: a failure of one in a hundred requests becomes one in a million
SEEN_S = 10.0  # for which a response shows that the bucket exists: as long as a 404 is remembered by default
MAX_SKIPPED_BYTES = 256 << 20  # before the requested bytes of an origin without ranges: seconds on a fast network
RETRY_PAUSE_S = 0.1  # at most before the second attempt, doubled for the third: S3 takes as long for a head

# S3 sends these only for a bucket that exists.
_FACTS = (ObjectNotFound, ObjectChanged, RangeUnsatisfiable, AccessDenied)


class S3Origin:
    """A client of one endpoint, with one set of credentials and a bounded number of connections.

    `endpoint_url` overrides that of the settings, because the embedded S3 knows its port only once it runs. An async
    context manager: it closes once all work in the background has ended.
    """

    def __init__(
        self,
        settings: OriginSettings,
        endpoint_url: str | None = None,
        breaker: Breaker | None = None,
        codings: AcceptedCodings | None = None,
        troubles: Troubles | None = None,
    ) -> None:
        self.breaker = breaker or Breaker(time.monotonic, random.random)
        self.failures = OriginFailures(troubles or Troubles(time.monotonic, log.info), time.monotonic)
        self.retries = RetryBudget()  # for heads here, and for bytes in the cache
        self._settings = settings
        self._codings = codings or AcceptedCodings(settings.accept_encoding)
        self._call_timeout = settings.connect_timeout + settings.read_timeout
        self._slots = ConnectionSlots(settings.max_connections)
        self.upload_slots = UploadSlots(self._slots, settings.max_connections)
        self.paces: defaultdict[str, Pace] = defaultdict(lambda: Pace(time.monotonic))  # by bucket
        self._seen_at: dict[str, float] = {}  # by bucket: when a response last showed that it exists
        self._has_bare_etags = False  # the latest response with bytes had an ETag without quotes
        self.slow_bodies = 0  # bodies that were ended because they came too slowly
        self.parts = 0  # parts of uploads that S3 accepted
        self.parts_retried = 0
        self.signing_clock = SigningClock(time.time, boottime)
        self.credentials = credentials_of(settings.credentials, time.monotonic)
        self._signature = Signature(self.credentials, self.signing_clock)
        self._sdk = SdkClient(settings, endpoint_url or settings.endpoint_url, self.credentials, self._signature)
        self._client: Any = None
        self.endpoint: S3Endpoint  # once it has started
        self.background = TaskSet()  # for requests that S3 must get although no client waits; they end before it closes
        self.verdicts = Verdicts(time.monotonic, self.background)

    async def __aenter__(self) -> Self:
        await self._sdk.__aenter__()
        self._client, self.endpoint = self._sdk.client, self._sdk.endpoint
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.background.wait()
        await self._sdk.__aexit__(kind, error, trace)

    async def get(
        self,
        key: ObjectKey,
        part: FromTo | Suffix,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OriginResponse | NotModified:
        """Call S3 GetObject, see `bucketfront.cache.Origin.get`."""
        what = f"GET {key}"

        async def attempt() -> OriginResponse:
            try:
                return await self._get_once(what, key, part, if_match, if_none_match)
            except AmbiguousPart:
                response = await self._get_once(what, key, None, if_match, if_none_match)
                return _cut(what, response, part)

        self.breaker.check()
        await self.wait_for_turn(key.bucket)
        async with HeldSlot(self._slots, key, self._call_timeout) as connection:
            try:
                response = await self._with_retries(what, "GetObject", key, attempt)
            except VersionUnchanged as unchanged:
                return responses.not_modified(unchanged.headers, if_none_match, key.version)
            assert isinstance(response.body, S3Body)
            response.body.on_close = connection.keep()
            response.body.on_slow = lambda error: self._body_was_slow(key, error)
            response.body.on_failure = lambda error: self.failures.failed("GetObject", key.bucket, error)
            return response

    async def _get_once(
        self,
        what: str,
        key: ObjectKey,
        part: FromTo | Suffix | None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OriginResponse:
        # The ETag of the response is compared in any case.
        condition = None if self._has_bare_etags else if_match
        header = None if part is None else ranges.field_value(part)
        params = _params(key, Range=header, IfMatch=condition, IfNoneMatch=if_none_match)
        response = await self._read(what, self._client.get_object, key, params)
        body = S3Body(response["Body"], what, self._settings.read_timeout)
        status, fields = response["ResponseMetadata"]["HTTPStatusCode"], response["ResponseMetadata"]["HTTPHeaders"]
        try:
            self._has_bare_etags = responses.has_bare_etag(fields)
            measured = await body.measure() if status == 200 and responses.is_chunked(fields) else None
            span, size = responses.span_sent(status, fields, part or FromTo(0), measured)
            metadata = responses.metadata(fields, size, key.version, is_whole=span.length == size)
            if not size:  # moto and others send 200 or 206 for some ranges of an empty object
                raise RangeUnsatisfiable(f"{what}: the object is empty")  # noqa: TRY301 - the body is closed below
            responses.check_version(metadata, if_match)
        except BaseException:
            body.close()
            raise
        body.expect(span.length, is_framed=not responses.is_chunked(fields))
        return OriginResponse(metadata, span.start, span.stop, body, status)

    async def _read(
        self, what: str, operation: Callable[..., Awaitable[Any]], key: ObjectKey, params: dict[str, Any]
    ) -> Any:
        """Run a call that reads `key`, with the Accept-Encoding of that key."""
        token = accept_encoding.set(self._codings.of(key))
        try:
            return await self._send(what, operation, params)
        finally:
            accept_encoding.reset(token)

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:
        """Call S3 HeadObject, see `bucketfront.cache.Origin.head`."""

        async def attempt() -> Metadata:
            params = _params(key, IfNoneMatch=if_none_match)
            try:
                response = await self._read(f"HEAD {key}", self._client.head_object, key, params)
            except Unexplained as refusal:
                if refusal.absence is not None and self._is_known_to_exist(key.bucket):
                    raise refusal.absence from refusal
                signature = self._signature.changes
                await self._explain(key)
                if self._signature.changes == signature:
                    raise
                # The GET was refused for its signature, and passed with a new one.
                response = await self._read(f"HEAD {key}", self._client.head_object, key, params)
            head = response["ResponseMetadata"]
            size = responses.size_sent(head["HTTPStatusCode"], head["HTTPHeaders"])
            if size is None:
                return await self._metadata_by_get(key, head["HTTPHeaders"])
            return responses.metadata(head["HTTPHeaders"], size, key.version, is_whole=True)

        self.breaker.check()
        await self.wait_for_turn(key.bucket)
        async with HeldSlot(self._slots, key, self._call_timeout):
            try:
                return await self._with_retries(f"HEAD {key}", "HeadObject", key, attempt)
            except VersionUnchanged as unchanged:
                return responses.not_modified(unchanged.headers, if_none_match, key.version)

    async def _metadata_by_get(self, key: ObjectKey, of_head: ResponseFields) -> Metadata:
        """Return the metadata that the GET of one byte has, for a HEAD whose response has no size."""
        try:
            with self.observed("GetObject", key.bucket):
                try:
                    response = await self._get_once(f"GET {key}", key, FromTo(0, 1))
                except AmbiguousPart:
                    response = await self._get_once(f"GET {key}", key, None)
        except RangeUnsatisfiable:
            return responses.metadata(of_head, 0, key.version, is_whole=True)
        try:
            await response.body.read()  # so that the connection can be used again
        finally:
            response.body.close()
        return response.metadata

    async def _explain(self, key: ObjectKey) -> None:
        """Raise what a GET raises whose response has S3's code, for a HEAD that S3 refused without a body.

        Returns if S3 sends the object, so that the response to HEAD was not S3's, or an empty one
        (docs/invariants.md#errors-are-not-data).
        """
        what = f"GET {key}"
        with suppress(RangeUnsatisfiable):
            params = _params(key, Range=ranges.field_value(FromTo(0, 1)))
            with self.observed("GetObject", key.bucket):
                response = await self._read(what, self._client.get_object, key, params)
            S3Body(response["Body"], what, self._settings.read_timeout).close()

    async def delete(self, key: ObjectKey) -> None:
        """Call S3 DeleteObject. It succeeds also if the object is absent. Raises AccessDenied, OriginUnavailable."""
        assert key.version is None, "a past version is never deleted"
        async with self.connection(key.bucket):
            await self.call(f"DELETE {key}", self._client.delete_object, _params(key))

    async def create_bucket(self, bucket: str) -> None:
        """Call S3 CreateBucket if HeadBucket does not find the bucket. Raises OriginErrors."""
        try:
            await self.probe(bucket)
        except AccessDenied:
            return  # it exists, and only its list is denied
        except NoSuchBucket:
            where = {"LocationConstraint": self.endpoint.region}
            params: dict[str, Any] = {"Bucket": bucket}
            if not self.endpoint.is_custom and self.endpoint.region != DEFAULT_REGION:
                params["CreateBucketConfiguration"] = where
            await self.call(f"CREATE {bucket}", self._client.create_bucket, params)

    async def probe(self, bucket: str) -> None:
        """Call S3 HeadBucket. Raises NoSuchBucket, AccessDenied, OriginUnavailable."""
        try:
            await self.call(f"HEAD {bucket}", self._client.head_bucket, {"Bucket": bucket})
        except Unexplained as refusal:
            if refusal.absence is not None:
                raise refusal.absence from refusal
            # The permission that HeadBucket needs is the one to list.
            await self.call(f"LIST {bucket}", self._client.list_objects_v2, {"Bucket": bucket, "MaxKeys": 1})
            raise

    async def call(
        self,
        what: str,
        operation: Callable[..., Awaitable[Any]],
        params: dict[str, Any],
        *,
        call_timeout: float | None = None,
    ) -> Any:
        """Run one S3 call up to the head of its response. `what` names it in messages.

        `call_timeout` is in seconds. Its default is connect_timeout + read_timeout.
        """
        with self.observed(self._client.meta.method_to_api_mapping[operation.__name__], params["Bucket"]):
            return await self._send(what, operation, params, call_timeout)

    async def _send(
        self,
        what: str,
        operation: Callable[..., Awaitable[Any]],
        params: dict[str, Any],
        call_timeout: float | None = None,
    ) -> Any:
        with translated(what, params):
            async with asyncio.timeout(call_timeout or self._call_timeout):
                return await operation(**params)

    @contextmanager
    def observed(self, operation: str, bucket: str) -> Iterator[None]:
        """Run one request for `bucket`, and learn from its response what holds for the bucket.

        `operation` is the name of S3's API.
        """
        try:
            yield
        except OriginError as error:
            if isinstance(error, OriginThrottled):
                self.paces[bucket].throttled()
            elif isinstance(error, OriginRefused):
                self._seen_at.pop(bucket, None)
            elif isinstance(error, _FACTS):
                self._seen_at[bucket] = time.monotonic()
            self.failures.failed(operation, bucket, error)
            raise
        except VersionUnchanged:
            self._worked(operation, bucket)
            raise
        self._worked(operation, bucket)

    def _worked(self, operation: str, bucket: str) -> None:
        self._seen_at[bucket] = time.monotonic()
        self.failures.succeeded(operation, bucket)

    async def wait_for_turn(self, bucket: str) -> None:
        """Wait until the bucket's pace allows a request. Raises OriginThrottled if that is too late."""
        if wait := self.paces[bucket].take_turn():
            await asyncio.sleep(wait)

    def _is_known_to_exist(self, bucket: str) -> bool:
        """Return whether a recent response has shown that the bucket exists."""
        seen_at = self._seen_at.get(bucket)
        return seen_at is not None and time.monotonic() - seen_at < SEEN_S

    @asynccontextmanager
    async def connection(self, bucket: str) -> AsyncIterator[None]:
        """Hold one of `max_connections` inside the block, for a call that reads no object of `bucket`.

        Raises OriginBusy if no connection comes free within the deadline, and OriginThrottled as `wait_for_turn`.
        """
        await self.wait_for_turn(bucket)
        async with HeldSlot(self._slots, None, self._call_timeout):
            yield

    @property
    def client(self) -> Any:
        """Return aiobotocore's client, for modules of `s3/` only."""
        return self._client

    async def _with_retries(self, what: str, operation: str, key: ObjectKey, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run `attempt` up to READ_ATTEMPTS times within one deadline. The retry budget pays for all but the first."""
        self.retries.earn()
        until = asyncio.get_running_loop().time() + self._call_timeout
        for number in range(1, READ_ATTEMPTS + 1):
            try:
                with self.breaker.attempt(key), self.observed(operation, key.bucket), translated(what):
                    # The timeout is inside the attempt. Around it, the breaker would see a cancelled request.
                    async with asyncio.timeout_at(until):
                        return await attempt()
            except OriginUnavailable as error:
                now, pause = asyncio.get_running_loop().time(), backoff(RETRY_PAUSE_S, number, random.random())  # noqa: S311 - jitter, no secret
                is_last = error.is_final or number == READ_ATTEMPTS
                if is_last or now + pause >= until or not self.retries.spend():
                    raise
                pause = max(pause, self.paces[key.bucket].take_turn())
                if now + pause >= until:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _body_was_slow(self, key: ObjectKey, error: OriginTimeout) -> None:
        """Count a body that came too slowly, and report it to the breaker like a 5xx for `key`.

        The head was valid, so the breaker has counted a success. A 5xx for one key alone does not open it, because one
        sick object must not make all others unavailable.
        """
        self.slow_bodies += 1
        if not self.breaker.is_open:
            with suppress(OriginCircuitOpen):  # the attempts that use up the bound will report for themselves
                self.breaker.failed(self.breaker.admit(), key, OriginServerError(str(error)))

    @property
    def free_slots(self) -> int:
        """Return how many of `max_connections` are not in use."""
        return self._slots.free


def _params(key: ObjectKey, **optional: str | None) -> dict[str, Any]:
    given = {name: value for name, value in optional.items() if value is not None}
    if key.version is not None:
        given["VersionId"] = key.version
    return {"Bucket": key.bucket, "Key": key.key, **given}


def _cut(what: str, response: OriginResponse, part: FromTo | Suffix) -> OriginResponse:
    """Return the response with this part of its body, which has the whole object.

    Raises RangeUnsatisfiable, and InvalidOriginResponse if too many bytes come before the part.
    """
    span = part.within(response.metadata.size)
    if span is None or span.start > MAX_SKIPPED_BYTES:
        response.body.close()
        if span is None:
            raise RangeUnsatisfiable(f"{what}: the object has {response.metadata.size} bytes")
        raise InvalidOriginResponse(f"{what}: the origin sends no ranges, and {span.start} bytes come before this one")
    assert isinstance(response.body, S3Body)
    response.body.cut(span)
    return OriginResponse(response.metadata, span.start, span.stop, response.body)
