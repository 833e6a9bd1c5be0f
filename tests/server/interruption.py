"""Cancels a handler at one of its suspensions, as a client does that leaves at that moment."""

import asyncio
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Literal

How = Literal["asleep", "woken"]


@dataclass
class Interruption:
    """Cancels at the suspension number `at`, counted from 1.

    `asleep`: while what is waited for has not come. `woken`: when it has come, and the handler has not had its turn.
    """

    at: int
    how: How
    suspensions: int = 0
    is_done: bool = False

    def around(self, work: Coroutine[Any, Any, Any]) -> "_Interrupted":
        return _Interrupted(work, self)

    def suspended(self, awaited: "asyncio.Future[Any] | None") -> None:
        self.suspensions += 1
        if self.suspensions != self.at:
            return
        self.is_done = True
        task = asyncio.current_task()
        assert task is not None
        if self.how == "woken" and awaited is not None:
            # Called before the task's own callback: the future is done, and the task gets CancelledError all the same.
            awaited.add_done_callback(lambda _: task.cancel())
        else:
            asyncio.get_running_loop().call_soon(task.cancel)


class _Interrupted:
    def __init__(self, work: Coroutine[Any, Any, Any], interruption: Interruption) -> None:
        self._work = work
        self._interruption = interruption

    def __await__(self) -> Generator[Any, None, Any]:
        error: BaseException | None = None
        while True:
            try:
                awaited = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as end:
                return end.value
            error = None
            self._interruption.suspended(awaited)
            try:
                yield awaited
            except BaseException as thrown:  # noqa: BLE001 - handed on to the handler
                error = thrown
