"""Whether the proxy serves, and what is wrong meanwhile.

With S3 out of reach or a failing disk, hits and other requests are still served, so the proxy is degraded and not down:
a load balancer that took it away would make an outage of it (docs/invariants.md#authorise-first).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from bucketfront.troubles import Kind, Reason, Trouble, Troubles

TICK_S = 1.0  # between two looks at what is watched


class Phase(Enum):
    """The values are stable, for programs."""

    STARTING = "starting"
    WARMING = "warming"  # clients get responses, and no load balancer is to send them yet
    SERVING = "serving"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Watch:
    """Something that does not report by itself whether it works. It fails if `is_failing` or if `count` grows.

    `count` counts failures since the start, and `detail` has the reason of the last one.
    """

    kind: Kind
    count: Callable[[], int]
    detail: Callable[[], str]
    is_failing: Callable[[], bool] = lambda: False


class Health:
    """The phase of the process and its troubles. `tick` feeds the troubles with what is watched."""

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._watches: dict[Watch, int] = {}  # with the count at the last tick
        self.phase = Phase.STARTING

    def watch(self, watch: Watch) -> None:
        self._watches[watch] = watch.count()

    def tick(self) -> None:
        """Look at everything that is watched, and report what is due."""
        for watch, before in list(self._watches.items()):
            count = self._watches[watch] = watch.count()
            if count > before or watch.is_failing():
                self._troubles.failed(watch.kind, watch.detail(), count - before)
            else:
                self._troubles.succeeded(watch.kind.__eq__)
        self._troubles.tick()

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    @property
    def troubles(self) -> list[Trouble]:
        """Return what fails now, the oldest first."""
        return sorted(self._troubles.failing, key=lambda trouble: trouble.since)

    @property
    def reasons(self) -> frozenset[Reason]:
        """Return why the proxy is degraded; empty if it is not."""
        return frozenset(trouble.kind.reason for trouble in self._troubles.failing)

    def lasted(self, trouble: Trouble) -> float:
        """Return for how many seconds a trouble has lasted."""
        return self._troubles.lasted(trouble)
