"""Resumable uploads on `uploads.path`: the tus protocol, 1.0.0 (tus.io/protocols/resumable-upload).

The upload's URL is `{uploads.path}/{id}`. Only requests with Tus-Resumable belong to the protocol.
"""

from collections.abc import Callable, Mapping

from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from ulid import ULID

from bucketfront.config.mount_settings import MountSettings, UploadSettings
from bucketfront.http import dates, tus_fields, write_head
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.checksums import Digest
from bucketfront.http.grammar import Headers
from bucketfront.http.key_template import KeyTemplate, has_dot_segment
from bucketfront.http.write_head import OBJECT_FIELDS, NoSuchWrite
from bucketfront.keys import ObjectKey, url_path
from bucketfront.server.error_responses import OffsetConflict, TooLarge
from bucketfront.server.receive.request_body import declared_length, invite, received
from bucketfront.server.router import MethodNotAllowed, Route
from bucketfront.server.telemetry.exchange import Exchange
from bucketfront.tus.manager import MAX_CHECKED_BYTES, UploadManager
from bucketfront.tus.refusals import UnknownUpload
from bucketfront.tus.tus_upload import TusUpload

MAX_DESCRIPTION_CHARS = 8 << 10  # of an object's headers and Upload-Metadata; S3 accepts 2 KiB of user metadata

# Headers of the creating request that become the object's, beside `x-amz-meta-*`. Its Content-Type and its checksums
# belong to the piece in its body.
_KEPT = frozenset({*OBJECT_FIELDS, "x-amz-tagging", "x-amz-storage-class", "if-match", "if-none-match"})
_NOT_KEPT = frozenset({"content-type"})


class TusHandler:
    """Handles the requests of the tus protocol. `clock` is wall time in seconds since the epoch."""

    def __init__(
        self,
        uploads: UploadManager,
        settings: UploadSettings,
        clock: Callable[[], float],
    ) -> None:
        self._uploads = uploads
        self._settings = settings
        self._clock = clock

    def options(self) -> dict[str, str]:
        """Return the headers of a response to OPTIONS."""
        return {
            "Tus-Resumable": tus_fields.VERSION,
            "Tus-Version": tus_fields.VERSION,
            "Tus-Extension": ",".join(tus_fields.EXTENSIONS),
            "Tus-Max-Size": str(self._settings.max_size),
            "Tus-Checksum-Algorithm": ",".join(tus_fields.CHECKSUMS),
        }

    async def respond(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Respond to a request below the upload route. Raises ProxyErrors."""
        fields = exchange.request.headers
        # Error responses have it as well.
        exchange.common = (*exchange.common, ("Tus-Resumable", tus_fields.VERSION))
        exchange.status = CacheStatus(Forward.METHOD)
        tus_fields.check_version(fields)
        match tus_fields.method_of(exchange.request.method, fields):
            case "POST":
                return await self._create(exchange, route)
            case "HEAD":
                return await self._head(exchange, route)
            case "PATCH":
                return await self._patch(exchange, route)
            case "DELETE":
                return await self._terminate(exchange, route)
            case _:
                raise MethodNotAllowed(("POST", "HEAD", "PATCH", "DELETE", "OPTIONS"), "tus has no such method")

    async def _create(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Respond with 201 and the upload's URL. A body has the first bytes of the upload."""
        request = exchange.request
        length = tus_fields.upload_length(request.headers)
        self._refuse_too_large(length, route.mount)
        _refuse_object_checksums(request.headers)
        has_bytes = declared_length(request) != 0 or hdrs.CONTENT_TYPE in request.headers
        if has_bytes:
            tus_fields.check_body_type(request.headers)
            _bounds(request, length)
        encoded = request.headers.get("Upload-Metadata", "")
        metadata = tus_fields.metadata(encoded)
        key = route.key_to_write(self._name(route, metadata) if route.makes_key else "")
        exchange.key = key
        mount = route.mount_of_write(key)
        self._refuse_too_large(length, mount)
        fields = _fitted(_fields_of_object(request.headers, tus_fields.text_of("filetype", metadata)), key, mount)
        size = len(encoded) + sum(len(name) + len(value) for name, value in fields)
        if size > MAX_DESCRIPTION_CHARS:
            raise tus_fields.BadUploadHead(
                f"{size} characters are said of the object, {MAX_DESCRIPTION_CHARS} are taken at most"
            )
        upload = await self._uploads.create(key, length, fields, encoded)
        async with self._uploads.busy(upload):
            headers = {"Location": f"{url_path(self._settings.path.encode())}/{upload.id}"}
            try:
                if has_bytes:
                    await self._take(exchange, upload)
                if upload.is_whole:
                    await self._finish(exchange, upload)
            except BaseException:
                await self._uploads.terminate(upload)  # its client never gets its URL
                raise
            if has_bytes:
                headers["Upload-Offset"] = str(upload.offset)
        return self._response(exchange, 201, upload, headers)

    async def _head(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Respond with 200 and the offset.

        The client gets the offset of the end only once the object exists, because it then considers the upload done.
        """
        upload = self._found(route)
        if upload.is_whole and upload.etag is None:
            async with self._uploads.busy(upload):
                await self._finish(exchange, upload)
        headers = {"Upload-Offset": str(upload.offset), "Upload-Length": str(upload.length)}
        if upload.record.metadata:
            headers["Upload-Metadata"] = upload.record.metadata
        return self._response(exchange, 200, upload, {**headers, **self._object(route, upload)})

    async def _patch(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Respond with 204 and the new offset, and with the object's URL once the object exists."""
        request = exchange.request
        upload = self._found(route)
        tus_fields.check_body_type(request.headers)
        _refuse_object_checksums(request.headers)
        offset = tus_fields.byte_count("Upload-Offset", request.headers)
        async with self._uploads.busy(upload):
            if offset != upload.offset:
                raise OffsetConflict(f"the upload is at {upload.offset}")
            await self._take(exchange, upload)
            if upload.is_whole:
                await self._finish(exchange, upload)
        headers = {"Upload-Offset": str(upload.offset), **self._object(route, upload)}
        return self._response(exchange, 204, upload, headers)

    async def _terminate(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """Respond with 204. If the upload is finished, its object stays."""
        upload = self._found(route)
        async with self._uploads.busy(upload):
            await self._uploads.terminate(upload)
        return web.Response(status=204, headers=exchange.headers())

    def _refuse_too_large(self, length: int, mount: MountSettings) -> None:
        """Raise TooLarge for an upload with more bytes than the mount and the section `uploads` take."""
        limit = min(self._settings.max_size, mount.max_size or self._settings.max_size)
        if length > limit:
            raise TooLarge(f"the upload has {length} bytes; {limit} are taken here")

    def _name(self, route: Route, metadata: Mapping[str, bytes]) -> str:
        """Return the name of the object within the folder. Raises BadUploadHead."""
        wanted = tus_fields.text_of("key", metadata)
        if wanted is None:
            filename = tus_fields.text_of("filename", metadata)
            return KeyTemplate(route.mount.key_template).key(self._clock(), str(ULID()), filename)
        if has_dot_segment(wanted):
            raise tus_fields.BadUploadHead("the key in Upload-Metadata leads out of the folder")
        return wanted

    def _found(self, route: Route) -> TusUpload:
        """Return the upload of the path, if the stages admit its key.

        Raises UnknownUpload, and the ProxyError of a stage that refuses the key.
        """
        # Ids are ASCII. Any other text is merely not found in a table.
        upload = self._uploads.find(route.octets.decode("ascii", "replace"))
        if upload.key.bucket != route.mount.bucket or not upload.key.key.startswith(route.mount.prefix):
            raise UnknownUpload("the upload is of a mount that uploads do not go to any more")
        route.admitted(upload.key)
        return upload

    async def _take(self, exchange: Exchange, upload: TusUpload) -> None:
        limit, claim = _bounds(exchange.request, upload.length - upload.offset)
        invite(exchange.request)
        chunks = received(exchange, declared_length(exchange.request), limit, self._settings.deadline)
        if claim is None:
            await self._uploads.append(upload, chunks)
        else:
            await self._uploads.append_verified(upload, chunks, claim)

    async def _finish(self, exchange: Exchange, upload: TusUpload) -> None:
        if upload.etag is not None:
            return
        await self._uploads.finish(upload)
        exchange.status = CacheStatus(Forward.METHOD, fwd_status=200)

    def _object(self, route: Route, upload: TusUpload) -> dict[str, str]:
        return {} if upload.etag is None else {"Location": route.location(upload.key), "ETag": upload.etag}

    def _response(self, exchange: Exchange, status: int, upload: TusUpload, headers: dict[str, str]) -> web.Response:
        fields: CIMultiDict[str] = exchange.headers()
        fields.update(headers)
        fields[hdrs.CACHE_CONTROL] = "no-store"
        if upload.etag is None:
            fields["Upload-Expires"] = dates.format(self._clock() + self._settings.expire_after)
        return web.Response(status=status, headers=fields)


def _bounds(request: web.BaseRequest, left: int) -> tuple[int, Digest | None]:
    """Return how many bytes the body may have, and its checksum. `left` bytes of the upload are missing.

    Raises TooLarge, BadUploadHead.
    """
    length, claim = declared_length(request), tus_fields.checksum(request.headers)
    limit = left if claim is None else min(left, MAX_CHECKED_BYTES)
    if length is not None and length > limit:
        raise TooLarge(f"the body has {length} bytes; {limit} are taken")
    return limit, claim


def _refuse_object_checksums(given: CIMultiDictProxy[str]) -> None:
    """Refuse headers that no write may have, and checksums of the whole object.

    Raises BadWriteHead, NoSuchWrite, PreconditionFailed.
    """
    if write_head.parse(given.items()).checksums:
        raise NoSuchWrite("what comes of a resumable upload is verified by Upload-Checksum, and by nothing else")


def _fitted(fields: Headers, key: ObjectKey, mount: MountSettings) -> Headers:
    """Return the headers with the mount's settings applied. Raises BadWriteHead, NoSuchWrite, PreconditionFailed."""
    head = write_head.parse(fields)
    if mount.guess_types and (guessed := head.with_guessed_type(key.key)) is not head:
        fields = (guessed.headers[0], *fields)
    if mount.write_once and head.write_once() != head:
        fields = (*fields, ("if-none-match", "*"))
    return fields


def _fields_of_object(given: CIMultiDictProxy[str], media_type: str | None) -> Headers:
    fields = [(name.lower(), value) for name, value in given.items()]
    kept = [
        (name, value)
        for name, value in fields
        if name not in _NOT_KEPT and (name in _KEPT or name.startswith("x-amz-meta-"))
    ]
    return tuple(kept if media_type is None else [("content-type", media_type), *kept])
