"""One request and what becomes of it, as the log and the metrics see it."""

from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict

from proxy.http.cache_status import CacheStatus, Forward

VIA = "1.1 bucketfront"


@dataclass(eq=False, slots=True)
class Exchange:
    """`started` is in seconds of a monotonic clock; `sent` counts body bytes of an object, `received` those of an
    upload. `fault` is why an answer was cut off or failed.
    """

    request: web.BaseRequest
    started: float
    cors: str | None
    status: CacheStatus = CacheStatus(Forward.BYPASS)  # noqa: RUF009 - frozen
    sent: int = 0
    received: int = 0
    fault: str | None = None

    def headers(self) -> CIMultiDict[str]:
        """What every answer carries, whatever it says."""
        headers = CIMultiDict({"Server": "bucketfront", "Via": VIA, "Cache-Status": str(self.status)})
        if self.cors is not None:
            headers["Access-Control-Allow-Origin"] = self.cors
            headers["Access-Control-Expose-Headers"] = "*"
            if self.cors != "*":
                headers["Vary"] = "Origin"
        return headers
