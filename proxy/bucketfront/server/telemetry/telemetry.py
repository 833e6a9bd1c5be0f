"""What is told of a finished request: one line in the access log, and the metrics (I28).

Both are made in batches: a request only leaves a record, and a batch is settled when it is full or a moment old.
A `kill -9` loses the lines of the last `FLUSH_INTERVAL` seconds, and those that the log's reader has not taken yet.
"""

import asyncio
import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from bucketfront.http.cache_status import CacheStatus
from bucketfront.server.telemetry.access_log import AccessLog, AccessRecord, Record
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.server.telemetry.request_metrics import RequestMetrics

FLUSH_INTERVAL = 0.1  # seconds that a line may wait for others
BATCH = 64  # records; to format more of them in one go would be felt by the requests behind


def outcome(status: CacheStatus) -> str:
    """The cache decision in one word, from a closed set."""
    if status.fwd is None:
        return "hit" if status.detail is None else "stale"
    return str(status.fwd)


class Telemetry:
    """Counts and logs each exchange once, when it is over; lines come in the order of the ends. It belongs to the
    event loop in which requests end. `clock` is wall time in seconds since the epoch.
    """

    def __init__(
        self, registry: CollectorRegistry, access_log: AccessLog, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._log = access_log
        self._tally = RequestMetrics(registry, self._settle, lambda: access_log.lost)
        self._pending: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None

    def hit(self, told: AccessRecord, sent: int, client: str, at: float, seconds: float) -> None:
        """One more answer of which `told` is true: `sent` bytes, ended `at` (seconds since the epoch), in `seconds`."""
        self._pending.append((told, sent, client, at, seconds))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_INTERVAL, self._on_timer)
        elif len(self._pending) >= BATCH:
            self._settle()

    def finished(self, exchange: Exchange, status: int, seconds: float) -> None:
        request = exchange.request
        told = AccessRecord(
            method=request.method,
            path=request.raw_path.partition("?")[0],
            status=status,
            cache=str(exchange.status).removeprefix("bucketfront; "),
            outcome=outcome(exchange.status),
            received=exchange.received,
            fault=exchange.fault,
        )
        self.hit(told, exchange.sent, _peer(request), self._clock(), seconds)

    def cut(self) -> None:
        self._tally.cut()

    def flush(self) -> None:
        """Count all that ended, and hand its lines to the log's thread."""
        self._settle()
        self._log.wake()

    def drain(self, patience: float) -> bool:
        """As `flush`, and wait at most `patience` seconds until the lines are written; whether they are. Blocks."""
        self.flush()
        return self._log.drain(patience)

    def close(self) -> None:
        """Flush, and close the access log. Blocks, as long as the log takes at most (I20)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._settle()
        self._log.close()

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()

    def _settle(self) -> None:
        """Nothing of a request is kept after this but numbers, and its line on its way out."""
        if self._pending:
            records, self._pending = self._pending, []
            self._tally.add(records)
            self._log.add(records)


def _peer(request: web.BaseRequest) -> str:
    return request.remote or "-"
