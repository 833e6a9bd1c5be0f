"""Work that runs to its end although its caller is cancelled."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def run_uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`. Return its result, or raise CancelledError, only after it has ended.

    So memory and files change together, and the caller releases nothing that `work` still uses.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
