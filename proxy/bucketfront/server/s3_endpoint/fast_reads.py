"""The fast path of the S3 endpoint: plain signed reads of whole, fresh objects, without aiohttp.

Theory of operation
-------------------
A read is recognised as on the listener of the mounts, and keeps its head. Each request is then verified and permitted
by the functions of the ordinary path, because a signature covers the time of its request. What follows depends on the
client's key and on the object, so that responses are prepared, as for mounts.

All that is not plain is left to the ordinary path. So is each refusal: that path meets the same error, and responds
with it. It also reads a secret whose file is due for a look.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from bucketfront.config.settings import Settings
from bucketfront.errors import ProxyError
from bucketfront.http import s3_query
from bucketfront.http.path_rules import Rules
from bucketfront.http.plan import RequestHead
from bucketfront.http.s3_operations import Operation, operation_of
from bucketfront.http.s3_query import S3Query
from bucketfront.http.s3_requests import CUSTOMER_KEY_FIELDS
from bucketfront.keys import ObjectKey
from bucketfront.server import representation
from bucketfront.server.client_address import ClientAddresses
from bucketfront.server.cors import Cors
from bucketfront.server.fast_path.fast_path import PlainRules
from bucketfront.server.fast_path.prepared import (
    LeaseFinder,
    PreparedResponse,
    ResponseTemplate,
    ResponseTemplates,
    template_of,
)
from bucketfront.server.fast_path.recogniser import REQUEST_ID, PlainRequest, recogniser
from bucketfront.server.pipeline import Action
from bucketfront.server.s3_endpoint.bucket_view import route_to
from bucketfront.server.s3_endpoint.key_ring import KeyRing
from bucketfront.server.s3_endpoint.permissions import Permissions
from bucketfront.server.s3_endpoint.s3_resource import S3Resource, resource_of
from bucketfront.server.selection import Candidate
from bucketfront.server.telemetry.exchange import new_request_id
from bucketfront.server.telemetry.logged_fields import names_of

_READS = frozenset({Operation.GET_OBJECT, Operation.HEAD_OBJECT})
MAX_KEPT_CHARS = 512  # of a target and a host; what 4096 of them become is kept before any signature is verified
_METHOD, _TARGET, _IF_NONE_MATCH, _IF_MODIFIED_SINCE, _ORIGIN = range(5)  # of a PlainRequest
_HEAD = -1  # what `recognise` adds


class _Read(NamedTuple):
    """On what a response depends. `path` is as sent, and `query` raw without what belongs to the signature."""

    credential: str
    method: str
    key: ObjectKey
    path: str
    query: str
    wants_checksum: bool
    if_none_match: str | None
    if_modified_since: str | None
    origin: str | None


def fast_rules(
    settings: Settings, rules: Rules, cache: LeaseFinder, keys: KeyRing, permissions: Permissions, mount: str
) -> PlainRules | None:
    """Return the rules of the fast path, or None if it is off. `mount` is what the access log has as the mount."""
    if not settings.has_fast_path or settings.s3 is None:
        return None
    addresses = ClientAddresses(settings.server.trusted_proxies)
    reads = addresses.reads | ({"cache-control", "pragma"} if settings.freshness.honor_client_no_cache else set())
    plain = recogniser(frozenset(reads), (), names_of(settings.access_log.fields))

    def recognise(data: bytes) -> PlainRequest | None:
        """Return a plain request with the id that its response has, and with its head."""
        found = plain(data)
        if found is None:
            return None
        name = found[REQUEST_ID] or new_request_id().encode()
        return (*found[:REQUEST_ID], name, *found[REQUEST_ID + 1 :], data)

    reads_of_clients = FastReads(cache, Cors(settings.cors), rules, keys, permissions, settings.s3.domain, mount)
    return PlainRules(recognise, reads_of_clients, addresses, remembers=False)


class FastReads:
    """Finds prepared responses to signed reads. `domain` is that of virtual hosts."""

    def __init__(
        self,
        cache: LeaseFinder,
        cors: Cors,
        rules: Rules,
        keys: KeyRing,
        permissions: Permissions,
        domain: str | None,
        mount: str,
    ) -> None:
        self._cache = cache
        self._cors = cors
        self._rules = rules
        self._keys = keys
        self._permissions = permissions
        self._domain = domain
        self._mount = mount
        self._templates = ResponseTemplates[_Read]()
        self._resource_of: Callable[[str, str, str | None], S3Resource] = lru_cache(maxsize=4096)(resource_of)
        self._query_of: Callable[[str], S3Query] = lru_cache(maxsize=1024)(s3_query.parse)

    def find(self, request: PlainRequest, now: float) -> PreparedResponse | None:
        """Return the response to a request, see `PreparedSource.find`."""
        try:
            read = self._permitted(request)
        except ProxyError:
            return None
        if read is None:
            return None
        template = self._templates.get(read, now, self._prepared)
        found = None if template is None else template.response(request)
        if found is None:
            return None
        named = b"x-amz-request-id: %b\r\n\r\n" % (request[REQUEST_ID] or b"")
        return PreparedResponse(
            found.lease, found.head[:-2] + named, found.start, found.stop, found.record, found.min_rate
        )

    def _permitted(self, request: PlainRequest) -> _Read | None:
        """Return a read that its client is permitted, or None if it is not plain. Raises ProxyErrors."""
        method, target = _text(request[_METHOD]), _text(request[_TARGET])
        fields = _fields_of(_text(request[_HEAD]))
        host = fields.get("host", "")
        is_short = len(target) + len(host) <= MAX_KEPT_CHARS
        resource = (self._resource_of if is_short else resource_of)(target, host, self._domain)
        identity = self._keys.identify_at_once(method, resource.path, resource.query, fields)
        if identity is None or identity.credential is None or resource.bucket is None:
            return None
        self._permissions.check_bucket(identity.grant, resource.bucket)
        query = self._query_of(resource.query)
        fields = query.merged(fields)
        if operation_of(method, resource.named, query.parameters, fields) not in _READS:
            return None
        if "partNumber" in query.parameters or not CUSTOMER_KEY_FIELDS.isdisjoint(fields):
            return None
        grant = identity.grant

        def admit(key: ObjectKey) -> None:
            self._permissions.check_object(grant, key, Action.READ)

        return _Read(
            identity.credential,
            method,
            route_to(resource, query.spelling, admit).key(),
            resource.path,
            query.spelling,
            fields.get("x-amz-checksum-mode", "").upper() == "ENABLED",
            *(_optional(request[at]) for at in (_IF_NONE_MATCH, _IF_MODIFIED_SINCE, _ORIGIN)),
        )

    def _prepared(self, read: _Read, now: float) -> ResponseTemplate | None:
        """Return the template of the responses to a kind of reads, None without a fresh lease."""
        resource = S3Resource(read.key.bucket, read.key.key.encode(), "", "")
        route = route_to(resource, read.query, _admit)
        try:
            query = representation.query_of(route)
        except ProxyError:
            return None
        lease = self._cache.lease(read.key._replace(version=query.version))
        if lease is None:
            return None
        presentation = representation.presentation(self._rules, route, Candidate(read.key, read.key.key), query)
        metadata = lease.metadata
        return template_of(
            lease,
            read.path,
            RequestHead(read.method, if_none_match=read.if_none_match, if_modified_since=read.if_modified_since),
            route.mount,
            presentation,
            self._cors.fields(read.origin),
            now,
            user=read.credential,
            name=self._mount,
            further=lambda status: representation.s3_fields(status, metadata, wants_checksum=read.wants_checksum),
        )


def _admit(_: ObjectKey) -> None:
    """Admit a key, because it is permitted already."""


def _fields_of(head: str) -> dict[str, str]:
    """Return the fields of a plain head as signatures have them: lines of one name are joined with commas."""
    found: dict[str, str] = {}
    for line in head.split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        lower, value = name.lower(), value.strip(" \t")
        found[lower] = f"{found[lower]},{value}" if lower in found else value
    return found


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("ascii")


def _optional(value: bytes | None) -> str | None:
    return None if value is None else value.decode("ascii")
