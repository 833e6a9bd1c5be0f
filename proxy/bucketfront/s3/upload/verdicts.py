"""Facts about buckets that requests of ours have shown, so that not each write needs such a request again."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bucketfront.task_set import TaskSet

TRUE_S = 24 * 3600.0  # until a true verdict expires: a server loses an ability only by a downgrade
FALSE_S = 600.0  # the same for a false one: an operator sees soon that a cure works


@dataclass(frozen=True, slots=True)
class _Verdict:
    holds: bool
    until: float  # by the clock


class Verdicts:
    """Verdicts by subject. `clock` is monotonic, in seconds. `tasks` outlive a cancelled caller."""

    def __init__(self, clock: Callable[[], float], tasks: TaskSet) -> None:
        self._clock = clock
        self._tasks = tasks
        self._known: dict[tuple[str, ...], _Verdict] = {}
        self._running: dict[tuple[str, ...], asyncio.Task[bool]] = {}

    async def of(self, subject: tuple[str, ...], find_out: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Return the verdict, from memory or by `find_out`, which runs once at a time for each subject.

        What `find_out` raises passes through, and is not remembered.
        """
        if (known := self.known(subject)) is not None:
            return known
        running = self._running.get(subject)
        if running is None:
            running = self._tasks.start(find_out(), name=f"find out {' '.join(subject)}")
            self._running[subject] = running
            running.add_done_callback(lambda task: self._ended(subject, task))
        return await asyncio.shield(running)

    def known(self, subject: tuple[str, ...]) -> bool | None:
        """Return the verdict from memory, or None."""
        found = self._known.get(subject)
        return found.holds if found is not None and self._clock() < found.until else None

    def note(self, subject: tuple[str, ...], *, holds: bool) -> None:
        """Remember a verdict."""
        self._known[subject] = _Verdict(holds, self._clock() + (TRUE_S if holds else FALSE_S))

    def _ended(self, subject: tuple[str, ...], task: asyncio.Task[bool]) -> None:
        del self._running[subject]
        if not task.cancelled() and task.exception() is None:
            self.note(subject, holds=task.result())
