"""`GET /api/v1/archive` and `POST /api/v1/import`: what the cache holds with its bytes, out of it and into another."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field

from bucketfront.admin.jobs import JobFailure
from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.query import read_query
from bucketfront.admin.refusal import Refused
from bucketfront.cache import CacheMode
from bucketfront.errors import StoreError
from bucketfront.http import media_types
from bucketfront.keys import ObjectKey
from bucketfront.server.client_progress import ClientWatch
from bucketfront.server.receive.request_body import invite
from bucketfront.server.router import Router
from bucketfront.warm.archive import BadArchive
from bucketfront.warm.archive_import import ArchiveImport, ImportState
from bucketfront.warm.places import Places
from bucketfront.warm.transfers import TransferRuns, Transfers

log = logging.getLogger(__name__)

RECEIVE_TIMEOUT_S = 120.0  # without a byte of an archive; the other host may read from a slow disk
MAX_DROPPED_BYTES = 64 << 20  # of an archive behind its end, so that a client gets the response and no reset
RETRY_AFTER_S = 10


class ArchiveQuery(BaseModel):
    """How much is wanted: `limit` is in bytes of the archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1 << 60)] | None = None


class ImportReport(BaseModel):
    """What an import has done. Each object of the archive counts once.

    `imported` ones were stored, at least in part. `present` ones were there. S3 has another version of `changed` ones,
    and no more a `gone` one. `not_stored` ones are kept out of the cache by a rule, their own fields, their size or the
    disk. `outside` ones have a path below no mount. `failures` has the first ones of the `failed`. `damaged` counts
    pieces that do not fit their checksums. `received` are bytes of the archive, and `bytes` those stored.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    state: ImportState
    message: str
    received: int
    objects: int
    imported: int
    present: int
    changed: int
    gone: int
    not_stored: int
    outside: int
    failed: int
    failures: list[JobFailure]
    damaged: int
    bytes: int


class LastImport(BaseModel):
    """The import that runs, or the last one. It is null before the first one."""

    model_config = ConfigDict(extra="forbid")

    last: ImportReport | None


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/archive": Operation(
        hdrs.METH_GET,
        "What the cache holds with its bytes, the most used first",
        {200: (Body(Media.TAR),), 503: FAILURE},
        query=ArchiveQuery,
    ),
    "/api/v1/import": Operation(
        hdrs.METH_POST,
        "Take what an archive has into the cache, if S3 still has it",
        {200: (Body(Media.JSON, ImportReport),), 409: FAILURE, 415: FAILURE, 503: FAILURE},
        takes=Media.TAR,
    ),
    "/api/v1/import/last": Operation(
        hdrs.METH_GET, "What the last import has done", {200: (Body(Media.JSON, LastImport),)}
    ),
}


class Archives:
    """Sends archives, and receives them."""

    def __init__(self, transfers: Transfers, router: Router, places: Places, mode: CacheMode) -> None:
        self._transfers = transfers
        self._router = router
        self._places = places
        self._mode = mode
        self.handlers = {
            "/api/v1/archive": self._export,
            "/api/v1/import": self._import,
            "/api/v1/import/last": self._last,
        }

    # --- sending ---------------------------------------------------------------------------------------------

    async def _export(self, request: web.BaseRequest) -> web.StreamResponse:
        limit = read_query(request, ArchiveQuery).limit
        fields = {"Content-Type": Media.TAR.value, "Cache-Control": "no-store"}
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=fields)
        response = web.StreamResponse(headers=fields)
        response.force_close()
        try:
            with self._transfers.export(self._path_of, limit) as export:
                await response.prepare(request)
                await _send(request, response, export.content())
        except TransferRuns as error:
            raise Refused(503, str(error), {"Retry-After": str(RETRY_AFTER_S)}) from error
        return response

    def _path_of(self, key: ObjectKey) -> str | None:
        return next(iter(self._router.paths(key)), None)

    # --- receiving -------------------------------------------------------------------------------------------

    async def _import(self, request: web.BaseRequest) -> web.Response:
        fields = request.headers
        # A page can send other types without a preflight (Fetch standard, section 2.2.2).
        if media_types.essence(fields.get(hdrs.CONTENT_TYPE, "")) != Media.TAR.value:
            raise Refused(415, f"the body must be an archive, with Content-Type: {Media.TAR.value}")
        if hdrs.CONTENT_ENCODING in fields:
            raise Refused(415, "the body must not have a Content-Encoding")
        if self._mode is CacheMode.OBSERVE:
            raise Refused(409, "cache.mode is observe, so that nothing is stored")

        async def read(count: int) -> bytes:
            try:
                async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                    return await request.content.read(count)
            except TimeoutError as error:
                raise BadArchive(f"no byte came for {RECEIVE_TIMEOUT_S:g} s; import the file again to go on") from error
            except web.RequestPayloadError:
                return b""

        try:
            running = self._transfers.begin_import(self._places.key, read)
        except TransferRuns as error:
            raise Refused(503, str(error), {"Retry-After": str(RETRY_AFTER_S)}) from error
        invite(request)
        await running.run()
        await _drop_rest(request)
        return web.json_response(_report(running))

    async def _last(self, _: web.BaseRequest) -> web.Response:
        last = self._transfers.last_import
        return web.json_response({"last": None if last is None else _report(last)})


async def _send(request: web.BaseRequest, response: web.StreamResponse, content: AsyncGenerator[bytes, None]) -> None:
    """Send an archive. If that fails, abort the connection, so that the client does not take it for complete."""
    watch = ClientWatch()
    try:
        async with aclosing(content):
            async for chunk in content:
                async with watch.wait(request.transport):
                    await response.write(chunk)
        await response.write_eof()
    except (StoreError, TimeoutError, ConnectionError) as error:
        log.warning("an export ends early: %s", str(error) or "its client takes nothing")
        if request.transport is not None:
            request.transport.abort()


async def _drop_rest(request: web.BaseRequest) -> None:
    """Receive what is left of a body up to a bound, and drop it."""
    left = MAX_DROPPED_BYTES
    try:
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            while left > 0 and (chunk := await request.content.readany()):
                left -= len(chunk)
    except (TimeoutError, web.RequestPayloadError):
        pass


def _report(found: ArchiveImport) -> dict[str, Any]:
    tally = found.tally
    return ImportReport(
        id=found.id,
        state=found.state,
        message=found.message,
        received=found.received,
        objects=tally.objects,
        imported=tally.imported,
        present=tally.present,
        changed=tally.changed,
        gone=tally.gone,
        not_stored=tally.not_stored,
        outside=tally.outside,
        failed=tally.failed,
        failures=[JobFailure(path=one.path, reason=one.reason) for one in tally.failures],
        damaged=found.damaged,
        bytes=tally.bytes,
    ).model_dump(mode="json")
