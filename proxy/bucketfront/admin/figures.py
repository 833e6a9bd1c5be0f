"""`/metrics` and `/api/v1/stats`: the figures of the running proxy."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, create_model

from bucketfront import __version__
from bucketfront.admin.operation import Body, Media, Operation
from bucketfront.admin.summary import Summary, SummaryFigures
from bucketfront.cache import Cache, Statistics

_STATISTICS: dict[str, Any] = {
    field.name: (dict[str, int] if field.name == "endings" else field.type, ...) for field in fields(Statistics)
}
Stats: type[BaseModel] = create_model(
    "Stats",
    __doc__=Statistics.__doc__,
    __config__=ConfigDict(extra="forbid"),
    version=(str, ...),
    summary=(SummaryFigures, ...),
    **_STATISTICS,
)

OPERATIONS: Mapping[str, Operation] = {
    "/metrics": Operation(hdrs.METH_GET, "Metrics for Prometheus", {200: (Body(Media.TEXT),)}),
    "/api/v1/stats": Operation(hdrs.METH_GET, "The cache in figures", {200: (Body(Media.JSON, Stats),)}),
}


class Figures:
    """Responds with the figures of `registry`, and with those of the cache and their summary."""

    def __init__(
        self, registry: CollectorRegistry, cache: Cache, summary: Summary, catch_up: Callable[[], Awaitable[None]]
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._summary = summary
        self._catch_up = catch_up
        self.handlers = {"/metrics": self._metrics, "/api/v1/stats": self._stats}

    async def _metrics(self, _: web.BaseRequest) -> web.Response:
        await self._catch_up()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _stats(self, _: web.BaseRequest) -> web.Response:
        await self._catch_up()
        figures = asdict(self._cache.statistics())
        figures["endings"] = dict(figures["endings"])
        summary = self._summary.figures().model_dump()
        return web.json_response({"version": __version__, "summary": summary, **figures})
