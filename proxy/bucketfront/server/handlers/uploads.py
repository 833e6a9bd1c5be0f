"""Handles PUT, POST and DELETE."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import hdrs, web
from multidict import CIMultiDict
from ulid import ULID

from bucketfront.config.mount_settings import MountSettings, UploadSettings
from bucketfront.errors import AccessDenied, BadPath, ErrorResponse, Forbidden
from bucketfront.fair_share import FairShares, Resource, Shares, UsedUp, current_client
from bucketfront.fair_slots import FairSlots, Wait
from bucketfront.http import aws_chunked, delete_objects, multipart_form, query, s3_requests, write_head
from bucketfront.http.body_checksums import BodyChecksums
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.delete_objects import Deleted, DeleteFailure, DeleteOutcome, DeleteRequest, NamedObject
from bucketfront.http.key_template import KeyTemplate
from bucketfront.http.s3_refusal import S3Refused
from bucketfront.http.s3_requests import Dialect
from bucketfront.http.write_head import NoSuchWrite, WriteHead
from bucketfront.keys import ObjectKey
from bucketfront.s3.upload.uploader import Written
from bucketfront.server.error_responses import TooLarge
from bucketfront.server.object_writer import ObjectWriter
from bucketfront.server.receive import forms
from bucketfront.server.receive.forms import Form, FormFile
from bucketfront.server.receive.request_body import invite, received, required_length, verified
from bucketfront.server.router import Route
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.server.telemetry.origin_failure import OriginFailure

MAX_DELETES_AT_ONCE = 8  # DeleteObjects; each has a document and up to 1000 keys in memory (docs/invariants.md#memory)
RESERVED_DELETES_PART = 2  # half of them, because each may wait for its client for DELETE_DEADLINE_S
DELETE_SLOT_TIMEOUT_S = 10.0  # until one of them is over; then the client is refused and may retry
DELETE_DEADLINE_S = 60.0  # for a document, of at most 2 MiB, to arrive


class UploadHandler:
    """Handles the writes of clients. Without `settings` there is no upload route, and their defaults are the bounds.

    `clock` is wall time in seconds since the epoch. `share_of_one` is that of a client in the DeleteObjects at once,
    from 0 to 1. `shares` counts refusals. With `deletes_versions` a DeleteObjects may name versions.
    """

    def __init__(
        self,
        writer: ObjectWriter,
        settings: UploadSettings | None,
        clock: Callable[[], float],
        shares: FairShares,
        share_of_one: float,
        *,
        deletes_versions: bool = False,
    ) -> None:
        self._writer = writer
        self._settings = settings or UploadSettings()
        self._clock = clock
        self._shares = shares
        self._deletes_versions = deletes_versions
        self._deletes = FairSlots(Shares(MAX_DELETES_AT_ONCE, share_of_one, RESERVED_DELETES_PART))

    async def put(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Respond with 201 and the key, or with those of a form's files. To a client of S3, respond as its PutObject.

        Raises ProxyErrors. None of them leaves a shorter object (docs/invariants.md#write-atomicity).
        """
        request = exchange.request
        content_type = request.headers.get(hdrs.CONTENT_TYPE)
        if request.method == hdrs.METH_POST:
            multipart_form.refuse_without_file(request.headers)
            if multipart_form.is_form(content_type):
                return await self._put_form(exchange, route, multipart_form.boundary_of(content_type or ""))
        head, framing = write_head.parse_framed(request.headers.items())
        key = route.key_to_write(self._new_name(route) if route.makes_key else "")
        exchange.key = key
        mount = route.mount_of_write(key)
        head = _fitted(head, key, mount)
        length, limit = required_length(request), self._limit(mount)
        write_head.refuse_part(request.headers, length)
        if framing is None:
            _refuse_too_large(length, limit)
            if not length and length is not None:
                BodyChecksums(head.checksums).verify()  # S3 takes an empty body without reading it
            chunks = verified(self._body(exchange, length, limit), head.checksums)
        else:
            _refuse_too_large(framing.length, limit)
            body = self._body(exchange, length, aws_chunked.longest_body(limit))
            chunks = _bounded(verified(body, head.checksums, framing), limit)
            length = framing.length or None  # a body is always read, because that of an empty object has a framing
        written = await self._writer.store(key, chunks, length, head, request.content.is_eof)
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=200)
        if exchange.dialect is Dialect.S3 and request.method == hdrs.METH_PUT:
            return _stored(exchange, written)
        return _created(exchange, route, key, written.etag)

    async def delete(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Respond with 204, also if there was no such object, as S3 does."""
        head = write_head.parse(exchange.request.headers.items())
        if head.only_if_absent or head.if_match is not None:
            raise NoSuchWrite("a DELETE on a condition is not taken here")
        key = exchange.key = route.key()
        exchange.status = CacheStatus(Forward.METHOD)
        await self._writer.delete(key)
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=204)
        return web.Response(status=204, headers=_headers(exchange))

    async def delete_many(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Respond to S3's DeleteObjects with 200 and an XML document that has the result for each key."""

        async def respond(_: bytes, wanted: DeleteRequest) -> web.StreamResponse:
            return await self._delete_named(exchange, route, wanted)

        return await self.with_document(exchange, respond)

    async def with_document(
        self, exchange: Exchange, respond: Callable[[bytes, DeleteRequest], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Respond to a DeleteObjects by what `respond` makes of its body as sent, and of the document in it.

        Raises MalformedXml, NotXml, MissingChecksum, TooLarge, and UsedUp if too many are under way.
        """
        request = exchange.request
        head, framing = write_head.parse_framed(request.headers.items())
        length, limit = required_length(request), delete_objects.MAX_BODY_BYTES
        has_checksum = bool(head.checksums) or (framing is not None and bool(framing.trailing))
        delete_objects.check_head(request.headers.get(hdrs.CONTENT_TYPE), has_checksum=has_checksum)
        if framing is not None:
            limit = aws_chunked.longest_body(limit)  # the parser bounds the document itself
        _refuse_too_large(length, limit)
        wait = Wait(current_client())
        try:
            async with asyncio.timeout(DELETE_SLOT_TIMEOUT_S):
                await self._deletes.acquire(wait)
        except TimeoutError:
            refusal = self._deletes.shares.refusal(wait.client) or UsedUp.WHOLE
            self._shares.refuse(Resource.DELETES, wait.client, refusal)
        try:
            sent: list[bytes] = []
            body = _noted(self._body(exchange, length, limit, DELETE_DEADLINE_S), sent)
            chunks = verified(body, head.checksums, framing, exchange.chunk_signatures)
            wanted = await _delete_request(chunks)
            return await respond(b"".join(sent), wanted)
        finally:
            self._deletes.release(wait.client)

    async def _delete_named(self, exchange: Exchange, route: Route, wanted: DeleteRequest) -> web.Response:
        outcomes: dict[NamedObject, DeleteOutcome] = {}  # of each object once, as in S3's response
        keys: dict[ObjectKey, NamedObject] = {}
        for named in wanted.objects:
            found = self._key_to_delete(route, named)
            if isinstance(found, ObjectKey):
                outcomes[named] = Deleted()
                keys[found] = named
            else:
                outcomes[named] = found
        if keys:
            results = await self._writer.delete_many(list(keys))
            outcomes |= {keys[key]: outcome for key, outcome in results.items()}
            _note_refusals(exchange, list(results.values()))
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=200)
        return web.Response(
            body=delete_objects.result(outcomes.items(), quiet=wanted.quiet),
            headers={**_headers(exchange), hdrs.CONTENT_TYPE: "application/xml"},
        )

    def _key_to_delete(self, route: Route, named: NamedObject) -> ObjectKey | DeleteFailure:
        try:
            key = route.key(named.key)
        except BadPath:
            return DeleteFailure("KeyTooLongError", "Your key is too long.")
        except (AccessDenied, Forbidden, S3Refused):
            return DeleteFailure("AccessDenied", "Access Denied")
        if named.is_conditional or (named.version is not None and not self._deletes_versions):
            return DeleteFailure("NotImplemented", "This condition or version is not taken here.")
        if named.version is not None and not query.is_version_id(named.version):
            return DeleteFailure("NoSuchVersion", "The specified version does not exist.")
        return key._replace(version=named.version)

    async def _put_form(self, exchange: Exchange, route: Route, boundary: str) -> web.StreamResponse:
        head = write_head.parse(exchange.request.headers.items())
        limit = self._limit(route.mount)
        length = required_length(exchange.request)
        write_head.refuse_part(exchange.request.headers, length)
        _refuse_too_large(length, limit + forms.MAX_OVERHEAD_BYTES)

        async def store(key: ObjectKey, chunks: AsyncIterator[bytes], head: WriteHead) -> Written:
            exchange.key = exchange.key or key  # of several files, the log has the first
            mount = route.mount_of_write(key)
            chunks = verified(_bounded(chunks, self._limit(mount)), head.checksums)
            head = _fitted(head, key, mount)
            whole = _WholeBody(chunks)
            return await self._writer.store(key, whole.chunks(), None, head, lambda: whole.has_arrived)

        form = Form(route, head, store, self._clock())
        try:
            stored = await form.read(self._body(exchange, length, limit + forms.MAX_OVERHEAD_BYTES), boundary)
        finally:
            if form.is_presigned:
                exchange.dialect = Dialect.S3
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=200)
        if form.is_presigned:
            return _posted(exchange, route, stored[0], form.status)
        if len(stored) == 1:
            return _created(exchange, route, stored[0].key, stored[0].etag)
        return _json(exchange, [forms.description(route, one) for one in stored])

    def _body(
        self, exchange: Exchange, length: int | None, limit: int, deadline: float = math.inf
    ) -> AsyncIterator[bytes]:
        """Return the body. Call this once only the body itself can still be refused, because it invites the client."""
        invite(exchange.request)
        exchange.status = CacheStatus(Forward.METHOD)
        return received(exchange, length, limit, min(deadline, self._settings.deadline))

    def _limit(self, mount: MountSettings) -> int:
        """Return how many bytes one upload may have."""
        limit = self._settings.max_size
        return limit if mount.max_size is None else min(mount.max_size, limit)

    def _new_name(self, route: Route) -> str:
        return KeyTemplate(route.mount.key_template).key(self._clock(), str(ULID()))


def _fitted(head: WriteHead, key: ObjectKey, mount: MountSettings) -> WriteHead:
    """Return the head with the mount's settings applied. Raises PreconditionFailed."""
    if mount.guess_types:
        head = head.with_guessed_type(key.key)
    return head.write_once() if mount.write_once else head


def _refuse_too_large(length: int | None, limit: int) -> None:
    """Raise TooLarge if the declared length exceeds the limit."""
    if length is not None and length > limit:
        raise TooLarge(f"the body has {length} bytes; {limit} are taken here")


async def _delete_request(chunks: AsyncIterator[bytes]) -> DeleteRequest:
    """Return the parsed document. Raises MalformedXml."""
    parser = delete_objects.DeleteRequestParser()
    async for chunk in chunks:
        parser.feed(chunk)
        await asyncio.sleep(0)  # bytes that have arrived come without a pause (docs/invariants.md#cost-of-a-request)
    return parser.close()


async def _noted(chunks: AsyncIterator[bytes], sent: list[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        sent.append(bytes(chunk))
        yield chunk


class _WholeBody:
    """The bytes of one file of a form. `has_arrived` is true once all of them have come."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.has_arrived = False

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk
        self.has_arrived = True


async def _bounded(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Yield the chunks. Raises TooLarge if they exceed the limit."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"a file has more than the {limit} bytes that are taken here")
        yield chunk


def _note_refusals(exchange: Exchange, results: list[DeleteOutcome]) -> None:
    """Note the keys that S3 did not delete for the access log, because the status is 200."""
    refused = [outcome.code for outcome in results if isinstance(outcome, DeleteFailure)]
    if refused:
        cause = f"{len(refused)} of {len(results)} keys were not deleted"
        exchange.failure = OriginFailure(cause, ErrorResponse(200, refused[0]))


def _headers(exchange: Exchange) -> CIMultiDict[str]:
    """Return the headers of a response to a write that a client of S3 may parse."""
    headers = exchange.headers()
    if exchange.dialect is Dialect.S3:
        headers.update(exchange.s3_fields())
    return headers


def _stored(exchange: Exchange, written: Written | FormFile) -> web.Response:
    """Return S3's response to a PutObject (S3 API, "PutObject")."""
    headers = _headers(exchange)
    if written.etag:
        headers[hdrs.ETAG] = written.etag
    if written.version is not None:
        headers["x-amz-version-id"] = written.version
    return web.Response(headers=headers)


def _posted(exchange: Exchange, route: Route, file: FormFile, wanted_status: str) -> web.Response:
    """Return S3's response to a form: 204, or the 200 or 201 that the form wants (S3 API, "POST Object").

    The form's redirects are not followed. Any page can send a form, so its user would believe that we chose the target.
    """
    response = _stored(exchange, file)
    response.headers[hdrs.LOCATION] = location = route.location(file.key)
    if wanted_status == "201":
        bucket = route.mount.path.strip("/")
        response.body = s3_requests.post_document(location, bucket, route.relative(file.key), file.etag)
        response.headers[hdrs.CONTENT_TYPE] = "application/xml"
    response.set_status({"200": 200, "201": 201}.get(wanted_status, 204))
    return response


def _created(exchange: Exchange, route: Route, key: ObjectKey, etag: str) -> web.Response:
    response = _json(exchange, {"key": route.relative(key)})
    response.headers[hdrs.LOCATION] = route.location(key)
    if etag:
        response.headers[hdrs.ETAG] = etag
    if write_head.is_declared_whole(exchange.request.headers):
        response.headers["Upload-Offset"] = str(exchange.received)  # without it, such a client sends the object again
    return response


def _json(exchange: Exchange, content: object) -> web.Response:
    return web.Response(
        status=201,
        body=json.dumps(content, ensure_ascii=False).encode() + b"\n",
        headers={**exchange.headers(), hdrs.CONTENT_TYPE: "application/json"},
    )
