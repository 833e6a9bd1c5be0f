"""Which fields of a request and of its response pass between a client of S3 and the origin, by allow-list.

See docs/invariants.md#complete-cache-key. The origin gets a signature of our own, so nothing of the client's passes.
"""

from collections.abc import Iterable, Mapping

from bucketfront.http.grammar import Headers

_OF_REQUESTS = frozenset({
    "cache-control", "content-disposition", "content-encoding", "content-language", "content-md5", "content-type",
    "expires", "if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "range",
})  # fmt: skip
# Of the signature, the message and the client's program.
_OF_THE_CLIENT = frozenset({
    "x-amz-algorithm", "x-amz-cf-id", "x-amz-content-sha256", "x-amz-credential", "x-amz-date",
    "x-amz-decoded-content-length", "x-amz-expires", "x-amz-s3session-token", "x-amz-security-token", "x-amz-signature",
    "x-amz-signedheaders", "x-amz-trailer", "x-amz-user-agent",
})  # fmt: skip
_OF_RESPONSES = frozenset({
    "accept-ranges", "allow", "cache-control", "content-disposition", "content-encoding", "content-language",
    "content-length", "content-range", "content-type", "etag", "expires", "last-modified", "retry-after",
})  # fmt: skip
_S3 = "x-amz-"


def of_request(fields: Mapping[str, str]) -> Headers:
    """Return the fields that the origin gets. `fields` have names in lower case."""
    return tuple(
        (name, value)
        for name, value in fields.items()
        if (name in _OF_REQUESTS and value) or (name.startswith(_S3) and name not in _OF_THE_CLIENT)
    )


def of_response(fields: Iterable[tuple[str, str]]) -> Headers:
    """Return the fields that the client gets. Names may have any case."""
    return tuple(
        (name, value) for name, value in fields if name.lower() in _OF_RESPONSES or name.lower().startswith(_S3)
    )
