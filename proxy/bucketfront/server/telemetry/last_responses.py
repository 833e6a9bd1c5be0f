"""The last response to each path, for operators who want to know why it was what it was.

It costs a few hundred nanoseconds for each kind of response in a batch. The memory is bounded: it has the hashes of the
paths of MAX_REMEMBERED responses at most, and none of the paths.
"""

from collections.abc import Iterable
from typing import NamedTuple

from bucketfront.server.telemetry.access_log import FinishedRequest

MAX_REMEMBERED = 10_000  # paths


class LastResponse(NamedTuple):
    """A response, ended at `at` (seconds since the epoch). `cache` is its Cache-Status without the proxy's name.

    `fault` is the reason of a failure. It is a tuple, because it is made for each kind of response in a batch.
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

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def add(self, requests: Iterable[FinishedRequest]) -> None:
        """Remember requests in the order of their ends. Responses of one kind share a record."""
        for record, at in {request[0]: request[3] for request in requests}.items():
            if len(self._newer) >= self._limit:
                self._older, self._newer = self._newer, {}
            self._newer[hash(record.path)] = LastResponse(at, record.method, record.status, record.cache, record.fault)

    def find(self, path: str) -> LastResponse | None:
        """Return the last response to a path, as it was sent and without its query. Returns None if it is unknown."""
        name = hash(path)
        return self._newer.get(name) or self._older.get(name)
