"""`GET /api/v1/export`: what the cache holds, by heat, for the manifest from which another instance warms."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, StringConstraints

from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.query import read_query
from bucketfront.admin.refusal import Refused
from bucketfront.cache import Cache, Held
from bucketfront.errors import StoreError
from bucketfront.http.ranges import Span
from bucketfront.server.router import Router
from bucketfront.warm import heat

_CURSOR = r"^-?[0-9]{1,20}(\.[0-9]{1,20})?:[0-9]{1,18}$"


class ExportQuery(BaseModel):
    """Where a page begins: the `cursor` of the page before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cursor: Annotated[str, StringConstraints(pattern=_CURSOR)] | None = None


class HeldObject(BaseModel):
    """An object that the cache holds. `range` is the value of a Range header, null for all of it.

    `accessed_at` is in seconds since the epoch. `uses` are requests after the first one, of which few are counted.
    """

    model_config = ConfigDict(extra="forbid")

    path: str
    range: str | None
    size: int
    accessed_at: float
    uses: int


class ExportPage(BaseModel):
    """A page of objects. `cursor` is a parameter for the next page, null after the last one.

    Pages are in the order of the last access, the newest first. In a page, those with more uses come first. Objects
    that are used between two pages move to the front.
    """

    model_config = ConfigDict(extra="forbid")

    objects: list[HeldObject]
    cursor: str | None


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/export": Operation(
        hdrs.METH_GET,
        "What the cache holds, the most used first",
        {200: (Body(Media.JSON, ExportPage),), 500: FAILURE},
        query=ExportQuery,
    ),
}


class Exports:
    """Shows what the cache holds."""

    def __init__(self, cache: Cache, router: Router) -> None:
        self._cache = cache
        self._router = router
        self.handlers = {"/api/v1/export": self._export}

    async def _export(self, request: web.BaseRequest) -> web.Response:
        before = _place(read_query(request, ExportQuery).cursor)
        try:
            found = await heat.page(self._cache, before)
        except StoreError as error:
            raise Refused(500, str(error)) from error
        objects = [shown for held in found.held for shown in self._shown(held)]
        cursor = None if found.after is None else f"{found.after[0]!r}:{found.after[1]}"
        return web.json_response({"objects": objects, "cursor": cursor})

    def _shown(self, held: Held) -> Iterator[dict[str, object]]:
        """Yield the object under one of its paths. A pinned version has none, and neither has one without bytes."""
        if held.key is None or held.key.version is not None or (held.size and not held.spans):
            return
        path = next(iter(self._router.paths(held.key)), None)
        if path is not None:
            whole = None if held.is_complete else _range(held.spans)
            yield {
                "path": path,
                "range": whole,
                "size": held.size,
                "accessed_at": held.accessed_at,
                "uses": held.uses,
            }


def _range(spans: tuple[Span, ...]) -> str:
    return "bytes=" + ",".join(f"{span.start}-{span.stop - 1}" for span in spans)


def _place(cursor: str | None) -> tuple[float, int] | None:
    """Return the place that a cursor names."""
    if cursor is None:
        return None
    accessed_at, _, entry = cursor.partition(":")
    return float(accessed_at), int(entry)
