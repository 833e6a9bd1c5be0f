"""What the proxy does now, in one frame: rates, hit ratios, fetches, hot objects and slow requests."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from bucketfront.admin.fills import fill_of
from bucketfront.admin.health import Health
from bucketfront.cache import Cache, FillView, Statistics
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.router import Router
from bucketfront.server.telemetry.access_log import json_lines
from bucketfront.server.telemetry.hot_keys import HotKeys
from bucketfront.server.telemetry.live_feed import EventKind, LiveFeed
from bucketfront.server.telemetry.request_metrics import RequestTotals
from bucketfront.server.telemetry.request_ranking import RequestRanking

INTERVAL_S = 1.0  # between two samples, each of which is an event
RATE_SAMPLES = 6  # rates are over the seconds between the first and the last of so many: one second alone jumps
MAX_FILLS_SHOWN = 20  # the oldest ones
MAX_HOT_SHOWN = 20  # objects by requests, and by bytes
LEAST_PER_S = 0.001  # an object with fewer requests a second is hot no more

_NOT_LOOKED_UP = frozenset({"method", "bypass"})  # decisions on requests that the cache could not have served


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Figure(Strict):
    """A number since the start, and how much it grew each second of late."""

    total: int
    per_s: float


class Decision(Strict):
    """Requests with one decision of the cache, and the bytes of objects that their clients got."""

    requests: Figure
    bytes: Figure


class HotObject(Strict):
    """An object with its requests and bytes a second, averaged over the last minutes. Both may be somewhat more."""

    path: str
    requests_per_s: float
    bytes_per_s: float


class Hottest(Strict):
    """The objects with the most requests, and those with the most bytes."""

    by_requests: list[HotObject]
    by_bytes: list[HotObject]


class TopFill(Strict):
    """An object that is being fetched, with its first path or `bucket/key`. `/api/v1/fills` has more of it."""

    path: str
    percent: float
    size: int
    readers: int
    rate: float
    seconds_left: float | None


class Connections(Strict):
    """Connections of clients."""

    open: int
    limit: int


class CacheUse(Strict):
    """What the cache holds. Sizes are in bytes."""

    entries: int
    bytes_used: int
    bytes_limit: int


class Top(Strict):
    """What the proxy does now. `rate_s` is the number of seconds that the rates are over.

    The ratios are of these seconds, from 0 to 1, and null without a request. `slowest` has lines of the access log.
    """

    time: str
    rate_s: float
    figures: dict[str, Figure]
    decisions: dict[str, Decision]
    hit_ratio: float | None
    byte_hit_ratio: float | None
    fetches_running: int
    fills: list[TopFill]
    connections: Connections
    cache: CacheUse
    hottest: Hottest
    slowest: list[dict[str, Any]]
    degraded: list[str]


@dataclass(frozen=True, slots=True)
class _Sample:
    """All counters at one time, by the loop's clock."""

    at: float
    figures: Mapping[str, int]
    requests: Mapping[str, int]
    sent: Mapping[str, int]


class LiveFigures:
    """Samples the counters once a second, and makes frames of them. Never walks the entries of the cache.

    `totals` returns what all requests add up to. `clock` is in seconds, and `wall` in seconds since the epoch.
    """

    def __init__(
        self,
        feed: LiveFeed,
        cache: Cache,
        connections: ConnectionLimit,
        health: Health,
        totals: Callable[[], RequestTotals],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.feed = feed
        self._cache = cache
        self._connections = connections
        self._health = health
        self._totals = totals
        self._clock = clock
        self._wall = wall
        self._samples: deque[_Sample] = deque((self._sample(cache.statistics()),), maxlen=RATE_SAMPLES)

    def adopt(self, router: Router) -> None:
        """Name objects by the paths that this router has, from now on. Call it before the first frame."""
        self._router = router

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.tick()

    def tick(self) -> None:
        """Take a sample, and publish a frame."""
        self._samples.append(self._sample(self._cache.statistics()))
        self.feed.publish(EventKind.FIGURES, self.frame_json)

    def frame_json(self) -> str:
        """Return `frame` as one line of JSON."""
        return json.dumps(self.frame())

    def frame(self) -> dict[str, Any]:
        """Return what `Top` describes. The counters are those of this moment."""
        statistics, ranking = self._cache.statistics(), self.feed.ranking
        now, first = self._sample(statistics), self._samples[0]
        span = max(now.at - first.at, INTERVAL_S)

        def figure(total: int, before: int) -> dict[str, float]:
            return {"total": total, "per_s": round((total - before) / span, 3)}

        requests = {name: count - first.requests.get(name, 0) for name, count in now.requests.items()}
        sent = {name: count - first.sent.get(name, 0) for name, count in now.sent.items()}
        return {
            "time": datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "rate_s": round(span, 3),
            "figures": {name: figure(total, first.figures[name]) for name, total in now.figures.items()},
            "decisions": {
                name: {
                    "requests": figure(now.requests[name], first.requests.get(name, 0)),
                    "bytes": figure(now.sent[name], first.sent.get(name, 0)),
                }
                for name in sorted(now.requests)
            },
            "hit_ratio": _hit_ratio(requests),
            "byte_hit_ratio": _hit_ratio(sent),
            "fetches_running": statistics.flights_running,
            "fills": [self._fill(view) for view in self._cache.fills(MAX_FILLS_SHOWN)],
            "connections": {"open": self._connections.total, "limit": self._connections.limit},
            "cache": {
                "entries": statistics.entries,
                "bytes_used": statistics.bytes_used,
                "bytes_limit": statistics.bytes_limit,
            },
            "hottest": _hottest(ranking),
            "slowest": [json.loads(json_lines((request,))) for request in ranking.slowest.top()],
            "degraded": sorted(reason.value for reason in self._health.reasons),
        }

    def _fill(self, view: FillView) -> dict[str, Any]:
        found = fill_of(view, self._router)
        path = found.paths[0] if found.paths else f"{found.bucket}/{found.key}"
        shown = found.model_dump(include={"percent", "size", "rate", "seconds_left"})
        return {"path": path, "readers": found.reader_count, **shown}

    def _sample(self, statistics: Statistics) -> _Sample:
        totals = self._totals()
        figures = {
            "requests": sum(totals.requests.values()),
            "sent_bytes": sum(totals.sent.values()),
            "received_bytes": totals.received,
            "client_errors": totals.client_errors,
            "server_errors": totals.server_errors,
            "cut": totals.cut,
            "lookups": statistics.lookups,
            "part_fetches": statistics.flights,
            "evicted": statistics.evicted,
        }
        return _Sample(self._clock(), figures, totals.requests, totals.sent)


def _hit_ratio(by_decision: Mapping[str, int]) -> float | None:
    """Return the share of hits in what the cache might have served. Returns None if that is nothing."""
    all_of_them = sum(count for name, count in by_decision.items() if name not in _NOT_LOOKED_UP)
    hits = by_decision.get("hit", 0) + by_decision.get("stale-hit", 0)
    return round(hits / all_of_them, 4) if all_of_them else None


def _hottest(ranking: RequestRanking) -> dict[str, list[dict[str, Any]]]:
    requests, sent = ranking.by_requests, ranking.by_bytes
    window = requests.window_s

    def shown(by: HotKeys) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {
                "path": hot.key,
                "requests_per_s": round(requests.weight(hot.key) / window, 3),
                "bytes_per_s": round(sent.weight(hot.key) / window, 1),
            }
            for hot in by.top(MAX_HOT_SHOWN)
        ]
        return [each for each in found if each["requests_per_s"] >= LEAST_PER_S]

    return {"by_requests": shown(requests), "by_bytes": shown(sent)}
