"""What is told of a finished request: one line in the access log, and the metrics (I28)."""

import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram

from proxy.config import AccessLogSettings
from proxy.http.cache_status import CacheStatus
from proxy.server.exchange import Exchange

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


def outcome(status: CacheStatus) -> str:
    """The cache decision in one word, from a closed set."""
    if status.fwd is None:
        return "hit" if status.detail is None else "stale"
    return str(status.fwd)


class AccessLog:
    """Lines to a file or, as `-`, to standard output. `json` is one object a line; `text` is for people."""

    def __init__(self, settings: AccessLogSettings) -> None:
        self._format = settings.format
        self._logger = logging.Logger("bucketfront.access")  # noqa: LOG001 - lines only, no part of the tree
        handler: logging.Handler
        if settings.path == "-":
            handler = logging.StreamHandler(sys.stdout)
        else:
            handler = logging.FileHandler(Path(settings.path), delay=False)
        self._logger.addHandler(handler)
        self._handler = handler

    def write(self, line: "Line") -> None:
        self._logger.info("%s", line.as_json() if self._format == "json" else line.as_text())

    def close(self) -> None:
        self._handler.close()


@dataclass(frozen=True, slots=True)
class Line:
    """`at` in seconds since the epoch; `seconds` the duration; sizes in bytes. The path comes without its query,
    which may hold a signature.
    """

    at: float
    client: str
    method: str
    path: str
    status: int
    sent: int
    received: int
    seconds: float
    cache: str
    fault: str | None

    def as_json(self) -> str:
        told = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.at)) + f".{int(self.at % 1 * 1000):03d}Z",
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "sent": self.sent,
            "ms": round(self.seconds * 1000, 2),
            "cache": self.cache,
        }
        if self.received:
            told["received"] = self.received
        if self.fault is not None:
            told["fault"] = self.fault
        return json.dumps(told)

    def as_text(self) -> str:
        # `ascii` keeps CR, LF and ESC out of the terminal.
        fault = "" if self.fault is None else f" ({self.fault!a})"
        return (
            f"{self.client} {ascii(self.method)[1:-1]} {ascii(self.path)[1:-1]} {self.status}"
            f" {self.sent} B {self.seconds * 1000:.1f} ms [{self.cache}]{fault}"
        )


class Observer:
    """Counts and logs each exchange once, when it is over."""

    def __init__(self, registry: CollectorRegistry, access_log: AccessLog) -> None:
        self._log = access_log
        self._requests = Counter(
            "bucketfront_requests", "Requests by method, status class and cache decision.",
            ("method", "status", "cache"), registry=registry,
        )  # fmt: skip
        self._sent = Counter("bucketfront_sent_bytes", "Body bytes of objects sent to clients.", registry=registry)
        self._received = Counter("bucketfront_received_bytes", "Body bytes of uploads.", registry=registry)
        self._cut = Counter(
            "bucketfront_responses_cut", "Responses cut off after their head, by us.", registry=registry
        )
        self._seconds = Histogram(
            "bucketfront_request_seconds",
            "Time to the last byte.",
            ("cache",),
            buckets=_BUCKETS,
            registry=registry,
        )

    def finished(self, exchange: Exchange, status: int, seconds: float) -> None:
        request = exchange.request
        method = request.method if request.method in _METHODS else "other"
        word = outcome(exchange.status)
        self._requests.labels(method, f"{status // 100}xx", word).inc()
        self._seconds.labels(word).observe(seconds)
        self._sent.inc(exchange.sent)
        self._received.inc(exchange.received)
        self._log.write(
            Line(
                at=time.time(),
                client=_peer(request),
                method=request.method,
                path=request.raw_path.partition("?")[0],
                status=status,
                sent=exchange.sent,
                received=exchange.received,
                seconds=seconds,
                cache=str(exchange.status).removeprefix("bucketfront; "),
                fault=exchange.fault,
            )
        )

    def cut(self) -> None:
        self._cut.inc()


def _peer(request: web.BaseRequest) -> str:
    return request.remote or "-"
