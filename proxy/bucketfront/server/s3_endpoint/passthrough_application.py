"""The application of the S3 endpoint without keys of ours: S3 decides on each request (`s3.mode: passthrough`).

Theory of operation
-------------------
The client's request goes to the origin as the client has signed it. It is never changed, because bucketfront has no
secret of the client.

- A GetObject or HeadObject gets the condition `If-None-Match` of the version in the cache, in a field that is not
  signed. A 304 shows that S3 allows the read, and that this version is current. It is served from the cache.
- A 200 or 206 shows that S3 allows the read of another version. Its body is closed, and the ordinary lookup fetches
  that version with our own credentials, and stores it.
- In both cases the client gets the version that S3 has shown it, or S3's own response. So it gets no byte that S3 would
  not send it, even if S3 takes the Host or the path for another object than bucketfront does.
- Each other response passes as S3 sent it. A 401, 403 or 404 changes nothing in the cache, and no request shares it.
- All other operations pass as they are. The cache follows those that change objects, as in the other mode.

`Authorizations` spares S3 the very same request for `s3.authorization_ttl`.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from bucketfront.cache import Cache, Present, Shown
from bucketfront.config.s3_settings import S3Settings
from bucketfront.config.settings import Settings
from bucketfront.errors import BadPath, OriginError, OriginRefused, OriginUnavailable
from bucketfront.http import client_signature, etags, s3_query
from bucketfront.http.client_signature import CONDITIONS, ClientSignature
from bucketfront.http.delete_objects import DeleteRequest
from bucketfront.http.s3_operations import Operation, operation_of
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.http.web_origin import Authority
from bucketfront.keys import ObjectKey
from bucketfront.s3.forwarded_response import ForwardedResponse
from bucketfront.server.client_application import RequestParts
from bucketfront.server.handlers.objects import ObjectHandler, OtherVersion
from bucketfront.server.handlers.uploads import UploadHandler
from bucketfront.server.router import Route
from bucketfront.server.s3_endpoint.authorizations import Authorizations, Proof
from bucketfront.server.s3_endpoint.bucket_view import route_to
from bucketfront.server.s3_endpoint.endpoint_application import (
    OF_PARTS,
    READS,
    EndpointApplication,
    can_follow,
    is_cacheable,
)
from bucketfront.server.s3_endpoint.forwarded_operations import ForwardedOperation, ForwardedOperations
from bucketfront.server.s3_endpoint.s3_resource import S3Resource
from bucketfront.server.telemetry.exchange import Exchange

_SUCCESSES = (200, 206)


@dataclass(frozen=True, slots=True)
class _Request:
    """A request whose client is not known: `signature` is not verified. `passed` are the fields that S3 gets.

    `query` is raw, without the parameters of the signature.
    """

    exchange: Exchange
    resource: S3Resource
    operation: Operation
    signature: ClientSignature
    passed: Mapping[str, str]
    query: str
    key: ObjectKey | None

    @property
    def target(self) -> str:
        return self.resource.path + (f"?{self.resource.query}" if self.resource.query else "")

    @property
    def proof(self) -> Proof | None:
        """Return what is remembered of a read. Returns None for a signature that is not understood."""
        if not self.signature.is_known:
            return None
        method = self.exchange.request.method
        digest = client_signature.digest_of(method, self.target, self.passed, self.signature)
        return Proof(digest, self.signature.expires_at)

    @property
    def takes_condition(self) -> bool:
        """Return whether a condition of ours changes neither the signature nor what the client wants."""
        return CONDITIONS.isdisjoint(self.passed) and CONDITIONS.isdisjoint(self.signature.names)

    def note_user(self) -> None:
        """Name the client in the access log, now that S3 has verified its signature."""
        if self.signature.claim is not None:
            self.exchange.user = f"s3:{self.signature.claim.key_id}"


class PassthroughApplication(EndpointApplication):
    """Serves clients that sign with credentials of S3's own."""

    def __init__(
        self,
        settings: Settings,
        s3: S3Settings,
        buckets: frozenset[str] | None,
        authorizations: Authorizations,
        cache: Cache,
        objects: ObjectHandler,
        uploads: UploadHandler,
        forwarded: ForwardedOperations,
        parts: RequestParts,
    ) -> None:
        """`buckets` are those that are served, None for all."""
        endpoint = Authority.parse(urlsplit(settings.origin.endpoint_url or "").netloc)
        hosts = () if endpoint is None else (endpoint.host,)
        super().__init__(settings, s3, parts, hosts)
        self._buckets = buckets
        self._authorizations = authorizations
        self._cache = cache
        self._objects = objects
        self._uploads = uploads
        self._forwarded = forwarded

    async def _serve(self, exchange: Exchange, resource: S3Resource, fields: Mapping[str, str]) -> web.StreamResponse:
        method = exchange.request.method
        self._check_host(exchange.request)  # S3 may take an unknown name for that of a bucket
        signature = client_signature.signature_of(fields, resource.query)
        self._enter(exchange, None)  # the name of a key may be another client's, until S3 has verified the signature
        if signature.claim is None:
            self._check_page(exchange.request)
        if self._buckets is not None and resource.bucket is not None and resource.bucket not in self._buckets:
            raise S3Refused(Refusal.NO_SUCH_BUCKET, "The specified bucket does not exist")
        query = s3_query.parse(resource.query)
        parameters, meant = query.parameters, query.merged(fields)
        key = None
        if resource.bucket is not None and resource.octets:
            key = route_to(resource, "", _admit).key()._replace(version=parameters.get("versionId"))
        operation = operation_of(method, resource.named, parameters, meant)
        if operation is Operation.OTHER and not can_follow(resource.named, meant, parameters):
            raise S3Refused(Refusal.NOT_IMPLEMENTED, "The objects that this operation changes are not known here.")
        passed = client_signature.passed_fields(fields, signature)
        request = _Request(exchange, resource, operation, signature, passed, query.spelling, key)
        if key is not None and is_cacheable(operation, meant, parameters):
            return await self._read(request, key)
        exchange.key = key
        if method in READS or operation in OF_PARTS:
            return await self._pass_on(request, self._operation(request))
        if operation is Operation.DELETE_OBJECTS:
            return await self._uploads.with_document(exchange, partial(self._delete, request))
        return await self._write(request)

    # --- reads -----------------------------------------------------------------------------------------------

    async def _read(self, request: _Request, key: ObjectKey) -> web.StreamResponse:
        """Respond from the cache with what S3 shows the client, or as S3 does."""
        proof = request.proof
        if (response := await self._remembered(request, key, proof)) is not None:
            return response
        held = self._cache.present(key, _no_bytes)
        condition = _condition(held) if request.takes_condition else {}
        moment = self._authorizations.moment
        shown: Shown | None = None

        def passes(response: ForwardedResponse) -> bool:
            nonlocal shown
            shown = _shown(response, condition)
            if shown is not None:
                request.note_user()
                self._cache.note_closed_body(key, response.arrived())
            return shown is None

        if proof is not None:
            self._authorizations.refuse(proof)
        operation = self._operation(request)
        response = await self._forwarded.respond_if(request.exchange, self._operation(request, condition), passes)
        if response is not None:
            return response
        assert shown is not None
        if proof is not None:
            self._authorizations.remember(proof, key, shown, moment)
        try:
            return await self._objects.respond(request.exchange, _route(request), shown)
        except (OtherVersion, OriginError) as error:
            # S3 has allowed this read. What our own credentials may do, or where the version has gone, is no reason
            # to refuse it.
            if isinstance(error, OriginUnavailable) and not isinstance(error, OriginRefused):
                raise
        return await self._pass_on(request, operation)

    async def _remembered(self, request: _Request, key: ObjectKey, proof: Proof | None) -> web.StreamResponse | None:
        """Respond without S3, if it has allowed this very request, and the version is in the cache and fresh."""
        shown = None if proof is None else self._authorizations.find(proof)
        if shown is None:
            return None
        held = self._cache.present(key, _no_bytes)
        if held is None or not held.is_fresh or not shown.is_of(held.metadata):
            return None
        request.note_user()
        try:
            return await self._objects.respond(request.exchange, _route(request), shown)
        except OtherVersion:
            return None

    # --- all other operations --------------------------------------------------------------------------------

    async def _write(self, request: _Request) -> web.StreamResponse:
        """Pass on what may change an object, or who may read it."""
        key = request.key
        if key is None:
            bucket = request.resource.bucket
            self._authorizations.forget_bucket(bucket)
            try:
                return await self._pass_on(request, self._operation(request))
            finally:
                self._authorizations.forget_bucket(bucket)
        plain = key._replace(version=None)
        return await self._change(request, (plain,) if key.version is None else (plain, key))

    async def _delete(self, request: _Request, body: bytes, wanted: DeleteRequest) -> web.StreamResponse:
        route = _route(request)
        keys: list[ObjectKey] = []
        for named in wanted.objects:
            with suppress(BadPath):  # S3 has no such key either
                key = route.key(named.key)
                keys += (key,) if named.version is None else (key, key._replace(version=named.version))
        return await self._change(request, tuple(keys), body)

    async def _change(
        self, request: _Request, keys: tuple[ObjectKey, ...], body: bytes | None = None
    ) -> web.StreamResponse:
        self._authorizations.forget(keys)
        try:
            return await self._pass_on(request, self._operation(request, changes=keys, body=body))
        finally:
            self._authorizations.forget(keys)

    async def _pass_on(self, request: _Request, operation: ForwardedOperation) -> web.StreamResponse:
        """Respond as S3 does."""

        def passes(response: ForwardedResponse) -> bool:
            if response.refusal is None:
                request.note_user()
            return True

        response = await self._forwarded.respond_if(request.exchange, operation, passes)
        assert response is not None
        return response

    def _operation(
        self,
        request: _Request,
        condition: Mapping[str, str] | None = None,
        changes: tuple[ObjectKey, ...] = (),
        body: bytes | None = None,
    ) -> ForwardedOperation:
        """Return the client's request as it is, with a condition of ours."""
        return ForwardedOperation(
            request.operation.value or "PassThrough",
            request.resource.bucket,
            "" if request.key is None else request.key.key,
            request.resource.query,
            {**request.passed, **(condition or {})},
            changes,
            signed_target=request.target,
            body=body,
        )


def _no_bytes(_: int) -> tuple[()]:
    return ()


def _condition(held: Present | None) -> dict[str, str]:
    """Return the condition by which S3 shows that a version is current.

    An object with keys of KMS has none: S3 could confirm it to a client that may not decrypt it.
    """
    if held is None or not held.metadata.is_strong or held.metadata.has_opaque_etag:
        return {}
    return {"if-none-match": held.metadata.etag}


def _shown(response: ForwardedResponse, condition: Mapping[str, str]) -> Shown | None:
    """Return the version that a response shows to a client that may read it. Returns None for any other response."""
    modified = response.headers.get(hdrs.LAST_MODIFIED)
    if response.status == 304 and condition:
        return Shown(condition["if-none-match"], modified, response.status)
    etag = etags.normalised(response.headers.get(hdrs.ETAG, ""))
    if response.refusal is not None or response.status not in _SUCCESSES or not etag.startswith('"'):
        return None
    return Shown(etag, modified, response.status)


def _route(request: _Request) -> Route:
    return route_to(request.resource, request.query, _admit)


def _admit(_: ObjectKey) -> None:
    """Permit each key, because S3 has shown it."""
