"""S3 as the cache's origin: reads with retries, and deletes. Uploads are in `s3/upload/`.

Retries of reads exist in one layer, here, and cover a request up to the head of its response. The cache continues a
body that broke off, because it knows which bytes are missing. Both pay for repeated requests from one budget.

Reads pass the circuit breaker and report their outcome to it. Writes are tried in any state of the breaker.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from bucketfront.cache import NotModified, OriginResponse, boottime
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import (
    AccessDenied,
    NoSuchBucket,
    ObjectNotFound,
    OriginCircuitOpen,
    OriginError,
    OriginServerError,
    OriginTimeout,
    OriginUnavailable,
)
from bucketfront.fair_share import FairShares, Resource, current_client
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Suffix
from bucketfront.keys import ObjectKey
from bucketfront.retry import RetryBudget, backoff
from bucketfront.s3 import responses
from bucketfront.s3.accepted_codings import AcceptedCodings
from bucketfront.s3.billing import Billing
from bucketfront.s3.body import S3Body
from bucketfront.s3.breaker import Breaker
from bucketfront.s3.calls import Calls
from bucketfront.s3.connection_slots import ConnectionSlots, HeldSlot
from bucketfront.s3.credentials import credentials_of
from bucketfront.s3.direct_reads import DirectReads
from bucketfront.s3.endpoint import DEFAULT_REGION, S3Endpoint
from bucketfront.s3.error_translation import Unexplained, VersionUnchanged, translated
from bucketfront.s3.forwarded_body import begun
from bucketfront.s3.forwarded_call import ForwardedCall
from bucketfront.s3.forwarded_request import ForwardedRequest
from bucketfront.s3.forwarded_response import ForwardedResponse
from bucketfront.s3.forwarder import Forwarder
from bucketfront.s3.object_reads import ObjectReads, object_params
from bucketfront.s3.sdk_client import SdkClient
from bucketfront.s3.signature import Signature
from bucketfront.s3.signing_clock import SigningClock
from bucketfront.s3.upload.upload_slots import UploadSlots
from bucketfront.s3.upload.verdicts import Verdicts
from bucketfront.task_set import TaskSet
from bucketfront.troubles import Troubles

T = TypeVar("T")

log = logging.getLogger(__name__)

READ_ATTEMPTS = 3  # of one read: a failure of one in a hundred requests becomes one in a million
STALL_TIMEOUT_S = 30.0  # added to the deadline of a call, for a write whose body makes no progress
RETRY_PAUSE_S = 0.1  # at most before the second attempt, doubled for the third: S3 takes as long for a head


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
        shares: FairShares | None = None,
        share_of_one: float = 1.0,
        mount_of: Callable[[ObjectKey], str] = lambda _: "",
    ) -> None:
        self.billing = Billing(mount_of)
        self.breaker = breaker or Breaker(time.monotonic, random.random)
        self.retries = RetryBudget(clock=time.monotonic)  # for heads here, and for bytes in the cache
        self._settings = settings
        self._call_timeout = settings.connect_timeout + settings.read_timeout
        self._stall_timeout = self._call_timeout + STALL_TIMEOUT_S
        self.calls = Calls(self._call_timeout, troubles or Troubles(time.monotonic, log.info))
        self._shares = shares
        self.slots = ConnectionSlots(settings.max_connections, share_of_one)
        self.upload_slots = UploadSlots(self.slots, settings.max_connections, share_of_one)
        self.slow_bodies = 0  # bodies that were ended because they came too slowly
        self.parts = 0  # parts of uploads that S3 accepted
        self.parts_retried = 0
        self.signing_clock = SigningClock(time.time, boottime)
        self.credentials = credentials_of(settings.credentials, time.monotonic)
        self._signature = Signature(self.credentials, self.signing_clock)
        codings = codings or AcceptedCodings(settings.accept_encoding)
        self._reads = ObjectReads(self.calls, codings, settings.read_timeout)
        self._sdk = SdkClient(settings, endpoint_url or settings.endpoint_url, self.credentials, self._signature)
        self.endpoint: S3Endpoint  # once it has started
        self.background = TaskSet()  # for requests that S3 must get although no client waits; they end before it closes
        self._probes = TaskSet()
        self.verdicts = Verdicts(time.monotonic, self.background)

    async def __aenter__(self) -> Self:
        await self._sdk.__aenter__()
        self.billing.register(self._sdk.client.meta.events)
        self.calls.client = self.calls.reference.client = self._sdk.client
        self.calls.objects = DirectReads(self._sdk.client, self._signature, self.billing)
        self._forwarder = Forwarder(
            self._sdk.client, self._signature, self.billing, self.upload_slots, self._settings.read_timeout
        )
        self.endpoint = self._sdk.endpoint
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.background.wait()
        await self._probes.close()
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
        attempt = partial(self._reads.get, what, key, part, if_match, if_none_match)
        await self._probe_if_due(key, self._call_timeout if self.breaker.is_open else 0)
        self.breaker.check()
        await self.calls.wait_for_turn(key.bucket)
        async with HeldSlot(self.slots, key, self._call_timeout) as connection:
            try:
                response = await self._with_retries(what, "GetObject", key.bucket, key, attempt)
            except VersionUnchanged as unchanged:
                return responses.not_modified(unchanged.headers, if_none_match, key.version)
            self.calls.reference.note(key)
            assert isinstance(response.body, S3Body)
            response.body.on_close = connection.keep()
            response.body.on_slow = lambda error: self._body_was_slow(key, error)
            response.body.on_failure = lambda error: self.calls.failures.failed("GetObject", key.bucket, error)
            return response

    async def head(self, key: ObjectKey, *, if_none_match: str | None = None) -> Metadata | NotModified:
        """Call S3 HeadObject, see `bucketfront.cache.Origin.head`."""
        attempt = partial(self._reads.head, key, if_none_match)
        await self._probe_if_due(key, self._call_timeout if self.breaker.is_open else 0)
        self.breaker.check()
        await self.calls.wait_for_turn(key.bucket)
        async with HeldSlot(self.slots, key, self._call_timeout):
            try:
                found = await self._with_retries(f"HEAD {key}", "HeadObject", key.bucket, key, attempt)
            except VersionUnchanged as unchanged:
                return responses.not_modified(unchanged.headers, if_none_match, key.version)
            self.calls.reference.note(key)
            return found

    @asynccontextmanager
    async def forward(self, request: ForwardedRequest) -> AsyncIterator[ForwardedResponse]:
        """Send a request that a client of S3 has made, and yield the response, whose body is read in the block.

        A read is sent again if it fails before the block, as far as the retry budget pays for it. A write is sent once:
        after OriginTimeout or OriginUnavailable its outcome is unknown (docs/invariants.md#unknown-outcome). A response
        that the client caused is yielded with its `refusal`, whatever its status is.

        Raises BucketNotForwarded, RequestRefused or AccessDenied if nothing was sent, NoShare, OriginBusy,
        OriginThrottled, OriginCircuitOpen, and what the body of the request raises.
        """
        request.check(self._settings.expected_bucket_owner)
        if self._shares is not None:
            self._shares.check(Resource.ORIGIN, current_client(), self.slots.wanted)
        request = await begun(request)
        key, bucket = ObjectKey(request.bucket or "", request.key), self.calls.counted_as(request.bucket)
        what = f"{request.operation} {key}"
        is_guarded = request.is_read and request.bucket is not None  # the breaker's probe reads an object of the bucket
        if is_guarded:
            await self._probe_if_due(key, self._call_timeout if self.breaker.is_open else 0)
            self.breaker.check()
        is_ours = request.signed_target is None
        await self.calls.wait_for_turn(bucket)
        async with self._slot_of(request, key) as release:
            stall_timeout = self._stall_timeout if request.is_streamed else self._call_timeout
            call = ForwardedCall(what, request, self.calls, self._forwarder, stall_timeout)
            try:
                if is_guarded:
                    await self._with_retries(what, request.operation, bucket, key, call.send, is_ours=is_ours)
                else:
                    with self.calls.observed(request.operation, bucket, is_forwarded=True, is_ours=is_ours):
                        await call.send()
            except OriginError as error:
                if not call.is_refusal(error):
                    raise
            response = call.response
            assert response is not None
            response.watch(
                release,
                lambda error: self._body_was_slow(key, error) if is_guarded else None,
                lambda error: self.calls.failures.failed(request.operation, bucket, error, is_forwarded=True),
            )
            if response.refusal is None and request.bucket is not None:
                self.calls.has_shown_itself(request.bucket)
            try:
                yield response
            finally:
                response.close()

    @asynccontextmanager
    async def _slot_of(self, request: ForwardedRequest, key: ObjectKey) -> AsyncIterator[Callable[[], None]]:
        """Hold a connection for a forwarded request. Yield what releases it before the end of the block."""
        if request.is_streamed:
            async with self.upload_slots.slot(self._stall_timeout):
                yield lambda: None
            return
        async with HeldSlot(self.slots, key if request.is_read and request.key else None, self._call_timeout) as held:
            yield held.release

    def admit(self, key: ObjectKey, *, joins: bool) -> None:
        """Refuse a client that waits for many connections already, see `bucketfront.cache.Origin.admit`."""
        if joins:
            self.slots.hurry(key)
        elif self._shares is not None:
            self._shares.check(Resource.ORIGIN, current_client(), self.slots.wanted)

    async def delete(self, key: ObjectKey) -> None:
        """Call S3 DeleteObject. It succeeds also if the object is absent. Raises AccessDenied, OriginUnavailable."""
        assert key.version is None, "a past version is never deleted"
        async with self.connection(key.bucket):
            with suppress(ObjectNotFound):  # some compatible servers say so
                await self.calls.make(f"DELETE {key}", self.calls.client.delete_object, object_params(key))

    async def create_bucket(self, bucket: str) -> None:
        """Call S3 CreateBucket if HeadBucket does not find the bucket. Raises OriginErrors."""
        try:
            await self.head_bucket(bucket)
        except AccessDenied:
            return  # it exists, and only its list is denied
        except NoSuchBucket:
            where = {"LocationConstraint": self.endpoint.region}
            params: dict[str, Any] = {"Bucket": bucket}
            if not self.endpoint.is_custom and self.endpoint.region != DEFAULT_REGION:
                params["CreateBucketConfiguration"] = where
            await self.calls.make(f"CREATE {bucket}", self.calls.client.create_bucket, params)

    async def head_bucket(self, bucket: str) -> None:
        """Call S3 HeadBucket. Raises NoSuchBucket, AccessDenied, OriginUnavailable."""
        try:
            await self.calls.make(f"HEAD {bucket}", self.calls.client.head_bucket, {"Bucket": bucket})
        except Unexplained:
            # The permission that HeadBucket needs is the one to list.
            await self.calls.make(f"LIST {bucket}", self.calls.client.list_objects_v2, {"Bucket": bucket, "MaxKeys": 1})
            raise

    @asynccontextmanager
    async def connection(self, bucket: str) -> AsyncIterator[None]:
        """Hold one of `max_connections` inside the block, for a call that reads no object of `bucket`.

        Raises OriginBusy if no connection comes free within the deadline, and OriginThrottled as `wait_for_turn`.
        """
        await self.calls.wait_for_turn(bucket)
        async with HeldSlot(self.slots, None, self._call_timeout):
            yield

    @property
    def client(self) -> Any:
        """Return aiobotocore's client, for modules of `s3/` only."""
        return self.calls.client

    async def _with_retries(
        self,
        what: str,
        operation: str,
        bucket: str,
        key: ObjectKey,
        attempt: Callable[[], Awaitable[T]],
        *,
        is_ours: bool = True,
    ) -> T:
        """Run `attempt` up to READ_ATTEMPTS times within one deadline. The retry budget pays for all but the first."""
        self.retries.earn()
        until = asyncio.get_running_loop().time() + self._call_timeout
        # All of these are requests of clients, also those whose operations bucketfront sends as probes.
        observed = partial(self.calls.observed, operation, bucket, is_forwarded=True, is_ours=is_ours)
        for number in range(1, READ_ATTEMPTS + 1):
            try:
                with self.breaker.attempt(key), observed(), translated(what):
                    # The timeout is inside the attempt. Around it, the breaker would see a cancelled request.
                    async with asyncio.timeout_at(until):
                        return await attempt()
            except OriginUnavailable as error:
                await self._probe_if_due(key, until - asyncio.get_running_loop().time())
                now, pause = asyncio.get_running_loop().time(), backoff(RETRY_PAUSE_S, number, random.random())  # noqa: S311 - jitter, no secret
                is_last = error.is_final or number == READ_ATTEMPTS
                if is_last or now + pause >= until or not self.retries.spend():
                    raise
                pause = max(pause, self.calls.paces[bucket].take_turn())
                if now + pause >= until:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _probe_if_due(self, key: ObjectKey, wait: float) -> None:
        """Let the breaker find out whether the failures are of some keys or of the origin.

        The probe also ends if this caller is cancelled, or has waited for `wait` seconds.
        """
        probe = self._start_probe_if_due(key)
        if probe is not None:
            await asyncio.wait({probe}, timeout=max(wait, 0.0))

    def _start_probe_if_due(self, key: ObjectKey) -> asyncio.Task[None] | None:
        if not self.breaker.is_probe_due:
            return None
        self.breaker.begin_probe()
        return self._probes.start(self._probe(self.breaker, key))

    async def _probe(self, breaker: Breaker, key: ObjectKey) -> None:
        with suppress(OriginError), breaker.probe():
            await self.calls.reference.read(key.bucket, key.key)

    def _body_was_slow(self, key: ObjectKey, error: OriginTimeout) -> None:
        """Count a body that came too slowly, and report it to the breaker like a 5xx for `key`.

        The head was valid, so the breaker has counted a success.
        """
        self.slow_bodies += 1
        if not self.breaker.is_open:
            with suppress(OriginCircuitOpen):  # the attempts that use up the bound will report for themselves
                self.breaker.failed(self.breaker.admit(), key, OriginServerError(str(error)))
            self._start_probe_if_due(key)

    @property
    def dropped_fields(self) -> int:
        """Return how many fields of objects were dropped because of control characters in them."""
        return self._reads.dropped_fields

    @property
    def free_slots(self) -> int:
        """Return how many of `max_connections` are not in use."""
        return self.slots.free
