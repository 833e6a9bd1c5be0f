"""A read of another object, which shows whether a failure is of one key or of the origin.

A status does not show whose fault an unexplained refusal is, and a 5xx does not show how much of the origin fails. So
the client reads the begin of the object that the origin sent last. Before the origin has sent one, an object that does
not exist takes its place, because an origin that works responds that it is absent or denied. See
docs/invariants.md#whose-fault.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from bucketfront.errors import AccessDenied, ObjectNotFound, OriginError, RangeUnsatisfiable
from bucketfront.http import ranges
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.s3.error_translation import translated
from bucketfront.s3.failures import OriginFailures

READ_BYTES = 64 << 10  # enough to find a slow origin within the timeout
TIMEOUT_S = 10.0  # a working origin sends as much in a second
VERDICT_S = 5.0  # a client with many bad keys causes one read in that time
ABSENT = "bucketfront-reference-that-no-object-has"

# Facts about the object or its permissions: the origin accepts our credentials, clock, region and bucket.
_FACTS = (ObjectNotFound, AccessDenied, RangeUnsatisfiable)


class Reference:
    """The reference reads of one client. `clock` is monotonic, and `timeout` that of a call, in seconds.

    They hold none of `origin.max_connections`, because a failing origin may have all of them in use.
    """

    client: Any  # aiobotocore's, once it has started

    def __init__(self, failures: OriginFailures, clock: Callable[[], float], timeout: float) -> None:
        self._timeout = min(timeout, TIMEOUT_S)
        self._failures = failures
        self._clock = clock
        self._good: dict[str, ObjectKey] = {}  # by bucket: the object that the origin sent last
        self._verdicts: dict[str, tuple[bool, float]] = {}  # by bucket: whether it works, and since when
        self._locks: dict[str, asyncio.Lock] = {}  # by bucket

    def note(self, key: ObjectKey) -> None:
        """Take an object that the origin has just sent."""
        if key.version is None:
            self._good[key.bucket] = key

    async def works(self, bucket: str, key: str = "") -> bool:
        """Return whether the origin serves another object of the bucket than `key`.

        A verdict holds for VERDICT_S, and one read brings it for all that wait.
        """
        async with self._locks.setdefault(bucket, asyncio.Lock()):
            known, at = self._verdicts.get(bucket, (False, float("-inf")))
            if self._clock() - at < VERDICT_S:
                return known
            try:
                await self.read(bucket, key)
            except OriginError:
                works = False
            else:
                works = True
            self._verdicts[bucket] = works, self._clock()
            return works

    async def read(self, bucket: str, key: str) -> None:
        """Read the begin of another object of the bucket than `key`. Raises OriginErrors, but none about the object."""
        good = self._good.get(bucket)
        chosen = ABSENT if good is None or good.key == key else good.key
        params = {"Bucket": bucket, "Key": chosen, "Range": ranges.field_value(FromTo(0, READ_BYTES))}
        try:
            with translated(f"GET {bucket}/{chosen} as a reference", params):
                async with asyncio.timeout(self._timeout):
                    response = await self.client.get_object(**params)
                    await _read_begin(response["Body"])
        except _FACTS as error:
            self._failures.probed("GetObject", error)
        except OriginError as error:
            self._failures.probed("GetObject", error)
            raise
        else:
            self._failures.probed("GetObject", None)


async def _read_begin(body: Any) -> None:
    left = READ_BYTES
    try:
        while left > 0 and (piece := await body.read(left)):
            left -= len(piece)
    finally:
        body.close()
