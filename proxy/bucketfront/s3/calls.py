"""Single calls of S3, and what their outcomes show of a bucket: its pace and its troubles."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from bucketfront.errors import OriginError, OriginThrottled
from bucketfront.s3.direct_reads import DirectReads
from bucketfront.s3.error_translation import UnexplainedRefusal, VersionUnchanged, translated
from bucketfront.s3.failures import OriginFailures
from bucketfront.s3.finished_call import OnCall, reported
from bucketfront.s3.pace import Pace
from bucketfront.s3.reference import Reference
from bucketfront.troubles import Troubles

MAX_NAMED_BUCKETS = 1000  # that clients have named: each has lines in the metrics


class Calls:
    """The calls of one client, each of which is sent once. `timeout` is the default of one, in seconds.

    `client` is aiobotocore's, and `objects` has its reads of objects, once it has started.
    """

    client: Any
    objects: DirectReads

    def __init__(self, timeout: float, troubles: Troubles) -> None:
        self._timeout = timeout
        self.on_call: OnCall | None = None  # gets each call at its end, for traces
        self.paces: defaultdict[str, Pace] = defaultdict(lambda: Pace(time.monotonic))  # by bucket
        self.failures = OriginFailures(troubles, time.monotonic)
        self.reference = Reference(self.failures, time.monotonic, timeout)

    async def make(
        self,
        what: str,
        operation: Callable[..., Awaitable[Any]],
        params: dict[str, Any],
        *,
        call_timeout: float | None = None,
    ) -> Any:
        """Run one call up to the head of its response, and take its outcome. `what` names it in messages.

        `call_timeout` is in seconds, and replaces the default.
        """
        with self.observed(self.client.meta.method_to_api_mapping[operation.__name__], params["Bucket"]):
            return await self.send(what, operation, params, call_timeout)

    async def send(
        self,
        what: str,
        operation: Callable[..., Awaitable[Any]],
        params: dict[str, Any],
        call_timeout: float | None = None,
    ) -> Any:
        """Run one call as `make`, within a block of `observed` that takes its outcome."""
        run = partial(self._translated, what, operation, params, call_timeout or self._timeout)
        async with self.judged(params):
            if self.on_call is None:
                return await run()
            name = self.client.meta.method_to_api_mapping[operation.__name__]
            return await reported(name, params, run, self.on_call)

    async def _translated(
        self, what: str, operation: Callable[..., Awaitable[Any]], params: dict[str, Any], call_timeout: float
    ) -> Any:
        with translated(what, params):
            async with asyncio.timeout(call_timeout):
                return await operation(**params)

    @asynccontextmanager
    async def judged(self, params: Mapping[str, Any]) -> AsyncIterator[None]:
        """Run a block that translates one call, and find out whose fault an unexplained refusal is.

        If the origin serves another object of the bucket, the client's request caused the refusal. Calls that name no
        object have no client.
        """
        try:
            yield
        except UnexplainedRefusal as refusal:
            names_object = "Key" in params or "Delete" in params
            if not names_object or not await self.reference.works(params["Bucket"], params.get("Key", "")):
                raise
            refusal.mistake.response = refusal.response
            raise refusal.mistake from refusal.__cause__

    @contextmanager
    def observed(
        self, operation: str, bucket: str, *, is_forwarded: bool = False, is_ours: bool = True
    ) -> Iterator[None]:
        """Run one request for `bucket`, and learn from its response what holds for the bucket.

        `operation` is the name of S3's API. `is_forwarded` means that a client of S3 has made the request. `is_ours` is
        false for one that a client has signed.
        """
        try:
            yield
        except OriginError as error:
            if isinstance(error, OriginThrottled):
                self.paces[bucket].throttled()
            self.failures.failed(operation, bucket, error, is_forwarded=is_forwarded)
            raise
        except VersionUnchanged:
            self.failures.succeeded(operation, bucket)
            raise
        if is_ours:
            self.failures.succeeded(operation, bucket)
        else:
            self.failures.reached(operation)

    def counted_as(self, bucket: str | None) -> str:
        """Return the name by which the outcomes of a bucket count that a client has named, or of none.

        It is "" unless the bucket has shown itself, because clients could name any number of others.
        """
        return bucket if bucket is not None and bucket in self.paces else ""

    def has_shown_itself(self, bucket: str) -> None:
        """Take a bucket that a client has named, and that accepts our requests."""
        if len(self.paces) < MAX_NAMED_BUCKETS:
            self.paces.setdefault(bucket, Pace(time.monotonic))

    async def wait_for_turn(self, bucket: str) -> None:
        """Wait until the bucket's pace allows a request. Raises OriginThrottled if that is too late."""
        if wait := self.paces[bucket].take_turn():
            await asyncio.sleep(wait)
