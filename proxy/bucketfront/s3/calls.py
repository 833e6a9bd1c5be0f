"""Single calls of S3, and what their outcomes show of a bucket: whether it exists, its pace, and its troubles."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bucketfront.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectNotFound,
    OriginError,
    OriginRefused,
    OriginThrottled,
    RangeUnsatisfiable,
)
from bucketfront.s3.error_translation import VersionUnchanged, translated
from bucketfront.s3.failures import OriginFailures
from bucketfront.s3.pace import Pace
from bucketfront.troubles import Troubles

SEEN_S = 10.0  # for which a response shows that the bucket exists: as long as a 404 is remembered by default

# S3 sends these only for a bucket that exists.
_FACTS = (ObjectNotFound, ObjectChanged, RangeUnsatisfiable, AccessDenied)


class Calls:
    """The calls of one client, each of which is sent once. `timeout` is the default of one, in seconds.

    `client` is aiobotocore's, once it has started.
    """

    client: Any

    def __init__(self, timeout: float, troubles: Troubles) -> None:
        self._timeout = timeout
        self._seen_at: dict[str, float] = {}  # by bucket: when a response last showed that it exists
        self.paces: defaultdict[str, Pace] = defaultdict(lambda: Pace(time.monotonic))  # by bucket
        self.failures = OriginFailures(troubles, time.monotonic)

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
        with translated(what, params):
            async with asyncio.timeout(call_timeout or self._timeout):
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

    def is_known_to_exist(self, bucket: str) -> bool:
        """Return whether a recent response has shown that the bucket exists."""
        seen_at = self._seen_at.get(bucket)
        return seen_at is not None and time.monotonic() - seen_at < SEEN_S
