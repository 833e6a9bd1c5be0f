"""Which finished requests an operator wants to see."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from bucketfront.http.cache_status import Forward
from bucketfront.http.glob import Glob
from bucketfront.server.telemetry.access_log import FinishedRequest

MAX_REMEMBERED = 8192  # paths of which it is known whether they match: a glob takes microseconds, a hit few more
MAX_REMEMBERED_LENGTH = 512  # characters of such a path (docs/invariants.md#memory)

DECISIONS = frozenset({"hit", "stale-hit", *map(str, Forward)})
"""The cache's decisions, as `AccessRecord.outcome` has them."""


@dataclass(eq=False, slots=True)
class RequestFilter:
    """What a request must be. A condition that is left out holds for all requests.

    `path` is compared with the path as people read it, without percent-encoding. A status is one of `statuses`, or its
    hundreds are among `classes`. `decisions` are those of the cache: "hit", "miss" and so on. `slow_s` is the least
    duration in seconds.
    """

    path: Glob | None = None
    statuses: frozenset[int] = frozenset()
    classes: frozenset[int] = frozenset()
    decisions: frozenset[str] = frozenset()
    slow_s: float = 0.0
    _remembered: dict[str, bool] = field(default_factory=dict, init=False, repr=False)

    def select(self, requests: Sequence[FinishedRequest]) -> Sequence[FinishedRequest]:
        """Return the requests for which all conditions hold, in their order."""
        # The cheapest conditions come first, because they see the requests of each batch.
        if self.slow_s:
            requests = [request for request in requests if request[4] >= self.slow_s]
        if self.decisions:
            requests = [request for request in requests if request[0].outcome in self.decisions]
        if self.statuses or self.classes:
            requests = [request for request in requests if self._has_status(request[0].status)]
        if self.path is not None:
            requests = [request for request in requests if self._has_path(request[0].path)]
        return requests

    def _has_status(self, status: int) -> bool:
        return status in self.statuses or status // 100 in self.classes

    def _has_path(self, path: str) -> bool:
        found = self._remembered.get(path)
        if found is None:
            assert self.path is not None
            found = self.path.matches(unquote(path, errors="replace") if "%" in path else path)
            if len(path) <= MAX_REMEMBERED_LENGTH:
                if len(self._remembered) >= MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[path] = found
        return found
