"""The end of removed entries: their files are unlinked at once, and closed and freed after the last reader."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from bucketfront.cache.entries.entry import Entry, EntryState
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.entries.removals import Reason
from bucketfront.cache.storage.storage import Storage
from bucketfront.errors import StoreError
from bucketfront.task_set import TaskSet

MAX_CONCURRENT_UNLINKS = 64  # handing so many to threads takes the event loop a few milliseconds

log = logging.getLogger(__name__)


class Disposal:
    """Disposes of removed entries, in the event loop. Each step that fails leaves the space of its entry charged."""

    def __init__(self, entries: EntryTable, store: Storage) -> None:
        self._entries = entries
        self._store = store
        self.tasks = TaskSet()

    def remove(self, entry: Entry, reason: Reason) -> None:
        """Remove the entry, and unlink its file in the background."""
        if not entry.is_removed:
            self._entries.remove(entry, reason)
            self.unlink_later(entry)

    def unlink_later(self, entry: Entry) -> None:
        """Unlink a removed entry's file in the background."""
        self.in_background(self._unlink_quietly(entry))

    def unpin(self, entry: Entry) -> None:
        """End a pin, and close the file if this was the last one of a removed entry."""
        if self._entries.unpin(entry):
            self.close_later(entry)

    def close_later(self, entry: Entry) -> None:
        """Close the file of a removed entry in the background. The caller held the last pin."""
        self.in_background(self._close_file(entry))

    async def unlink(self, removed: Iterable[Entry]) -> None:
        """Unlink the files of removed entries, also those behind a failure. Raises the first StoreError.

        It goes on if the caller is cancelled, because no other task knows these entries any more
        (docs/invariants.md#cancellation).
        """
        await self.tasks.run(self._unlink_all(list(removed)))

    async def finish(self) -> None:
        """Wait until all work in the background has ended."""
        await self.tasks.wait()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that `finish` waits for. It frees space, so it must end before the process does."""
        self.tasks.start(work)

    async def _unlink_all(self, removed: list[Entry]) -> None:
        failures: list[BaseException] = []
        for at in range(0, len(removed), MAX_CONCURRENT_UNLINKS):
            work = (self._unlink(entry) for entry in removed[at : at + MAX_CONCURRENT_UNLINKS])
            results = await asyncio.gather(*work, return_exceptions=True)
            failures += [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]

    async def _unlink_quietly(self, entry: Entry) -> None:
        try:
            await self._unlink(entry)
        except StoreError as error:
            log.warning("%s: %s", entry.key, error)

    async def _unlink(self, entry: Entry) -> None:
        if entry.file_name is None or entry.state is not EntryState.REMOVED:
            return
        state = EntryState.UNLINKED
        try:
            await self._store.remove(entry.file_name)
        except StoreError:
            state = EntryState.LEFT_BEHIND
            raise
        finally:
            if entry.state is EntryState.REMOVED:  # a second call may have come first
                entry.become(state)
            if not entry.pins:
                await self._close_file(entry)

    async def _close_file(self, entry: Entry) -> None:
        file, entry.file = entry.file, None
        try:
            if file is not None:
                await self._store.close_file(file)
        finally:
            if entry.state is not EntryState.LEFT_BEHIND:
                self._entries.free_space(entry)
