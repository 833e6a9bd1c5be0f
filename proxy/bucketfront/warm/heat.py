"""What the cache holds in order of heat: pages by last access, and within a page the objects with more uses first."""

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from bucketfront.cache import Cache, Held, IdSet

PAGE_ENTRIES = 1000
ENTRIES_PER_TURN = 100  # read in one turn of the loop (docs/invariants.md#cost-of-a-request)

Place = tuple[float, int]


class Page(NamedTuple):
    """Entries in order of heat. The next page is behind the place `after`, None at the end."""

    held: list[Held]
    after: Place | None


async def page(cache: Cache, before: Place | None) -> Page:
    """Return the page behind the place `before`, None for the first one. Raises StoreError."""
    await cache.flush()
    found: list[Held] = []
    is_last = False
    while len(found) < PAGE_ENTRIES and not is_last:
        turn = cache.newest(ENTRIES_PER_TURN, before)
        is_last = len(turn) < ENTRIES_PER_TURN
        found += turn
        before = turn[-1].place if turn else before
        await asyncio.sleep(0)
    return Page(sorted(found, key=lambda held: (-held.uses, -held.accessed_at)), None if is_last else before)


async def all_held(cache: Cache) -> AsyncGenerator[Held, None]:
    """Yield each entry once, in order of heat. Those that were used meanwhile, and so moved to the front, come last.

    Raises StoreError.
    """
    seen = IdSet()
    first = await page(cache, None)
    began = max((held.accessed_at for held in first.held), default=0.0)
    async for held in _pages(cache, first, seen):
        yield held
    async for held in _pages(cache, await page(cache, None), seen):
        yield held
        if held.accessed_at <= began:
            return


async def _pages(cache: Cache, found: Page, seen: IdSet) -> AsyncGenerator[Held, None]:
    """Yield what is not in `seen`, from this page on."""
    while True:
        for held in found.held:
            if seen.update([held.id]):
                yield held
        if found.after is None:
            return
        found = await page(cache, found.after)
