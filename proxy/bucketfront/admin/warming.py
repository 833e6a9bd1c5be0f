"""`POST /api/v1/warm`: begins a job that fills the cache ahead of use."""

import asyncio
from collections.abc import Mapping
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from bucketfront.admin.jobs import JobReport, report
from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.refusal import Refused, error_response
from bucketfront.admin.request_body import read_json
from bucketfront.cache import CacheMode
from bucketfront.config.quantities import Size
from bucketfront.errors import BadPath, NoSuchMount
from bucketfront.warm.item import Item, named
from bucketfront.warm.manifest import Wanted
from bucketfront.warm.registry import JobRegistry, TooManyJobs, Wish

MAX_PATHS = 10_000  # of one request; a prefix fills more
MAX_PATHS_PER_TURN = 256  # parsed in one turn of the loop (docs/invariants.md#cost-of-a-request)
MAX_PARALLEL = 32
DEFAULT_PARALLEL = 4

_Path = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
_Host = Annotated[str, StringConstraints(min_length=1, max_length=255, to_lower=True)]


class WantedObject(BaseModel):
    """One object, and maybe the value of a Range header, if only a part of it is to be filled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: _Path
    range: Annotated[str, StringConstraints(max_length=1000)] | None = None


class WarmRequest(BaseModel):
    """The body of a warm. `paths`, `prefix` and those of `objects` are percent-encoded request paths.

    `rate` is in bytes a second, or a size such as `50MB`. `follow` fills what playlists and sitemaps name as well.
    `hosts` are names that stand for this proxy in their absolute URLs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: Annotated[tuple[_Path, ...], Field(max_length=MAX_PATHS)] = ()
    objects: Annotated[tuple[WantedObject, ...], Field(max_length=MAX_PATHS)] = ()
    prefix: _Path | None = None
    rate: Annotated[Size, Field(gt=0)] | None = None
    parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = DEFAULT_PARALLEL
    follow: bool = True
    hosts: Annotated[tuple[_Host, ...], Field(max_length=100)] = ()


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/warm": Operation(
        hdrs.METH_POST,
        "Fill the cache ahead of use, in a job",
        {202: (Body(Media.JSON, JobReport),), 409: FAILURE},
        WarmRequest,
    ),
}


class Warming:
    """Begins the jobs that operators request."""

    def __init__(self, jobs: JobRegistry, names: frozenset[str], mode: CacheMode) -> None:
        """`names` are those under which clients reach this proxy."""
        self._jobs = jobs
        self._mode = mode
        self._names = names
        self.handlers = {"/api/v1/warm": self._warm}

    async def _warm(self, request: web.BaseRequest) -> web.Response:
        wanted = await read_json(request, WarmRequest)
        if self._mode is CacheMode.OBSERVE:
            raise Refused(409, "cache.mode is observe, so that nothing is stored: there is nothing to fill")
        try:
            wish = await self._wish(wanted)
            job = self._jobs.start(wish)
        except (BadPath, NoSuchMount) as error:
            raise Refused(400, str(error)) from error
        except TooManyJobs as error:
            return error_response(503, str(error), {"Retry-After": "10"})
        return web.json_response(report(job), status=202, headers={"Location": f"/api/v1/jobs/{job.id}"})

    async def _wish(self, wanted: WarmRequest) -> Wish:
        """Return what a request wants. Raises BadPath, NoSuchMount."""
        below = [] if wanted.prefix is None else self._jobs.places.below(wanted.prefix)
        objects = [*(Wanted(path) for path in wanted.paths), *(Wanted(one.path, one.range) for one in wanted.objects)]
        if not objects and not below:
            raise BadPath("name paths, objects or a prefix to fill")
        items: list[Item] = []
        for at in range(0, len(objects), MAX_PATHS_PER_TURN):
            items += named(objects[at : at + MAX_PATHS_PER_TURN], self._jobs.places)
            await asyncio.sleep(0)
        return Wish(
            tuple(items), tuple(below), wanted.rate, wanted.parallel, wanted.follow, self._names | {*wanted.hosts}
        )
