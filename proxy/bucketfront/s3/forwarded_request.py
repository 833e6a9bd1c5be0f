"""A request of a client of S3 as S3 gets it: the same operation, re-signed with the credentials of the settings.

What the client has signed is verified elsewhere and is no part of it, except in a request with `signed_target`, on
which S3 decides. Key and query of all others go to S3 in the one encoding that Signature Version 4 prescribes (S3 API,
"Authenticating Requests"), because S3 compares that with the signature.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from bucketfront.errors import AccessDenied, BucketNotForwarded, RequestRefused
from bucketfront.http.grammar import Headers, is_token
from bucketfront.s3.read_template import PLAIN_BUCKET

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

_READS = frozenset({"GET", "HEAD"})
# S3 takes minutes for them, and sends spaces meanwhile.
_SLOW = frozenset({"CompleteMultipartUpload", "CopyObject", "UploadPartCopy"})
# Fields of the connection, of the signature, and of the request as bucketfront sends it.
_OURS = frozenset({
    "accept-encoding", "authorization", "connection", "content-length", "date", "expect", "host", "keep-alive",
    "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "via",
    "x-amz-content-sha256", "x-amz-date", "x-amz-security-token",
})  # fmt: skip
_OF_SIGNATURES = frozenset({
    "x-amz-algorithm", "x-amz-content-sha256", "x-amz-credential", "x-amz-date", "x-amz-expires",
    "x-amz-security-token", "x-amz-signature", "x-amz-signedheaders",
})  # fmt: skip
_OF_QUERIES = "-_.~"
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ForwardedRequest:
    """One request.

    - `operation` is its name in the S3 API, from a closed set. It names the request in metrics and traces.
    - `bucket` is None for the service itself (ListBuckets), and `key` is "" for the bucket itself.
    - `query` is raw, without the parameters of a signature. A plus sign is a space, as in S3.
    - `fields` have lower-case names. An allow-list has reduced them.
    - `body` is None without one. One that has come as a whole, because it is short, may be sent twice if S3 refuses our
      signature at first.
    - `length` is the number of bytes of the body as it is sent. Without it a body is sent in chunks of HTTP.
    - `payload` is the value of `x-amz-content-sha256`.
    - `signed_target` is the raw target of a request that is sent as the client has made it, signed or anonymous. Its
      `fields` are then all that are sent, `Host` among them.
    """

    operation: str
    method: str
    bucket: str | None
    key: str = ""
    query: str = ""
    fields: Headers = ()
    body: AsyncIterator[bytes] | bytes | None = None
    length: int | None = None
    payload: str = UNSIGNED_PAYLOAD
    signed_target: str | None = None

    @property
    def is_read(self) -> bool:
        """Return whether it changes nothing, so that it may be sent again."""
        return self.method in _READS

    @property
    def is_list(self) -> bool:
        """Return whether it reads what S3 makes for it, such as a list, and not an object."""
        return self.method == "GET" and self.operation != "GetObject"

    @property
    def is_streamed(self) -> bool:
        """Return whether the body comes while it is sent, so that it can be sent once only."""
        return not isinstance(self.body, bytes | None)

    @property
    def is_slow(self) -> bool:
        """Return whether S3 may take minutes for it."""
        return self.operation in _SLOW

    def check(self, owner: str | None) -> None:
        """Raise an error if the request cannot be sent. `owner` is the account that the bucket must belong to, if any.

        Raises BucketNotForwarded, RequestRefused for a field that HTTP does not allow, and AccessDenied if the client
        expects another owner of the bucket.
        """
        if self.signed_target is None and self.bucket is not None and PLAIN_BUCKET.fullmatch(self.bucket) is None:
            raise BucketNotForwarded("access points and directory buckets are not forwarded")
        if any(not is_token(name) or _UNSENDABLE.search(value) for name, value in self.fields):
            raise RequestRefused(f"{self.operation}: a header holds what S3 does not take")
        if self.signed_target is not None:
            if not self.signed_target.isascii():
                raise RequestRefused(f"{self.operation}: the target of a request must be ASCII")
            return
        expected = dict(self.fields).get("x-amz-expected-bucket-owner", owner)
        if owner is not None and expected != owner:
            raise AccessDenied(f"{self.operation}: the bucket has another owner than x-amz-expected-bucket-owner names")

    def sent_fields(self) -> dict[str, str]:
        """Return the fields that are sent. The lines of a field are joined."""
        sent: dict[str, str] = {}
        for name, value in self.fields:
            if name not in _OURS:
                sent[name] = f"{sent[name]},{value}" if name in sent else value
        return sent

    def framing(self) -> dict[str, str]:
        """Return the field that shows where the body ends, if there is a body."""
        if self.body is None:
            return {}
        return {"Transfer-Encoding": "chunked"} if self.length is None else {"Content-Length": str(self.length)}


def canonical_query(query: str) -> str:
    """Return a query with the one encoding of each byte. A parameter without a value gets none.

    Those of a signature are left out, however they are spelled, because S3 would take them for ours.
    """
    parameters = (parameter.partition("=") for parameter in query.split("&") if parameter)
    encoded = ((_encoded(name), equals + _encoded(value)) for name, equals, value in parameters)
    return "&".join(name + value for name, value in encoded if name.lower() not in _OF_SIGNATURES)


def _encoded(text: str) -> str:
    octets = unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape"))
    return quote(octets, safe=_OF_QUERIES)
