"""The application of the S3 endpoint: who made a request, what it means, whether it is permitted, and who serves it.

| operation | served by |
|---|---|
| GetObject, HeadObject | the cache, by the handler of all reads |
| DeleteObjects | the handler of all deletes |
| ListBuckets | the settings, or the origin if the client may see all buckets |
| all others that are known | the origin (`forwarded_operations`); the cache keeps what a PutObject stores |
| unknown ones | the origin with `s3.pass_through`, else 501 |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from aiohttp import hdrs, web

from bucketfront.config.s3_settings import S3Settings
from bucketfront.config.settings import Settings
from bucketfront.errors import PreconditionFailed
from bucketfront.http import s3_query, s3_requests
from bucketfront.http.body_checksums import ChecksumMismatch
from bucketfront.http.cache_status import CacheStatus, Forward
from bucketfront.http.s3_operations import Named, Operation, operation_of
from bucketfront.http.s3_query import S3Query
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.keys import ObjectKey
from bucketfront.server.client_application import RequestParts
from bucketfront.server.handlers.objects import ObjectHandler
from bucketfront.server.handlers.uploads import UploadHandler
from bucketfront.server.pipeline import Action
from bucketfront.server.router import Route
from bucketfront.server.s3_endpoint import copy_source
from bucketfront.server.s3_endpoint.bucket_view import route_to
from bucketfront.server.s3_endpoint.endpoint_application import (
    OF_PARTS,
    READS,
    EndpointApplication,
    can_follow,
    has_key_of_client,
    is_cacheable,
)
from bucketfront.server.s3_endpoint.forwarded_operations import ForwardedOperation, ForwardedOperations
from bucketfront.server.s3_endpoint.grant import NOTHING, Grant
from bucketfront.server.s3_endpoint.key_ring import KeyRing
from bucketfront.server.s3_endpoint.permissions import Permissions, action_of, denied
from bucketfront.server.s3_endpoint.s3_resource import S3Resource
from bucketfront.server.telemetry.exchange import Exchange

_LISTS = frozenset({
    Operation.LIST_OBJECTS, Operation.LIST_OBJECTS_V2, Operation.LIST_OBJECT_VERSIONS, Operation.LIST_MULTIPART_UPLOADS,
})  # fmt: skip
_COPIES = frozenset({Operation.COPY_OBJECT, Operation.UPLOAD_PART_COPY})


@dataclass(frozen=True, slots=True)
class _Request:
    """A request whose client is known. `fields` are those of the head, and those that the query has."""

    exchange: Exchange
    resource: S3Resource
    grant: Grant
    operation: Operation
    fields: Mapping[str, str]
    query: S3Query

    @property
    def parameters(self) -> Mapping[str, str]:
        """Return those of the query, decoded."""
        return self.query.parameters

    @property
    def bucket(self) -> str:
        assert self.resource.bucket is not None
        return self.resource.bucket


class S3Application(EndpointApplication):
    """Serves clients that sign with keys of the settings, and requests are signed again for S3."""

    def __init__(
        self,
        settings: Settings,
        s3: S3Settings,
        permissions: Permissions,
        keys: KeyRing,
        objects: ObjectHandler,
        uploads: UploadHandler,
        forwarded: ForwardedOperations,
        parts: RequestParts,
    ) -> None:
        super().__init__(settings, s3, parts)
        self._passes_all = s3.pass_through
        self._permissions = permissions
        self._keys = keys
        self._objects = objects
        self._uploads = uploads
        self._forwarded = forwarded

    async def _serve(self, exchange: Exchange, resource: S3Resource, fields: Mapping[str, str]) -> web.StreamResponse:
        request = exchange.request
        identity = await self._keys.identify(request.method, resource.path, resource.query, fields)
        self._enter(exchange, identity.credential)
        if identity.credential is None:
            self._check_host(request)
            self._check_page(request)
        exchange.chunk_signatures = identity.chunk_signatures
        query = s3_query.parse(resource.query)
        fields = query.merged(fields)
        operation = operation_of(request.method, resource.named, query.parameters, fields)
        try:
            return await self._perform(_Request(exchange, resource, identity.grant, operation, fields, query))
        except ChecksumMismatch as error:
            if error.algorithm == "sha256" and "x-amz-checksum-sha256" not in fields:
                message = "The provided 'x-amz-content-sha256' header does not match what was computed."
                raise S3Refused(Refusal.BODY, message) from error
            raise

    async def _perform(self, request: _Request) -> web.StreamResponse:
        """Check an operation, and let its handler respond."""
        operation, named = request.operation, request.resource.named
        if named is not Named.SERVICE:
            self._permissions.check_bucket(request.grant, request.bucket)
        if operation is Operation.LIST_BUCKETS:
            return await self._list_buckets(request)
        if operation is Operation.OTHER:
            return await self._pass_through(request)
        if operation is Operation.DELETE_OBJECTS:
            return await self._uploads.delete_many(request.exchange, self._route(request, Action.DELETE))
        if named is Named.BUCKET:
            if operation in _LISTS:
                prefix, has_metadata = request.parameters.get("prefix", ""), "metadata" in request.parameters
                self._permissions.check_list(request.grant, request.bucket, prefix, has_metadata=has_metadata)
            return await self._forward(request)
        return await self._perform_on_object(request)

    async def _perform_on_object(self, request: _Request) -> web.StreamResponse:
        operation = request.operation
        if is_cacheable(operation, request.fields, request.parameters):
            _refuse_overrides_of_anonymous(request)
            return await self._objects.respond(request.exchange, self._route(request, Action.READ))
        key = self._route(request, action_of(operation)).key()
        if operation is Operation.PUT_OBJECT:
            return await self._put(request, key)
        if operation in _COPIES:
            source = copy_source.parse(request.fields[copy_source.FIELD])
            assert source.resource.bucket is not None
            self._permissions.check_bucket(request.grant, source.resource.bucket)
            read = self._route(replace(request, resource=source.resource), Action.READ).key()
            return await self._forward(request, key, {copy_source.FIELD: source.text(read)})
        return await self._forward(request, key)

    def _route(self, request: _Request, action: Action) -> Route:
        """Return the route to what a request names. It gives keys that the client is permitted to have."""
        is_put = request.operation is Operation.PUT_OBJECT

        def admit(key: ObjectKey) -> None:
            self._permissions.check_object(request.grant, key, action, is_put=is_put)

        return route_to(request.resource, request.query.spelling, admit, deletes_many=action is Action.DELETE)

    async def _put(self, request: _Request, key: ObjectKey) -> web.StreamResponse:
        """Store an object within the limits of a mount."""
        limits = self._permissions.check_object(request.grant, key, Action.WRITE, is_put=True)
        once = {"if-none-match": "*"} if limits.write_once else {}
        if limits.write_once and "if-match" in request.fields:
            raise PreconditionFailed("nothing is overwritten here")
        return await self._forward(request, key, once, limits.max_size)

    async def _forward(
        self,
        request: _Request,
        key: ObjectKey | None = None,
        replaced: Mapping[str, str] = MappingProxyType({}),
        max_size: int | None = None,
    ) -> web.StreamResponse:
        """Pass an operation on. `replaced` are fields that take the place of those of the request."""
        changes: tuple[ObjectKey, ...] = ()
        if key is not None and request.exchange.request.method not in READS and request.operation not in OF_PARTS:
            version = request.parameters.get("versionId")
            changes = (key,) if version is None else (key, key._replace(version=version))
        request.exchange.key = key
        operation = ForwardedOperation(
            request.operation.value or "PassThrough",
            request.resource.bucket,
            "" if key is None else key.key,
            request.query.spelling,
            {**request.fields, **replaced},
            changes,
            key if request.operation is Operation.PUT_OBJECT and not has_key_of_client(request.fields) else None,
            max_size,
        )
        return await self._forwarded.respond(request.exchange, operation)

    async def _pass_through(self, request: _Request) -> web.StreamResponse:
        if not self._passes_all or not can_follow(request.resource.named, request.fields, request.parameters):
            raise S3Refused(
                Refusal.NOT_IMPLEMENTED,
                "A header or parameter you provided implies functionality that is not implemented.",
            )
        self._permissions.check_all(request.grant, request.resource.bucket)
        if request.resource.named is not Named.OBJECT:
            return await self._forward(request)
        method = request.exchange.request.method
        # The origin may ignore a parameter that is not known here, and then it deletes the object.
        writes = Action.DELETE if method == hdrs.METH_DELETE else Action.WRITE
        return await self._forward(request, self._route(request, Action.READ if method in READS else writes).key())

    async def _list_buckets(self, request: _Request) -> web.StreamResponse:
        grant, served = request.grant, self._permissions.buckets
        if grant is NOTHING:
            raise denied()
        if served is None:
            if grant.buckets is None:
                return await self._forward(request)
            served = grant.buckets
        exchange = request.exchange
        exchange.status = CacheStatus(Forward.BYPASS)
        found = sorted(bucket for bucket in served if grant.permits_bucket(bucket))
        headers = {**exchange.headers(), **exchange.s3_fields(), hdrs.CONTENT_TYPE: "application/xml"}
        return web.Response(body=s3_requests.buckets_document("bucketfront", found), headers=headers)


def _refuse_overrides_of_anonymous(request: _Request) -> None:
    """Refuse `?response-content-type=` and its like without a signature, as S3 does (S3 API, GetObject)."""
    if request.exchange.user is None and any(name.startswith("response-") for name in request.parameters):
        raise S3Refused(Refusal.INVALID, "Request specific response headers cannot be used for anonymous GET requests.")
