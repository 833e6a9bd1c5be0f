"""One request and what becomes of it, as the log and the metrics see it."""

from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDict

from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.grammar import Headers

VIA = "1.1 bucketfront"


def fields_of_all(status: CacheStatus, common: Headers) -> CIMultiDict[str]:
    """What every answer carries; `common` is this listener's."""
    headers = CIMultiDict({"Server": "bucketfront", "Via": VIA, "Cache-Status": str(status)})
    headers.extend(common)
    return headers


@dataclass(eq=False, slots=True)
class Exchange:
    """`started` is in seconds of a monotonic clock; `sent` counts body bytes of an object, `received` those of an
    upload. `common` are the fields that this listener's every answer carries. `marks` are phases and how many seconds
    they took, told to the client if `tells_timing`. `fault` is why an answer was cut off or failed.
    """

    request: web.BaseRequest
    started: float
    common: Headers = ()
    tells_timing: bool = False
    status: CacheStatus = CacheStatus(Forward.BYPASS)  # noqa: RUF009 - frozen
    sent: int = 0
    received: int = 0
    fault: str | None = None
    marks: dict[str, float] = field(default_factory=dict)

    def spent(self, phase: str, seconds: float) -> None:
        self.marks[phase] = self.marks.get(phase, 0.0) + seconds

    def headers(self) -> CIMultiDict[str]:
        """What every answer carries, whatever it says."""
        headers = fields_of_all(self.status, self.common)
        if self.tells_timing:
            headers["Server-Timing"] = self._timing()
        return headers

    def _timing(self) -> str:
        """Server Timing, W3C: what the cache decided, and milliseconds of each phase so far."""
        word = "hit" if self.status.fwd is None else str(self.status.fwd)
        return ", ".join((f"cache;desc={word}", *(f"{name};dur={1000 * s:.1f}" for name, s in self.marks.items())))
