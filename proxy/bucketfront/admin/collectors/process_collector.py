"""The metrics of the process: its version, why it is degraded, and how late its event loop is."""

import asyncio
import platform
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import NoReturn

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bucketfront import __version__
from bucketfront.admin.health import Health
from bucketfront.server.telemetry.metric_family import gauge, histogram
from bucketfront.troubles import Reason

LAG_INTERVAL_S = 0.25  # between two samples
_BOUNDS_S = (0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 2.0)
_NAMES = tuple(map(floatToGoString, (*_BOUNDS_S, float("inf"))))

_BUILD = gauge("build_info", "1, with the versions of bucketfront and of Python.", "version", "python")
_DEGRADED = gauge("degraded", "1 for each reason of `/readyz` that holds now.", "reason")
_LAG = histogram("event_loop_lag_seconds", "How late the event loop ran a timer, sampled four times a second.")

FAMILIES = (_BUILD, _DEGRADED, _LAG)


class LoopLag:
    """A sample of how late timers run: of all that one turn of the event loop may hold up."""

    def __init__(self) -> None:
        self.counts = [0] * len(_NAMES)
        self.seconds = 0.0

    async def run(self) -> NoReturn:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self.add(max(0.0, clock() - due))

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class HealthCollector(Collector):
    def __init__(self, registry: CollectorRegistry, health: Health, lag: LoopLag) -> None:
        self._health = health
        self._lag = lag
        registry.register(self)
        GCCollector(registry=registry)
        ProcessCollector(registry=registry)  # it has no figures on other systems than Linux

    def collect(self) -> Iterable[Metric]:
        present = self._health.reasons
        yield _BUILD.values([((__version__, platform.python_version()), 1)])
        yield _DEGRADED.values(((reason.value,), reason in present) for reason in Reason)
        lag = _LAG.histogram()
        lag.add_metric((), list(zip(_NAMES, accumulate(self._lag.counts), strict=True)), self._lag.seconds)
        yield lag
