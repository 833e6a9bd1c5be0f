"""The requests of GetObject and HeadObject for one bucket, as the SDK prepares them.

The SDK resolves the endpoint, the region and the fields of a bucket anew for each call, which takes most of a call's
time. They only depend on the bucket and the operation. So they are read from one request that the SDK has prepared, and
further requests differ in their key, version, range and conditions.

A template exists only if it makes the same request as the SDK, of the same parameters.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from botocore.awsrequest import AWSPreparedRequest
from botocore.utils import percent_encode

from bucketfront.s3.signature import Scope, sign_as, signed_scope

GET, HEAD = "GetObject", "HeadObject"
_METHODS = {GET: "GET", HEAD: "HEAD"}
_CONDITIONS = {"Range": "Range", "IfMatch": "If-Match", "IfNoneMatch": "If-None-Match"}
_PARAMS = frozenset({"Bucket", "Key", "VersionId", *_CONDITIONS})
# Fields that are the same in each request of a bucket, in lower case: those of the SDK and of `bucket_terms`.
_CONSTANT = frozenset({"user-agent", "x-amz-checksum-mode", "x-amz-request-payer", "x-amz-expected-bucket-owner"})
# Access points are ARNs, and directory buckets and Outposts have endings that begin with two hyphens.
PLAIN_BUCKET = re.compile(r"(?!.*--)[A-Za-z0-9][A-Za-z0-9._-]*")
_PLAIN_VALUE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
KEY_SAFE = "/~"  # S3 API, "Object key naming": the SDK's encoding of a key in a path


class ReadRequest(AWSPreparedRequest):  # type: ignore[misc] # botocore has no types
    """A request as the SDK's signers and its HTTP session take it."""

    params: ClassVar[Mapping[str, str]] = {}  # the URL has them


class ReadTemplate:
    """The constant part of the requests of one operation and one bucket. `scope` is None for anonymous requests."""

    def __init__(
        self, operation: str, prefix: str, headers: dict[str, str], client_config: Any, scope: Scope | None
    ) -> None:
        self._method = _METHODS[operation]
        self.prefix = prefix  # of the URL, before the key
        self.headers = headers
        self.client_config = client_config  # it decides on the hash of the payload
        self.scope = scope

    @classmethod
    def of(cls, operation: str, params: Mapping[str, str], prepared: Any) -> Self | None:
        """Return the template of a request that the SDK has prepared and not sent yet.

        Returns None if requests of the bucket may differ in more than their parameters.
        """
        place = _place(params)
        if not prepared.url.endswith("/" + place):
            return None
        headers = {name: _text(value) for name, value in prepared.headers.items()}
        own = {name: value for name, value in headers.items() if name.lower() in _CONSTANT}
        found = cls(
            operation, prepared.url.removesuffix(place), own, prepared.context["client_config"], signed_scope(prepared)
        )
        made = found.request(params)
        sign_as(made, prepared)
        is_same = (made.method, made.url, made.headers) == (prepared.method, prepared.url, headers)
        return found if is_same else None

    def request(self, params: Mapping[str, str]) -> ReadRequest:
        """Return the request of these parameters, which is not signed yet."""
        headers = dict(self.headers)
        for name, field in _CONDITIONS.items():
            if (value := params.get(name)) is not None:
                headers[field] = value
        url = self.prefix + _place(params)
        context = {"client_config": self.client_config}
        return ReadRequest(self._method, url, headers, None, self._method == "GET", context)


def is_plain(params: Mapping[str, str]) -> bool:
    """Return whether a read has no parameters but those that a template knows, with values that need no escape."""
    if not params.keys() <= _PARAMS or PLAIN_BUCKET.fullmatch(params["Bucket"]) is None or not params["Key"]:
        return False
    return all(_PLAIN_VALUE.fullmatch(value) for name, value in params.items() if name not in ("Bucket", "Key"))


def _place(params: Mapping[str, str]) -> str:
    """Return the end of the URL: the key and the query."""
    place: str = percent_encode(params["Key"], safe=KEY_SAFE)
    version = params.get("VersionId")
    return place if version is None else f"{place}?versionId={percent_encode(version)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else value.decode()
