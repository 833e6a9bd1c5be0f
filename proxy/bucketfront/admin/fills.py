"""`GET /api/v1/fills`: the objects that are being fetched from the origin, with their parts and readers."""

from collections.abc import Mapping
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field

from bucketfront.admin.operation import Body, Media, Operation
from bucketfront.admin.query import read_query
from bucketfront.cache import Cache, FillView, PartView, ReaderView
from bucketfront.server.router import Router

MAX_LISTED = 1000  # in one response, which takes some milliseconds to make


class FillsQuery(BaseModel):
    """How many fills to list at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = 100


class FillPart(BaseModel):
    """A part fetch: the bytes from `start` up to `stop`, of which those before `mark` are in the file."""

    model_config = ConfigDict(extra="forbid")

    start: int
    mark: int
    stop: int
    state: str
    seconds: float


class FillReader(BaseModel):
    """A reader at `offset`, on its way from `start` to `stop`. A background reader stands for no client."""

    model_config = ConfigDict(extra="forbid")

    start: int
    offset: int
    stop: int
    waiting: bool
    background: bool


class RunningFill(BaseModel):
    """One object that is being fetched. Sizes are in bytes, and `rate` is in bytes per second.

    `runs` are the first runs of present blocks, each from its first block up to the one behind its last. `parts` and
    `readers` are bounded; the counts have all of them.
    """

    model_config = ConfigDict(extra="forbid")

    bucket: str
    key: str
    version: str | None
    paths: list[str]
    etag: str
    size: int
    present: int
    percent: float
    block_size: int
    runs: list[tuple[int, int]]
    rate: float
    seconds: float
    seconds_left: float | None
    parts: list[FillPart]
    part_count: int
    readers: list[FillReader]
    reader_count: int


class FillList(BaseModel):
    """The fills that run now, the oldest first."""

    model_config = ConfigDict(extra="forbid")

    fills: list[RunningFill]


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/fills": Operation(
        hdrs.METH_GET,
        "The objects that are being fetched from the origin",
        {200: (Body(Media.JSON, FillList),)},
        query=FillsQuery,
    ),
}


class Fills:
    """Lists the fills of the cache."""

    def __init__(self, cache: Cache, router: Router) -> None:
        self._cache = cache
        self._router = router
        self.handlers = {"/api/v1/fills": self._fills}

    async def _fills(self, request: web.BaseRequest) -> web.Response:
        wanted = read_query(request, FillsQuery)
        found = FillList(fills=[fill_of(view, self._router) for view in self._cache.fills(wanted.limit)])
        return web.json_response(text=found.model_dump_json())


def fill_of(view: FillView, router: Router) -> RunningFill:
    """Return the model of a fill."""
    left = view.size - view.present
    return RunningFill(
        bucket=view.key.bucket,
        key=view.key.key,
        version=view.key.version,
        paths=list(router.paths(view.key)),
        etag=view.etag,
        size=view.size,
        present=view.present,
        percent=percent(view.present, view.size),
        block_size=view.block_size,
        runs=list(view.runs),
        rate=round(view.rate, 1),
        seconds=round(view.seconds, 3),
        seconds_left=round(left / view.rate, 1) if view.rate else None,
        parts=[_part(part) for part in view.parts],
        part_count=view.part_count,
        readers=[_reader(reader) for reader in view.readers],
        reader_count=view.reader_count,
    )


def percent(present: int, size: int) -> float:
    """Return which part of an object is present, rounded down: 100 means all of it."""
    return 1000 * present // size / 10 if size else 100.0


def _part(view: PartView) -> FillPart:
    return FillPart(start=view.start, mark=view.mark, stop=view.stop, state=view.state, seconds=round(view.seconds, 3))


def _reader(view: ReaderView) -> FillReader:
    return FillReader(
        start=view.start,
        offset=view.offset,
        stop=view.stop,
        waiting=view.is_waiting,
        background=view.is_background,
    )
