"""Background tasks that belong to one owner."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class TaskSet:
    """Holds running tasks, because the event loop alone would not keep them alive. One event loop uses it."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Run `work` as a task. The caller may await the task, or leave it to `wait` and `close`."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def run(self, work: Coroutine[Any, Any, T], name: str | None = None) -> T:
        """Run `work` as a task and return its result. The task runs to its end even if the caller is cancelled."""
        return await asyncio.shield(self.start(work, name))

    async def wait(self) -> None:
        """Wait until all tasks have ended, also those that start meanwhile."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def close(self) -> None:
        """Cancel all tasks and wait until they have ended, also those that start meanwhile."""
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
