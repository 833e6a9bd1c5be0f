"""The handover of a running cache to another process, and its return if that process fails.

Theory of operation
-------------------
`hand_over` makes the folder quiet, writes the index as a stop does, and unlocks the folder. Requests go on meanwhile
and after it:

- A response whose bytes are in the cache sends them from its open file. The next owner never changes such bytes: a
  file is not rewritten, and an unlinked one stays readable.
- A response that lacks bytes gets them straight from the origin, as with a disk that fails
  (docs/invariants.md#disk-faults-degrade).
- A request that begins later asks the origin, because only the next owner knows what is written and purged.
- A write has the next owner invalidate its keys before the client gets the response
  (docs/invariants.md#read-your-writes).

`take_back` locks the folder and opens the index again, in the same objects.
"""

import asyncio
import logging

from bucketfront.cache.assembly import CacheAssembly
from bucketfront.cache.storage.ownership import Forward
from bucketfront.errors import StoreError

RELEASE_TIMEOUT_S = 10.0  # for purges, running disk calls and the last flush

log = logging.getLogger(__name__)


async def hand_over(assembly: CacheAssembly, forward: Forward) -> None:
    """Give the folder up. `forward` has the next owner invalidate keys that this process writes later.

    Raises StoreError if the disk fails or takes too long. `take_back` is due then.
    """
    try:
        async with asyncio.timeout(RELEASE_TIMEOUT_S):
            await _hand_over(assembly, forward)
    except TimeoutError as error:
        raise StoreError(f"the cache was not at rest within {RELEASE_TIMEOUT_S:g} s") from error


async def _hand_over(assembly: CacheAssembly, forward: Forward) -> None:
    await assembly.housekeeper.stop()
    await assembly.scrubber.stop()
    while assembly.purges.running:
        await assembly.purges.running.wait()
    # From here on nothing changes in the folder, except by the steps below.
    assembly.store.ownership.release(forward)
    assembly.lookups.invalidate_all()
    assembly.cache.forget_absences()
    await assembly.fetch_context.end_fetches()
    await assembly.open_files.finish()
    await assembly.store.settle()
    await assembly.disposal.finish()
    await assembly.discards.finish()
    await assembly.flusher.flush()
    await _close(assembly)
    assembly.store.folder.unlock()
    assembly.store.folder.close()


async def _close(assembly: CacheAssembly) -> None:
    """Write the last changes. The entries leave memory in the same turn, so that no later change is lost."""
    changes = assembly.entries.changes()
    unused = [entry for entry in assembly.entries.release() if not entry.pins]
    for entry in unused:
        assembly.disposal.close_later(entry)
    await assembly.index.close(changes)


async def take_back(assembly: CacheAssembly) -> None:
    """Own the folder again, also if `hand_over` failed or was not called. Raises CacheInUse, StoreError."""
    if not assembly.store.ownership.is_held:
        await _open(assembly)
    await assembly.housekeeper.stop()
    assembly.housekeeper.start()
    await assembly.scrubber.stop()
    assembly.scrubber.start()


async def _open(assembly: CacheAssembly) -> None:
    store, index = assembly.store, assembly.index
    if not store.folder.is_open:
        await asyncio.to_thread(store.open)
    try:
        await asyncio.to_thread(index.abandon)  # its thread may wait for the disk
        assembly.entries.release()
        index.reopen()
        assembly.entries.open()
    except StoreError:
        store.folder.close()
        raise
    store.ownership.retake()
