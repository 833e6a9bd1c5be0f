"""`POST /api/v1/purge`: removes objects from the cache, or marks them stale."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from bucketfront.admin.json_body import read_json
from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.refusal import Refused
from bucketfront.cache import Cache
from bucketfront.errors import BadPath, NoSuchMount, StoreError
from bucketfront.keys import ObjectKey
from bucketfront.server.router import Router

MAX_PATHS = 10_000  # of one request; a prefix purges more
MAX_PATHS_PER_TURN = 256  # parsed in one turn of the loop (docs/invariants.md#cost-of-a-request)
PURGE_TIMEOUT_S = 300.0  # a million entries take a tenth of it

_Path = Annotated[str, StringConstraints(min_length=1, max_length=8192)]


class PurgeRequest(BaseModel):
    """The body of a purge. `paths` and `prefix` are percent-encoded request paths, as clients send them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: Annotated[tuple[_Path, ...], Field(max_length=MAX_PATHS)] = ()
    prefix: _Path | None = None
    soft: bool = False


class Purged(BaseModel):
    """How many entries were removed, or with `soft` marked stale."""

    model_config = ConfigDict(extra="forbid")

    purged: int


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/purge": Operation(
        hdrs.METH_POST,
        "Remove objects from the cache, or mark them stale",
        {
            200: (Body(Media.JSON, Purged),),
            **dict.fromkeys((408, 413, 415, 500, 504), FAILURE),
        },
        PurgeRequest,
    ),
}


class Purges:
    """Runs the purges that operators request."""

    def __init__(self, cache: Cache, router: Router) -> None:
        self._cache = cache
        self._router = router
        self.handlers = {"/api/v1/purge": self._purge}

    async def _purge(self, request: web.BaseRequest) -> web.Response:
        wanted = await read_json(request, PurgeRequest)
        try:
            keys, prefixes = await self._selected(wanted)
        except (BadPath, NoSuchMount) as error:
            raise Refused(400, str(error)) from error
        try:
            async with asyncio.timeout(PURGE_TIMEOUT_S):
                purged = await self._cache.purge(keys, prefixes, soft=wanted.soft, versions=True)
        except TimeoutError as error:
            raise Refused(504, f"the purge goes on; it was not complete within {PURGE_TIMEOUT_S:g} s") from error
        except StoreError as error:
            raise Refused(500, f"memory has forgotten them, but the disk refused: {error}") from error
        return web.json_response({"purged": purged})

    async def _selected(self, wanted: PurgeRequest) -> tuple[list[ObjectKey], list[ObjectKey]]:
        """Return the keys and prefixes of a request. Raises BadPath, NoSuchMount."""
        keys = [key async for key in self._keys(wanted.paths)]
        prefixes = [] if wanted.prefix is None else self._prefixes(wanted.prefix)
        if not keys and not prefixes:
            raise BadPath("name paths or a prefix to purge")
        return keys, prefixes

    async def _keys(self, paths: Sequence[str]) -> AsyncIterator[ObjectKey]:
        for number, path in enumerate(paths, 1):
            yield self._router.locate(path).unadmitted_key()
            if not number % MAX_PATHS_PER_TURN:
                await asyncio.sleep(0)

    def _prefixes(self, path: str) -> list[ObjectKey]:
        route = self._router.locate(path)
        octets = route.mount.prefix.encode() + route.octets
        try:
            return [ObjectKey(route.mount.bucket, octets.decode())]
        except UnicodeDecodeError as error:
            raise BadPath("the prefix is not UTF-8") from error
