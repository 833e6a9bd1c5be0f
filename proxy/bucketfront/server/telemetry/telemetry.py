"""Records each finished request: a line in the access log, and its share of the metrics.

Both happen in batches. A request leaves a record, and a batch is processed once it is full or FLUSH_INTERVAL_S old.
A `kill -9` loses the lines of that time, and those that the log's reader has not taken yet.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from bucketfront.http import request_ids
from bucketfront.http.cache_status import CacheStatus, Detail
from bucketfront.http.trace_context import TRACEPARENT
from bucketfront.server.client_address import shown
from bucketfront.server.telemetry.access_log import (
    CLIENT_CLOSED_REQUEST,
    LAST,
    AccessLog,
    AccessRecord,
    FinishedRequest,
)
from bucketfront.server.telemetry.client_reads import ClientReads
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.server.telemetry.forecast import Forecast
from bucketfront.server.telemetry.logged_fields import NAMES, NOTHING, LoggedFields, names_of
from bucketfront.server.telemetry.request_metrics import RequestMetrics, RequestTotals
from bucketfront.server.telemetry.sizing import Sizing, SizingCurve
from bucketfront.task_set import TaskSet

FLUSH_INTERVAL_S = 0.1  # that a line may wait for others; a person who watches the log does not notice it
MAX_BATCH = 64  # records; the requests behind would notice the time that a larger batch takes to format


_MODES = (Detail.OBSERVE, Detail.SHADOW)  # in which S3 serves the reads of clients, and the cache could have


def outcome(status: CacheStatus) -> str:
    """Return the cache's decision as a label of the metrics, from a closed set."""
    if status.fwd is None:
        return "stale-hit" if status.ttl is not None and status.ttl <= 0 else "hit"
    if status.detail in _MODES:
        return status.detail.value
    return str(status.fwd)


def _first_byte(exchange: Exchange, status: int) -> float | None:
    """Return when the first byte of the response left, as `AccessRecord` has it."""
    if exchange.first_byte is not None:
        return exchange.first_byte
    return None if status == CLIENT_CLOSED_REQUEST or exchange.cut is not None else LAST


def _ignore(requests: Sequence[FinishedRequest]) -> None:
    """Do nothing, for a telemetry without an observer."""


class Telemetry:
    """Counts and logs each request once, when it has ended. The log has the order of the ends.

    It belongs to the event loop of the requests. `clock` is wall time in seconds since the epoch. `logged` are the
    names of the request fields that the log has. `observe` gets each batch of requests as well.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        access_log: AccessLog,
        clock: Callable[[], float] = time.time,
        logged: frozenset[str] = names_of(()),
        observe: Callable[[Sequence[FinishedRequest]], None] = _ignore,
        curve: SizingCurve | Forecast | None = None,
    ) -> None:
        self._clock = clock
        self._logged = logged
        self._curve = curve
        self._log = access_log
        self._observe = observe
        self._replaced: list[AccessLog] = []  # logs that still write their last lines
        self._lost_before = 0  # lines of logs that have ended
        self._closing = TaskSet()
        self._metrics = RequestMetrics(registry, self._process_batch, lambda: self.lines_lost, curve=curve)
        self._pending: list[FinishedRequest] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self,
        record: AccessRecord,
        sent: int,
        client: str,
        at: float,
        seconds: float,
        fields: LoggedFields = NOTHING,
    ) -> None:
        """Add one request with the facts of `record`: `sent` bytes, ended `at` (seconds since the epoch)."""
        self._pending.append((record, sent, client, at, seconds, fields))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_INTERVAL_S, self._on_timer)
        elif len(self._pending) >= MAX_BATCH:
            self._process_batch()

    def finished(self, exchange: Exchange, status: int, seconds: float) -> None:
        """Add the request of an exchange that has ended."""
        request = exchange.request
        record = AccessRecord(
            method=request.method,
            path=request.raw_path.partition("?")[0],
            status=status,
            cache=str(exchange.status).removeprefix("bucketfront; "),
            outcome=outcome(exchange.status),
            mount=exchange.mount,
            key=exchange.key,
            size=exchange.size,
            from_origin=exchange.from_origin,
            first_byte=_first_byte(exchange, status),
            received=exchange.received,
            fault=exchange.fault,
            cut=exchange.cut,
            failure=exchange.failure,
            user=exchange.user,
            span_id=exchange.span_id,
            trace_id=exchange.begun_trace,
            is_sampling_decided=True,
            observed=exchange.observed,
        )
        client = shown(exchange.address, request.remote)
        self.add(record, exchange.sent, client, self._clock(), seconds, self._fields(exchange))

    def refused(self, exchange: Exchange, status: int) -> None:
        """Add a request that the parser refused, of which neither method nor path is known."""
        record = AccessRecord(
            method="-",
            path="-",
            status=status,
            cache=str(exchange.status).removeprefix("bucketfront; "),
            outcome=outcome(exchange.status),
            fault=exchange.fault,
            is_sampling_decided=True,
        )
        self.add(record, 0, exchange.request.remote or "-", self._clock(), 0.0, self._fields(exchange))

    def _fields(self, exchange: Exchange) -> LoggedFields:
        """Return the request's own fields. Its id is the one that it got, if it did not bring one."""
        values = {name: exchange.request.headers.get(name) for name in self._logged}
        values[request_ids.NAME.lower()] = exchange.request_id
        if exchange.trace is None:
            values[TRACEPARENT] = None
        return tuple(values.get(name) for name in NAMES)

    @property
    def reads(self) -> Mapping[str, ClientReads]:
        """Return what clients have read, by mount."""
        return self._metrics.reads

    def totals(self) -> RequestTotals:
        """Return what all requests add up to."""
        return self._metrics.totals()

    def sizing(self) -> Sizing | None:
        """Return the hit ratios of other sizes of the cache. Returns None before the first request.

        There are none either if the cache does not serve. Then `forecast` has more.
        """
        self._process_batch()
        return self._curve.sizing() if isinstance(self._curve, SizingCurve) else None

    def forecast(self) -> Forecast | None:
        """Return what the cache would give if it served. Returns None if it serves."""
        self._process_batch()
        return self._curve if isinstance(self._curve, Forecast) else None

    @property
    def lines_lost(self) -> int:
        return self._lost_before + sum(each.lost for each in (*self._replaced, self._log))

    def flush(self) -> None:
        """Count all requests that have ended, and have their lines written. Does not wait for that."""
        self._process_batch()
        self._log.flush()

    def reopen(self) -> None:
        """Have the lines of requests that end later written to a file that is opened anew. Does not wait for that."""
        self._process_batch()
        self._log.reopen()

    def change_log(self, access_log: AccessLog, logged: frozenset[str]) -> None:
        """Have the lines of requests that end later written to another log. The one before is closed in a thread."""
        self._process_batch()
        self._logged = logged
        before, self._log = self._log, access_log
        self._replaced.append(before)
        self._closing.start(self._close_replaced(before), name="close the access log before a reload")

    async def _close_replaced(self, access_log: AccessLog) -> None:
        await asyncio.to_thread(access_log.close)
        self._replaced.remove(access_log)
        self._lost_before += access_log.lost

    def drain(self, timeout_s: float) -> bool:
        """Flush, and wait until the lines are written or lost. Blocks. Returns False if that takes longer."""
        self.flush()
        return self._log.drain(timeout_s)

    def close(self) -> None:
        """Flush, and close the access log. Blocks for at most the log's CLOSE_TIMEOUT_S."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._process_batch()
        self._log.close()

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()

    def _process_batch(self) -> None:
        """Count the pending requests and format their lines. Only the observer keeps some of their records."""
        if self._pending:
            requests, self._pending = self._pending, []
            self._metrics.add(requests)
            self._log.add(requests)
            self._observe(requests)
