"""`GET /api/v1/entries`: what the cache holds, page by page, in the order of the keys."""

import asyncio
import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.purge_paths import PurgePaths
from bucketfront.admin.query import read_query
from bucketfront.admin.refusal import Refused
from bucketfront.cache import Cache, EntryView, KeyRange
from bucketfront.config.mount_settings import MountSettings
from bucketfront.errors import BadPath, NoSuchMount, StoreError
from bucketfront.keys import ObjectKey
from bucketfront.server.router import Router

MAX_LISTED = 1000  # in one page
ENTRIES_PER_TURN = 32  # read and described in one turn of the loop (docs/invariants.md#cost-of-a-request)

_Text = Annotated[str, StringConstraints(min_length=1, max_length=8192)]


class EntriesQuery(BaseModel):
    """Which entries to list.

    `prefix` is a percent-encoded path, as that of a purge. `cursor` is that of the page before, and needs the same
    prefix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: _Text = "/"
    cursor: _Text | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = 100


class ListedEntry(BaseModel):
    """One entry. Times are in seconds since the epoch, and `ttl` in seconds: negative for a stale entry.

    `paths` are those by which clients read it. `stored` counts its bytes on the disk, in whole units of the file
    system. `validated_at` is null after a soft purge.
    """

    model_config = ConfigDict(extra="forbid")

    bucket: str
    key: str
    version: str | None
    paths: list[str]
    etag: str
    type: str | None
    size: int
    stored: int
    stored_at: float
    validated_at: float | None
    accessed_at: float
    ttl: float


class EntryPage(BaseModel):
    """Entries in the order of bucket and key. `cursor` leads to the next page, and is null on the last one."""

    model_config = ConfigDict(extra="forbid")

    entries: list[ListedEntry]
    cursor: str | None


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/entries": Operation(
        hdrs.METH_GET,
        "What the cache holds",
        {200: (Body(Media.JSON, EntryPage),), 500: FAILURE},
        query=EntriesQuery,
    ),
}


class Entries:
    """Lists the entries of the cache."""

    def __init__(self, cache: Cache, mounts: tuple[MountSettings, ...]) -> None:
        self._cache = cache
        self._router = Router(mounts, None)
        self._paths = PurgePaths(mounts)
        self.handlers = {"/api/v1/entries": self._entries}

    async def _entries(self, request: web.BaseRequest) -> web.Response:
        wanted = read_query(request, EntriesQuery)
        after = None if wanted.cursor is None else _key_of(wanted.cursor)
        try:
            places = outermost(self._paths.below(wanted.prefix))
            found = await self._below(places, after, wanted.limit + 1)
        except (BadPath, NoSuchMount) as error:
            raise Refused(400, str(error)) from error
        except StoreError as error:
            raise Refused(500, str(error)) from error
        cursor = cursor_of(found[wanted.limit - 1].key) if len(found) > wanted.limit else None
        listed: list[ListedEntry] = []
        for number, view in enumerate(found[: wanted.limit], 1):
            listed.append(listed_entry(view, self._router))
            if not number % ENTRIES_PER_TURN:
                await asyncio.sleep(0)
        page = EntryPage(entries=listed, cursor=cursor)
        return web.json_response(text=page.model_dump_json())

    async def _below(self, places: Sequence[KeyRange], after: ObjectKey | None, limit: int) -> list[EntryView]:
        """Return the next entries of these places. Raises StoreError."""
        found: list[EntryView] = []
        for place in places:
            last = after if after is not None and after.bucket == place.bucket else None
            if after is not None and place.bucket < after.bucket:
                continue
            while len(found) < limit:
                count = min(ENTRIES_PER_TURN, limit - len(found))
                page, last = self._cache.entries(place.bucket, place.prefix, last, count)
                found += page
                await asyncio.sleep(0)
                if last is None:
                    break
        return found


def outermost(places: Iterable[KeyRange]) -> list[KeyRange]:
    """Return the places in order, without those within another one."""
    found: list[KeyRange] = []
    for place in sorted(places, key=lambda place: (place.bucket, place.prefix)):
        if not found or not found[-1].covers(place):
            found.append(place)
    return found


def listed_entry(view: EntryView, router: Router) -> ListedEntry:
    """Return the model of an entry."""
    return ListedEntry(
        bucket=view.key.bucket,
        key=view.key.key,
        version=view.key.version,
        paths=list(router.paths(view.key)),
        etag=view.metadata.etag,
        type=view.metadata.header("Content-Type"),
        size=view.metadata.size,
        stored=view.stored,
        stored_at=view.stored_at,
        validated_at=view.validated_at,
        accessed_at=view.accessed_at,
        ttl=round(view.ttl, 3),
    )


def cursor_of(key: ObjectKey) -> str:
    """Return the cursor that leads behind a key. It holds for any page, whatever entries come and go."""
    parts = (key.bucket, key.key, *(() if key.version is None else (key.version,)))
    return base64.urlsafe_b64encode("\0".join(parts).encode()).decode()


def _key_of(cursor: str) -> ObjectKey:
    """Return the key of a cursor. Raises Refused."""
    try:
        bucket, key, *version = base64.b64decode(cursor, b"-_", validate=True).decode().split("\0", 2)
    except (ValueError, binascii.Error) as error:
        raise Refused(400, "this cursor is of no page; begin without one") from error
    return ObjectKey(bucket, key, version[0] if version else None)
