"""Where requests of one bucket go, and what they are signed for, as the SDK resolves it.

The rules are the SDK's own: endpoint, addressing style, region and signing scope are read from requests that it has
prepared and not sent (see `direct_reads`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from botocore.utils import percent_encode

from bucketfront.errors import BucketNotForwarded
from bucketfront.s3.direct_reads import rehearsed
from bucketfront.s3.forwarded_request import UNSIGNED_PAYLOAD, ForwardedRequest, canonical_query
from bucketfront.s3.read_template import HEAD, KEY_SAFE, ReadRequest, ReadTemplate
from bucketfront.s3.signature import PAYLOAD, Scope, signed_scope

_KEY = "k"
_AGENT = "User-Agent"  # `add_trace` reads it by this spelling
_OF_READS = frozenset({"x-amz-checksum-mode"})  # fields of the SDK that only reads of objects have


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """The address of a bucket, or of the service if `keys` is None.

    `url` is that of the bucket itself without a query, and `keys` what a key is appended to. `location` is the URL that
    shows where the bucket is, which must not depend on it. `fields` are those of each request of the bucket. `scope` is
    None for anonymous requests.
    """

    url: str
    keys: str | None
    location: str
    fields: Mapping[str, str]
    client_config: Any
    scope: Scope | None

    @classmethod
    async def of(cls, client: Any, bucket: str | None) -> Self:
        """Return the address of a bucket or of the service, for aiobotocore's client.

        Raises BucketNotForwarded for access points, directory buckets and what has a signature of another kind.
        """
        if bucket is None:
            prepared = await rehearsed(client.list_buckets, {})
            scope = signed_scope(prepared)
            if scope is None and "Authorization" in prepared.headers:
                raise BucketNotForwarded("the service has a signature that cannot be made anew")
            fields = {_AGENT: _text(prepared.headers[_AGENT])}
            url = _without_query(prepared.url)
            return cls(url, None, url, fields, prepared.context["client_config"], scope)
        params = {"Bucket": bucket, "Key": _KEY}
        template = ReadTemplate.of(HEAD, params, await rehearsed(client.head_object, params))
        url = (await rehearsed(client.head_bucket, {"Bucket": bucket})).url
        location = (await rehearsed(client.get_bucket_location, {"Bucket": bucket})).url
        if template is None or template.prefix != f"{url.removesuffix('/')}/":
            raise BucketNotForwarded("the requests of the bucket have a form that cannot be made anew")
        fields = {
            name if name == _AGENT else name.lower(): value
            for name, value in template.headers.items()
            if name.lower() not in _OF_READS
        }
        return cls(url, template.prefix, _without_query(location), fields, template.client_config, template.scope)

    def request(self, forwarded: ForwardedRequest, body: Any, context: dict[str, Any]) -> ReadRequest:
        """Return the request as the SDK's signer and its HTTP session take it. `context` is that of both."""
        if forwarded.signed_target is not None:
            context |= {"client_config": self.client_config}
            fields = dict(forwarded.fields)
            # The client's target and Host never form the host that is connected to (docs/invariants.md#fixed-egress).
            url = _host_of(self.url) + forwarded.signed_target
            return ReadRequest(forwarded.method, url, fields, body, True, context)
        url = self.location if forwarded.operation == "GetBucketLocation" else self.url
        if forwarded.key:
            assert self.keys is not None, "the service has no keys"
            url = self.keys + percent_encode(forwarded.key, safe=KEY_SAFE)
        query = canonical_query(forwarded.query)
        headers = {**forwarded.sent_fields(), **self.fields}
        if self.scope is None and forwarded.payload != UNSIGNED_PAYLOAD:
            headers["X-Amz-Content-SHA256"] = forwarded.payload  # the signer sets it in other requests
        context |= {"client_config": self.client_config, PAYLOAD: forwarded.payload}
        return ReadRequest(forwarded.method, f"{url}?{query}" if query else url, headers, body, True, context)


def _host_of(url: str) -> str:
    """Return the beginning of a URL up to its path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else value.decode()
