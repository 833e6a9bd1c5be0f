"""Repeats of the calls that S3 may get twice, as far as the retry budget pays for them."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bucketfront.errors import OriginBusy, OriginTimeout, OriginUnavailable
from bucketfront.retry import backoff
from bucketfront.s3.client import S3Origin

T = TypeVar("T")

ATTEMPTS = 3  # of one call: as many as for a read
PAUSE_S = 0.2  # at most before the second attempt, doubled for the third: short beside an upload

log = logging.getLogger(__name__)


async def repeated(origin: S3Origin, send: Callable[[], Awaitable[T]]) -> T:
    """Return what `send` returns, after up to ATTEMPTS attempts. Only for calls that S3 may carry out twice.

    A timeout is not repeated, because the client has waited for all of it. Raises what the last attempt raises.
    """
    origin.retries.earn()
    attempt = 1
    while True:
        try:
            return await send()
        except OriginUnavailable as error:
            if attempt == ATTEMPTS or not is_repeatable(error) or not origin.retries.spend():
                raise
            log.info("a call is repeated: %s", error)
        await pause(PAUSE_S, attempt)
        attempt += 1


def is_repeatable(error: OriginUnavailable) -> bool:
    """Return whether the same call may succeed at once. OriginBusy had no connection for as long as a call may take."""
    return not error.is_final and not isinstance(error, OriginTimeout | OriginBusy)


async def pause(first: float, failures: int) -> None:
    """Wait before the next attempt, see `retry.backoff`."""
    await asyncio.sleep(backoff(first, failures, random.random()))  # noqa: S311 - jitter, no secret
