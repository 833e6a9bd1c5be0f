"""Removed entries: their files are unlinked at once and closed with their last user; then their space is free."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from bucketfront.cache.entries.entry import Entry, EntryState
from bucketfront.cache.entries.entry_table import EntryTable
from bucketfront.cache.storage.storage import Storage
from bucketfront.errors import StoreError

AT_ONCE = 64  # files: to hand so many to threads takes the event loop a few milliseconds (I18)

log = logging.getLogger(__name__)


class Disposal:
    def __init__(self, entries: EntryTable, store: Storage) -> None:
        self._entries = entries
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()

    def drop(self, entry: Entry) -> None:
        """Remove the entry; its file goes in the background."""
        if not entry.is_removed:
            self._entries.remove(entry)
            self.discard(entry)

    def discard(self, entry: Entry) -> None:
        """Unlink a removed entry's file in the background."""
        self.in_background(self._unlink_quietly(entry))

    def unpin(self, entry: Entry) -> None:
        if self._entries.unpin(entry):
            self.release(entry)

    def release(self, entry: Entry) -> None:
        """A removed entry lost its last user."""
        self.in_background(self._close_file(entry))

    async def unlink(self, removed: Iterable[Entry]) -> None:
        """Every one of them, though some fail; then raises the first failure, a StoreError.

        They are out of memory's reach already, so they are finished even if the caller is cancelled (I12, I17).
        """
        await asyncio.shield(self.in_background(self._unlink_all(list(removed))))

    async def finish(self) -> None:
        """Wait for all that goes on in the background."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """What gives space back; `finish` waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _unlink_all(self, removed: list[Entry]) -> None:
        failures: list[BaseException] = []
        for at in range(0, len(removed), AT_ONCE):
            work = (self._unlink(entry) for entry in removed[at : at + AT_ONCE])
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
                self._entries.settle(entry)
