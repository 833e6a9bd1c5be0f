"""The last response to each path, for operators who want to know why it was what it was.

The memory is bounded: it has the hashes of the paths of MAX_REMEMBERED responses at most, and whole requests of
MAX_RECENT.
"""

from collections.abc import Iterable
from typing import NamedTuple

from bucketfront.server.telemetry.access_log import FinishedRequest

MAX_REMEMBERED = 10_000  # paths
MAX_RECENT = 512  # paths whose last request is kept as it came, because a hot path has another one in each batch


class LastResponse(NamedTuple):
    """A response, ended at `at` (seconds since the epoch). `cache` is its Cache-Status without the proxy's name.

    `fault` is the reason of a failure.
    """

    at: float
    method: str
    status: int
    cache: str
    fault: str | None


class LastResponses:
    """Remembers responses in two generations: a full one replaces the one before it, so that no response is moved."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit // 2
        self._newer: dict[int, LastResponse] = {}  # by the hash of the path
        self._older: dict[int, LastResponse] = {}
        self._recent: dict[str, FinishedRequest] = {}  # by the path; later than both of the others

    def __len__(self) -> int:
        self._shorten_recent()
        return len(self._newer) + len(self._older)

    def add(self, requests: Iterable[FinishedRequest]) -> None:
        """Remember requests in the order of their ends."""
        recent = self._recent
        for request in requests:
            recent[request[0].path] = request
        if len(recent) >= MAX_RECENT:
            self._shorten_recent()

    def find(self, path: str) -> LastResponse | None:
        """Return the last response to a path, as it was sent and without its query. Returns None if it is unknown."""
        self._shorten_recent()
        name = hash(path)
        return self._newer.get(name) or self._older.get(name)

    def _shorten_recent(self) -> None:
        recent, self._recent = self._recent, {}
        for path, (record, _, _, at, _, _) in recent.items():
            if len(self._newer) >= self._limit:
                self._older, self._newer = self._newer, {}
            self._newer[hash(path)] = LastResponse(at, record.method, record.status, record.cache, record.fault)
