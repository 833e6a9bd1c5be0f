"""`POST /api/v1/purge`: removes objects from the cache, marks them stale, or only counts them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.purge_paths import PurgePaths
from bucketfront.admin.refusal import Refused
from bucketfront.admin.request_body import read_json
from bucketfront.cache import Cache, KeyRange, Purged, PurgeMode, PurgeSelection
from bucketfront.config.mount_settings import MountSettings
from bucketfront.errors import BadPath, NoSuchMount, StoreError
from bucketfront.fleet.bus import BusError
from bucketfront.fleet.fleet import Fleet
from bucketfront.http.cache_tags import MAX_TAG_CHARS, is_tag
from bucketfront.keys import ObjectKey

MAX_PATHS = 10_000  # of one request; a prefix purges more
MAX_TAGS = 1000  # of one request
MAX_PATHS_PER_TURN = 64  # mapped to keys in one turn of the loop (docs/invariants.md#cost-of-a-request)
MAX_PATH_CHARS = 8192
MAX_OBJECTS = 1000  # that a dry run lists
PURGE_TIMEOUT_S = 300.0  # a million entries take a tenth of it

_Path = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATH_CHARS)]
_Tag = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TAG_CHARS)]


class PurgeRequest(BaseModel):
    """The body of a purge. `paths` and `prefix` are percent-encoded request paths, as clients send them.

    `glob` is decoded. With `dry_run` nothing changes. The response comes once the purge has ended here, with
    `wait: false` before that, and with `wait: true` once all live proxies of the bus have applied it as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: Annotated[tuple[_Path, ...], Field(max_length=MAX_PATHS)] = ()
    prefix: _Path | None = None
    glob: _Path | None = None
    tags: Annotated[tuple[_Tag, ...], Field(max_length=MAX_TAGS)] = ()
    all: StrictBool = False
    soft: StrictBool = False
    dry_run: StrictBool = False
    wait: StrictBool | None = None


class PurgeableObject(BaseModel):
    """An object that a purge would remove. `path` shows it, and is null if no mount does."""

    model_config = ConfigDict(extra="forbid")

    path: str | None
    bucket: str
    key: str
    version: str | None


class PurgedResponse(BaseModel):
    """How many entries were removed, or with `soft` marked stale. A dry run only counts them, and lists some."""

    model_config = ConfigDict(extra="forbid")

    purged: int
    dry_run: bool = False
    acknowledged: list[str] | None = Field(default=None, description="The live proxies that have applied it.")
    unacknowledged: list[str] | None = Field(default=None, description="The live proxies that have not.")
    objects: list[PurgeableObject] = []


class Accepted(BaseModel):
    """The purge has begun, and goes on."""

    model_config = ConfigDict(extra="forbid")

    accepted: bool


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/purge": Operation(
        hdrs.METH_POST,
        "Remove objects from the cache, or mark them stale",
        {
            200: (Body(Media.JSON, PurgedResponse),),
            202: (Body(Media.JSON, Accepted),),
            **dict.fromkeys((500, 504), FAILURE),
        },
        PurgeRequest,
    ),
}


class Purges:
    """Runs the purges that operators request."""

    def __init__(self, cache: Cache, mounts: tuple[MountSettings, ...], fleet: Fleet | None = None) -> None:
        self._cache = cache
        self._fleet = fleet
        self._paths = PurgePaths(mounts)
        self.handlers = {"/api/v1/purge": self._purge}

    async def _purge(self, request: web.BaseRequest) -> web.Response:
        wanted = await read_json(request, PurgeRequest)
        try:
            selection = await self._selected(wanted)
        except (BadPath, NoSuchMount) as error:
            raise Refused(400, str(error)) from error
        mode = PurgeMode.EXPIRE if wanted.soft else PurgeMode.REMOVE
        if wanted.dry_run:
            return await self._dry_run(await self._run(selection, PurgeMode.COUNT))
        if wanted.wait is False:
            self._cache.purge_later(selection, mode)
            return web.json_response({"accepted": True}, status=202)
        purged = await self._run(selection, mode)
        return web.json_response({"purged": purged.count, **(await self._acknowledged() if wanted.wait else {})})

    async def _acknowledged(self) -> dict[str, Sequence[str]]:
        """Return which live proxies have applied the purge, and which have not. Without a bus there are no others."""
        if self._fleet is None:
            return {}
        try:
            found = await self._fleet.acknowledged()
        except BusError as error:
            why = f"purged here; other proxies learn of it once the bus can be reached: {error}"
            raise Refused(504, why) from error
        return {"acknowledged": found.done, "unacknowledged": found.missing}

    async def _run(self, selection: PurgeSelection, mode: PurgeMode) -> Purged:
        try:
            async with asyncio.timeout(PURGE_TIMEOUT_S):
                return await self._cache.purge_selected(selection, mode)
        except TimeoutError as error:
            raise Refused(504, f"the purge goes on; it was not complete within {PURGE_TIMEOUT_S:g} s") from error
        except StoreError as error:
            done = "they are stale" if mode is PurgeMode.EXPIRE else "memory has forgotten them"
            raise Refused(500, f"{done}, but the disk refused, so a kill may undo it: {error}") from error

    async def _dry_run(self, purged: Purged) -> web.Response:
        objects = []
        for number, key in enumerate(purged.sample[:MAX_OBJECTS], 1):
            name, version = key.key, key.version
            objects.append({"path": self._paths.path_of(key), "bucket": key.bucket, "key": name, "version": version})
            if not number % MAX_PATHS_PER_TURN:
                await asyncio.sleep(0)
        return web.json_response({"purged": purged.count, "dry_run": True, "objects": objects})

    async def _selected(self, wanted: PurgeRequest) -> PurgeSelection:
        """Return what a request selects. Raises BadPath, NoSuchMount."""
        ranges: list[KeyRange] = []
        if wanted.prefix is not None:
            ranges += self._paths.below(wanted.prefix)
        if wanted.glob is not None:
            ranges += self._paths.matching(wanted.glob)
        if not all(map(is_tag, wanted.tags)):
            raise BadPath("a tag must not have commas or white space")
        keys = await self._keys(wanted.paths)
        if not keys and not ranges and not wanted.tags and not wanted.all:
            raise BadPath("name paths, a prefix, a glob or tags to purge, or all")
        return PurgeSelection.of(keys, ranges, tags=wanted.tags, everything=wanted.all, versions=bool(keys))

    async def _keys(self, paths: Sequence[str]) -> set[ObjectKey]:
        found: set[ObjectKey] = set()
        for number, path in enumerate(paths, 1):
            found |= self._paths.keys(path)
            if not number % MAX_PATHS_PER_TURN:
                await asyncio.sleep(0)
        return found
