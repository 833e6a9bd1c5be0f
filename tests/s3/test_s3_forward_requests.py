"""Forwarded requests on the wire: they are those that botocore would sign for the same operation."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from fakes import RawServer, answering, response
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import each_row, examples
from stopwatch import HANG_S
from test_s3_direct_reads import CASES, KEYS_OF_S3, NOW

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import AccessDenied
from bucketfront.request_trace import RequestTrace, tracing
from bucketfront.s3.client import S3Origin
from bucketfront.s3.forwarded_request import ForwardedRequest, canonical_query
from bucketfront.s3.transport import StrictHTTPSession

Wired = tuple[str, str, dict[str, str]]

PARTS = {"Parts": [{"PartNumber": 1, "ETag": '"e"'}]}
NAMED = {"Bucket": "bucket", "Key": "k"}
# Methods of the SDK's client, with the parameters that differ.
OPERATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "ListBuckets": ("list_buckets", {}),
    "HeadBucket": ("head_bucket", {"Bucket": "bucket"}),
    "GetBucketLocation": ("get_bucket_location", {"Bucket": "bucket"}),
    "ListObjectsV2": (
        "list_objects_v2", {"Bucket": "bucket", "Prefix": "a/b +&=ü", "Delimiter": "/", "ContinuationToken": "t+/="}
    ),
    "ListObjects": ("list_objects", {"Bucket": "bucket", "Marker": "a%2Fb"}),
    "ListObjectVersions": ("list_object_versions", {"Bucket": "bucket", "KeyMarker": "~a"}),
    "ListMultipartUploads": ("list_multipart_uploads", {"Bucket": "bucket"}),
    "CreateMultipartUpload": (
        "create_multipart_upload", {**NAMED, "Metadata": {"a": "b  c"}, "ContentType": "text/a", "Tagging": "a=b&c=d"}
    ),
    "UploadPart": ("upload_part", {**NAMED, "UploadId": "u+/=", "PartNumber": 1, "Body": b"content"}),
    "CompleteMultipartUpload": ("complete_multipart_upload", {**NAMED, "UploadId": "u", "MultipartUpload": PARTS}),
    "AbortMultipartUpload": ("abort_multipart_upload", {**NAMED, "UploadId": "u"}),
    "ListParts": ("list_parts", {**NAMED, "UploadId": "u", "MaxParts": 3}),
    "CopyObject": ("copy_object", {**NAMED, "CopySource": "bucket/a b/ü", "MetadataDirective": "REPLACE"}),
    "UploadPartCopy": (
        "upload_part_copy",
        {**NAMED, "UploadId": "u", "PartNumber": 2, "CopySource": "bucket/a", "CopySourceRange": "bytes=0-9"},
    ),
    "PutObject": ("put_object", {**NAMED, "Body": b"content", "IfNoneMatch": "*", "ChecksumCRC32": "AAAAAA=="}),
    "DeleteObject": ("delete_object", {**NAMED, "VersionId": "v+1"}),
    "DeleteObjects": ("delete_objects", {"Bucket": "bucket", "Delete": {"Objects": [{"Key": "a&b"}]}}),
    "GetObjectTagging": ("get_object_tagging", NAMED),
    "PutObjectTagging": ("put_object_tagging", {**NAMED, "Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}}),
    "GetObjectAttributes": ("get_object_attributes", {**NAMED, "ObjectAttributes": ["ETag", "ObjectSize"]}),
    "GetObject": (
        "get_object",
        {**NAMED, "Range": "bytes=1-2", "ResponseContentType": "text/a; b=c", "SSECustomerKey": "k" * 32,
         "SSECustomerAlgorithm": "AES256", "PartNumber": 3},
    ),
    "HeadObject": ("head_object", {**NAMED, "IfMatch": '"e"', "PartNumber": 1}),
    "RestoreObject": ("restore_object", {**NAMED, "RestoreRequest": {"Days": 1}}),
}  # fmt: skip
# Fields that the signer or aiohttp adds. A client's own are verified and left out before.
OURS = {"authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "user-agent", "content-length"}
keys = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.sampled_from(
        ["a//b", "/lead", "trail/", "../x", "a/./b", ".", "%2F%", "a+b c", "~(é)'\"", "?x#y", "ü/日本", "k"]
    ),
)


class Wire:
    """The requests that would be sent. Each of them fails."""

    def __init__(self) -> None:
        self.requests: list[Wired] = []

    async def send(self, request: Any) -> Any:
        given = {
            name.lower(): value if isinstance(value, str) else value.decode() for name, value in request.headers.items()
        }
        self.requests.append(
            (request.method, request.url, {name: given[name] for name in given if name != "user-agent"})
        )
        raise OSError


class Both:
    """An origin in an event loop of its own. It has the same operation sent by the SDK, and forwarded."""

    def __init__(self, runner: asyncio.Runner, origin: S3Origin, wire: Wire) -> None:
        self._runner = runner
        self._origin = origin
        self._wire = wire

    def by_sdk(self, operation: str, params: dict[str, Any]) -> Wired:
        return self._sent(getattr(self._origin.client, operation)(**params))

    def forwarded(self, operation: str, of_client: Wired, key: str) -> Wired:
        """Return what is sent for the request of a client, which has signed it in its own way."""
        method, url, headers = of_client
        bucket = None if operation == "ListBuckets" else "bucket"
        length = int(headers.get("content-length", 0))
        return self._sent(
            self._forward(
                ForwardedRequest(
                    operation,
                    method,
                    bucket,
                    key,
                    url.partition("?")[2],
                    tuple((name, value) for name, value in headers.items() if name not in OURS),
                    bytes(length) or None,
                    length or None,
                )
            )
        )

    async def _forward(self, request: ForwardedRequest) -> None:
        async with self._origin.forward(request):
            pass

    def _sent(self, call: Any) -> Wired:
        self._wire.requests.clear()
        with suppress(Exception):
            self._runner.run(call)
        return self._wire.requests[0]


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    given, variables, _ = request.param
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    wire = Wire()
    monkeypatch.setattr(StrictHTTPSession, "send", wire.send)
    origin = S3Origin(OriginSettings.model_validate({"credentials": KEYS_OF_S3, **given}))
    origin.signing_clock._wall = lambda: NOW
    monkeypatch.setattr(origin.breaker, "failed", lambda *_: None)
    with asyncio.Runner() as runner:
        runner.run(origin.__aenter__())
        yield Both(runner, origin, wire)
        runner.run(origin.__aexit__(None, None, None))


def comparable(sent: Wired) -> Wired:
    """Return a request without what bucketfront adds for each bucket, and without the length of no body."""
    method, url, headers = sent
    return method, url, {name: value for name, value in headers.items() if (name, value) != ("content-length", "0")}


@pytest.mark.sampled
def test_a_forwarded_request_is_that_of_the_sdk(both: Both) -> None:
    """I23: method, URL and fields are those of botocore for each operation, signature included."""
    for operation, (call, params) in OPERATIONS.items():
        by_sdk = comparable(both.by_sdk(call, params))
        found = comparable(both.forwarded(operation, by_sdk, params.get("Key", "")))
        if "x-amz-request-payer" in found[2]:  # not each operation of the SDK has the terms of the bucket
            assert {**found[2], **by_sdk[2]}.keys() == found[2].keys()
            continue
        assert found == by_sdk, operation


@pytest.mark.sampled
def test_each_key_is_signed_as_the_sdk_signs_it(both: Both) -> None:
    """I23: the same holds for any key and any value in the query."""

    @settings(max_examples=examples(3, 40), deadline=None)
    @given(key=keys, upload=keys)
    def compare(key: str, upload: str) -> None:
        by_sdk = both.by_sdk("upload_part", {**NAMED, "Key": key, "UploadId": upload, "PartNumber": 1, "Body": b"c"})
        found = both.forwarded("UploadPart", by_sdk, key)
        if "x-amz-expected-bucket-owner" not in by_sdk[2]:
            assert found == by_sdk

    compare()


@each_row(
    ("raw", "canonical"),
    [
        ("", ""),
        ("uploads", "uploads"),
        ("uploads=", "uploads="),
        ("&a&&b=&", "a&b="),
        ("prefix=a+b%20c%2B", "prefix=a%20b%20c%2B"),
        ("prefix=a/b=c?d:@~é%ff", "prefix=a%2Fb%3Dc%3Fd%3A%40~%C3%A9%FF"),
        ("a=%2&b=%zz", "a=%252&b=%25zz"),
        ("b=2&a=1&b=1", "b=2&a=1&b=1"),
        ("a=\udcff", "a=%FF"),
        ("%58-amz-signature=s&acl&X-Amz-Date=d&x-amz-acl=private", "acl&x-amz-acl=private"),
    ],
)
def test_a_query_has_one_spelling(raw: str, canonical: str) -> None:
    """Each byte of a query is encoded in the one way that S3 compares with the signature."""
    assert canonical_query(raw) == canonical
    assert canonical_query(canonical) == canonical


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_query_has_a_spelling(raw: str) -> None:
    """The encoding is total, and nothing in it could end the request line (I24)."""
    assert re.fullmatch(r"[A-Za-z0-9._~%&=-]*", canonical_query(raw))


async def test_what_goes_over_the_wire() -> None:
    """The target, the fields and the body arrive as they were signed, and no field of the connection is a client's."""
    fields = (
        ("x-amz-meta-a", "b  c\xa0d"), ("host", "evil"), ("authorization", "AWS4 x"), ("x-amz-security-token", "t"),
        ("x-amz-date", "1"), ("expect", "100-continue"), ("content-length", "1"), ("transfer-encoding", "chunked"),
        ("accept-encoding", "gzip"), ("connection", "x-amz-meta-a"), ("x-amz-meta-a", "e"),
    )  # fmt: skip
    answer = response("200 OK", ETag='"e"')
    async with asyncio.timeout(HANG_S), RawServer(answering(answer)) as server:
        given = {"endpoint_url": server.endpoint_url, "credentials": KEYS_OF_S3}
        async with S3Origin(OriginSettings.model_validate(given)) as origin:
            for key, query in (("a//b+/ %2F/", "partNumber=1&uploadId=a+b"), ("../x", "acl"), ("/", "tagging=")):
                request = ForwardedRequest("PutObject", "PUT", "bucket", key, query, fields, b"content", 7)
                with tracing(
                    RequestTrace("id-4711", "1.1 bucketfront-0", "00-" + "1" * 32 + "-" + "2" * 16 + "-01", None)
                ):
                    async with origin.forward(request) as sent:
                        assert sent.status == 200
    host = str(given["endpoint_url"]).removeprefix("http://")
    assert [head.target for head in server.heads] == [
        "/bucket/a//b%2B/%20%252F/?partNumber=1&uploadId=a%20b", "/bucket/../x?acl", "/bucket//?tagging=",
    ]  # fmt: skip
    for head in server.heads:
        assert head.headers["host"] == host
        assert head.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
        assert head.headers["content-length"] == "7"
        assert head.headers["accept-encoding"] == "identity"
        assert head.headers["x-amz-meta-a"].encode("latin-1").decode() == "b  c\xa0d,e"
        assert head.headers["user-agent"].endswith("(request id-4711)")
        assert not {"expect", "transfer-encoding", "x-amz-security-token", "connection"} & head.headers.keys()
        assert ";x-amz-meta-a" in head.headers["authorization"]
        assert "traceparent" not in head.headers["authorization"]


async def test_another_owner_than_that_of_the_settings() -> None:
    """A client cannot replace the account that the bucket must belong to, and nothing is sent for it."""
    answer = response("200 OK", ETag='"e"')
    async with asyncio.timeout(HANG_S), RawServer(answering(answer)) as server:
        given = {"endpoint_url": server.endpoint_url, "credentials": KEYS_OF_S3, "expected_bucket_owner": "1" * 12}
        async with S3Origin(OriginSettings.model_validate(given)) as origin:
            with pytest.raises(AccessDenied):
                async with origin.forward(
                    ForwardedRequest(
                        "GetObject", "GET", "b-1", "k", fields=(("x-amz-expected-bucket-owner", "2" * 12),)
                    )
                ):
                    pass
            assert not server.heads
            assert origin.calls.failures.counts == {}
            async with origin.forward(
                ForwardedRequest("PutObject", "PUT", "b-1", "k", fields=(("x-amz-expected-bucket-owner", "1" * 12),))
            ):
                pass
    (head,) = server.heads
    assert head.headers["x-amz-expected-bucket-owner"] == "1" * 12
