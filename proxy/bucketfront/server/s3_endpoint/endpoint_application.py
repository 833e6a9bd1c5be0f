"""What the applications of the S3 endpoint share, before one of them finds out whether a request is permitted."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping

from aiohttp import hdrs, web

from bucketfront.config.s3_settings import S3Settings
from bucketfront.config.settings import Settings
from bucketfront.http.cache_status import CacheStatus, Detail, Forward
from bucketfront.http.s3_operations import Named, Operation
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.http.s3_requests import CUSTOMER_KEY_FIELDS, Dialect
from bucketfront.server.client_application import ClientApplication, RequestParts, field_of
from bucketfront.server.foreign_pages import ForeignPages
from bucketfront.server.host_names import HostNames
from bucketfront.server.http1 import framing
from bucketfront.server.s3_endpoint import copy_source
from bucketfront.server.s3_endpoint.s3_resource import S3Resource, bucket_in_host, resource_of
from bucketfront.server.telemetry.exchange import Exchange

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
READS = ("GET", "HEAD")
# Those that change no object yet, although they write.
OF_PARTS = frozenset({
    Operation.CREATE_MULTIPART_UPLOAD, Operation.UPLOAD_PART, Operation.UPLOAD_PART_COPY,
    Operation.ABORT_MULTIPART_UPLOAD, Operation.LIST_PARTS,
})  # fmt: skip
# Fields that name a further object.
_OTHER_OBJECTS = frozenset({copy_source.FIELD, "x-amz-rename-source"})
MOUNT = "s3"  # what metrics and the access log have as the mount of all requests here


class EndpointApplication(ClientApplication):
    """Serves clients that speak S3's REST API."""

    def __init__(
        self, settings: Settings, s3: S3Settings, parts: RequestParts, further_hosts: Iterable[str] = ()
    ) -> None:
        """`further_hosts` are names of the listener besides those of the settings."""
        super().__init__(settings, parts)
        self._domain = s3.domain
        self._hosts = HostNames((*settings.server.names, s3.host, *filter(None, [s3.domain]), *further_hosts))
        self._pages = ForeignPages(settings.cors.allow_origins, is_tls=s3.tls is not None)

    @abstractmethod
    async def _serve(self, exchange: Exchange, resource: S3Resource, fields: Mapping[str, str]) -> web.StreamResponse:
        """Respond to a request, whose `fields` have names in lower case. Raises as `_dispatch`."""

    def _dialect(self, request: web.BaseRequest) -> Dialect:  # noqa: ARG002 - as in the base
        return Dialect.S3

    async def _dispatch(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        exchange.mount = MOUNT
        framing.check(request)
        self._refuse_loops(exchange)
        if request.method == hdrs.METH_OPTIONS:
            return self._options(exchange)
        if request.method not in METHODS:
            raise S3Refused(Refusal.NOT_ALLOWED, "The specified method is not allowed against this resource.")
        fields = _fields_of(request)
        resource = resource_of(request.raw_path, fields.get("host", ""), self._domain)
        return await self._serve(exchange, resource, fields)

    def _check_host(self, request: web.BaseRequest) -> None:
        """Raise UnknownHost for a name that is not configured."""
        host = request.headers.get(hdrs.HOST)
        if not host or bucket_in_host(host, self._domain) is None:
            self._hosts.check(host)

    def _check_page(self, request: web.BaseRequest) -> None:
        """Refuse a write that the page of another site may have sent. No such page can sign."""
        if request.method not in READS:
            self._pages.check(field_of(request))

    def _options(self, exchange: Exchange) -> web.Response:
        """Respond to a CORS preflight by the settings of `cors`. Operations have no OPTIONS."""
        exchange.status = CacheStatus(Forward.BYPASS, detail=Detail.OPTIONS)
        headers = exchange.headers()
        headers.extend(self._cors.preflight(exchange.request.headers, METHODS))
        headers[hdrs.ALLOW] = ", ".join((*METHODS, hdrs.METH_OPTIONS))
        return web.Response(status=204, headers=headers)


def is_cacheable(operation: Operation, fields: Mapping[str, str], parameters: Mapping[str, str]) -> bool:
    """Return whether the cache may serve a request.

    The response for a part has a length and fields of its own. An object with a key of the client (SSE-C) must not be
    in the cache. S3 responds to a HEAD of a range as to a GET of it (S3 API, HeadObject), and HTTP and so the cache do
    not (RFC 9110 section 14.2).
    """
    is_read = operation in (Operation.GET_OBJECT, Operation.HEAD_OBJECT)
    if not is_read or (operation is Operation.HEAD_OBJECT and "range" in fields):
        return False
    return "partNumber" not in parameters and not has_key_of_client(fields)


def has_key_of_client(fields: Mapping[str, str]) -> bool:
    """Return whether a request has a key by which S3 encrypts the object (SSE-C)."""
    return not CUSTOMER_KEY_FIELDS.isdisjoint(fields)


def can_follow(named: Named, fields: Mapping[str, str], parameters: Mapping[str, str]) -> bool:
    """Return whether the objects that an unknown operation reads or changes are known: that of its path, or none."""
    if not _OTHER_OBJECTS.isdisjoint(fields):
        return False
    is_form = fields.get("content-type", "").lower().startswith("multipart/")
    return named is not Named.BUCKET or not (is_form or "delete" in parameters)


def _fields_of(request: web.BaseRequest) -> dict[str, str]:
    """Return the fields of a request as signatures have them: several lines of one name are joined with commas."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        found[lower] = f"{found[lower]},{value}" if lower in found else value
    return found
