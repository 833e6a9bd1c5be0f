"""Reads that are sent without a call of the SDK: they are the same requests, and get the same errors."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiobotocore.awsrequest import AioAWSResponse
from botocore import auth
from botocore.credentials import ReadOnlyCredentials
from fakes import Head, RawConnection, RawServer, object_bytes, response
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import each_row, examples
from stopwatch import HANG_S

from bucketfront.cache.origin import NotModified, OriginResponse
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import ObjectNotFound
from bucketfront.http.ranges import FromTo
from bucketfront.http.response_fields import ResponseFields
from bucketfront.keys import ObjectKey
from bucketfront.request_trace import RequestTrace, tracing
from bucketfront.s3.client import S3Origin
from bucketfront.s3.direct_reads import DirectReads
from bucketfront.s3.read_template import GET, HEAD, ReadRequest, ReadTemplate, is_plain
from bucketfront.s3.signature import Scope, _Signed, sign_as
from bucketfront.s3.transport import StrictHTTPSession

NOW = 1_700_000_000.0
KEYS_OF_S3 = {"access_key_id": "AKID", "secret_access_key": "secret"}
TOKEN = {**KEYS_OF_S3, "session_token": "token/+="}
HERE = "http://127.0.0.1:9000"
ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'

# The settings, the variables of the SDK, and the begin of a URL.
CASES: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "custom": ({"endpoint_url": HERE, "addressing_style": "path"}, {}, f"{HERE}/bucket/"),
    "custom https": ({"endpoint_url": "https://s3.test"}, {}, "https://s3.test/bucket/"),
    "custom with a path": ({}, {"AWS_ENDPOINT_URL": f"{HERE}/base"}, f"{HERE}/base/bucket/"),
    "custom, virtual": (
        {"endpoint_url": "http://s3.test:9000", "addressing_style": "virtual"}, {}, "http://bucket.s3.test:9000/"
    ),
    "custom from a variable": ({}, {"AWS_ENDPOINT_URL_S3": HERE}, f"{HERE}/bucket/"),
    "IPv6": ({"endpoint_url": "http://[::1]:9000"}, {}, "http://[::1]:9000/bucket/"),
    "AWS": ({}, {}, "https://bucket.s3.amazonaws.com/"),
    "AWS, path": ({"addressing_style": "path"}, {}, "https://s3.amazonaws.com/bucket/"),
    "AWS, region": ({"region": "eu-west-1"}, {}, "https://bucket.s3.eu-west-1.amazonaws.com/"),
    "AWS, China": ({"region": "cn-north-1"}, {}, "https://bucket.s3.cn-north-1.amazonaws.com.cn/"),
    "dual stack": (
        {"region": "eu-west-1"}, {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        "https://bucket.s3.dualstack.eu-west-1.amazonaws.com/",
    ),
    "FIPS": (
        {"region": "us-east-2"}, {"AWS_USE_FIPS_ENDPOINT": "true"}, "https://bucket.s3-fips.us-east-2.amazonaws.com/"
    ),
    "FIPS, dual stack": (
        {"region": "us-east-2"}, {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
        "https://bucket.s3-fips.dualstack.us-east-2.amazonaws.com/",
    ),
    "session token": ({"endpoint_url": HERE, "credentials": TOKEN}, {}, f"{HERE}/bucket/"),
    "anonymous": ({"endpoint_url": HERE, "credentials": "anonymous"}, {}, f"{HERE}/bucket/"),
    "anonymous, AWS": ({"credentials": "anonymous"}, {}, "https://bucket.s3.amazonaws.com/"),
    "terms": (
        {"endpoint_url": HERE, "request_payer": True, "expected_bucket_owner": "123456789012"}, {}, f"{HERE}/bucket/"
    ),
}  # fmt: skip
UNUSUAL_BUCKETS = (
    "arn:aws:s3:us-east-1:123456789012:accesspoint/mine",
    "arn:aws:s3::123456789012:accesspoint/mine.mrap",
    "mine--use1-az4--x-s3",
    "mine--op-s3",
)
OTHER_BUCKETS = ("bucket", "dotted.bucket.name", "UPPER_case", "ab-s3alias")

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
odd_keys = st.sampled_from(
    ["a//b", "/lead", "trail/", "../x", "a/./b", ".", "..", "%2F%", "a+b c", "~(é)'\"", "?x#y", "ü/日本"]
)
etags = st.one_of(
    st.from_regex(r"[0-9a-f]{32}(-[1-9][0-9]{0,3})?", fullmatch=True),
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=20),
).map(lambda text: f'"{text}"')
ranges = st.one_of(
    st.builds(lambda start, length: f"bytes={start}-{start + length}", st.integers(0, 2**40), st.integers(0, 2**30)),
    st.integers(0, 2**40).map(lambda start: f"bytes={start}-"),
    st.integers(1, 2**30).map(lambda length: f"bytes=-{length}"),
)
reads = st.fixed_dictionaries(
    {"Bucket": st.sampled_from(OTHER_BUCKETS), "Key": texts | odd_keys},
    optional={"Range": ranges, "IfMatch": etags, "IfNoneMatch": etags, "VersionId": texts | st.just("null")},
)


class Wire:
    """The requests that are sent, none of which leaves the process. Each gets a 206."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    async def send(self, request: Any) -> AioAWSResponse:
        headers = {name: value if isinstance(value, str) else value.decode() for name, value in request.headers.items()}
        self.requests.append((request.method, request.url, headers))
        return AioAWSResponse(request.url, 206, {}, _Sent())


class _Sent(SimpleNamespace):
    status = 206
    fields = ResponseFields(())

    async def read(self) -> bytes:
        return b""

    def close(self) -> None: ...


class Both:
    """An origin in an event loop of its own, and what it sends in each of the two ways."""

    def __init__(self, runner: asyncio.Runner, origin: S3Origin, wire: Wire) -> None:
        self._runner = runner
        self._wire = wire
        self.reads: DirectReads = origin.calls.objects

    def sent(self, operation: str, params: dict[str, str]) -> tuple[object, object]:
        """Return what is sent directly, and what the SDK sends: requests or an error."""
        read = self.reads.get_object if operation == GET else self.reads.head_object
        return self._outcome(read(**params)), self._outcome(self.reads._call(operation, params))

    def has_template(self, operation: str, bucket: str) -> bool:
        return self.reads._templates.get((operation, bucket)) is not None

    def _outcome(self, call: Any) -> object:
        self._wire.requests.clear()
        try:
            self._runner.run(call)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the same
            return type(error)
        return list(self._wire.requests)


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Both, str]]:
    given, variables, url = request.param
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    wire = Wire()
    monkeypatch.setattr(StrictHTTPSession, "send", wire.send)
    origin = S3Origin(OriginSettings.model_validate({"credentials": KEYS_OF_S3, **given}))
    origin.signing_clock._wall = lambda: NOW
    with asyncio.Runner() as runner:
        runner.run(origin.__aenter__())
        yield Both(runner, origin, wire), url
        runner.run(origin.__aexit__(None, None, None))


@pytest.mark.sampled
@pytest.mark.parametrize("operation", [GET, HEAD])
def test_a_direct_read_is_the_request_of_the_sdk(case: tuple[Both, str], operation: str) -> None:
    """I23: both paths send the same method, URL and fields, signature included, for every key and parameter."""
    both, url = case

    @settings(max_examples=examples(4, 40), deadline=None)
    @given(params=reads)
    def compare(params: dict[str, str]) -> None:
        direct, by_sdk = both.sent(operation, params)
        assert direct == by_sdk

    compare()
    for bucket in ("dotted.bucket.name", "ab-s3alias", "bucket"):
        direct, by_sdk = both.sent(operation, {"Bucket": bucket, "Key": "a/b"})
        assert direct == by_sdk
        assert both.has_template(operation, bucket)
    assert isinstance(direct, list)
    assert [sent[:2] for sent in direct] == [(operation[:-6].upper(), f"{url}a/b")]


@each_row("bucket", UNUSUAL_BUCKETS)
def test_unusual_buckets_are_read_by_calls_of_the_sdk(bucket: str) -> None:
    """Access points and directory buckets have signatures, hosts and credentials of their own."""
    assert not is_plain({"Bucket": bucket, "Key": "o"})
    assert is_plain({"Bucket": "bucket", "Key": "o"})


@each_row(
    "unusual",
    [
        {"SSECustomerKey": "k" * 32, "SSECustomerAlgorithm": "AES256"},
        {"PartNumber": "1"},
        {"IfMatch": '"é"'},
        {"IfMatch": '" two  blanks"'},
        {"Range": ""},
        {"Key": ""},
    ],
)
def test_unusual_parameters_are_for_the_sdk(unusual: dict[str, str]) -> None:
    """A parameter that a template does not know, or a value that may need an escape, makes a call of the SDK."""
    assert not is_plain({"Bucket": "bucket", "Key": "o", **unusual})


def test_a_signature_is_botocores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of a day and fields that are kept are those of botocore, which makes them anew."""
    config = SimpleNamespace(s3={"payload_signing_enabled": False})
    for number in range(40):
        day, fields = NOW + number % 5 * 86400, {"User-Agent": "one", "Range": f"bytes={number}-"}
        secret = ReadOnlyCredentials("AKID", f"secret{number % 3}", f"token{number}" if number % 2 else None)
        region = ("us-east-1", "eu-west-1")[number % 2]
        one, two = (
            ReadRequest("GET", f"http://h/b/{number}", dict(fields), None, True, {"client_config": config})
            for _ in range(2)
        )
        other = SimpleNamespace(context={"bucketfront_signed": _Signed(secret, day, Scope("s3", region))})
        sign_as(one, other)
        moment = datetime.fromtimestamp(day, UTC)
        monkeypatch.setattr(auth, "get_current_datetime", lambda moment=moment: moment)
        auth.S3SigV4Auth(secret, "s3", region).add_auth(two)
        assert one.headers == two.headers


def _prepared(url: str, **headers: str) -> Any:
    config = SimpleNamespace(s3={"payload_signing_enabled": False})
    given = {"User-Agent": "one", **headers}
    return SimpleNamespace(method="GET", url=url, headers=given, context={"client_config": config})


def test_no_template_of_a_request_that_it_cannot_make() -> None:
    """A URL without the key at its end, a field that is not known or a signature of another kind have no template."""
    params = {"Bucket": "b", "Key": "k"}
    assert ReadTemplate.of(GET, params, _prepared("http://h/b/k")) is not None
    assert ReadTemplate.of(GET, params, _prepared("http://h/b/other")) is None
    assert ReadTemplate.of(GET, params, _prepared("http://h/b/k", Authorization="AWS4-ECDSA-P256-SHA256 …")) is None
    assert ReadTemplate.of(GET, params, _prepared("http://h/b/k", X_Amzn_Trace_Id="Root=1")) is None
    assert ReadTemplate.of(HEAD, params, _prepared("http://h/b/k")) is None


class ScriptedOrigin:
    """An origin whose next responses a test has listed. It sends the same one for all further requests."""

    def __init__(self, *responses: bytes) -> None:
        self.responses = list(responses)
        self.heads: list[Head] = []

    async def script(self, connection: RawConnection, head: Head) -> None:
        self.heads.append(head)
        await connection.send(self.responses.pop(0) if len(self.responses) > 1 else self.responses[0])


@asynccontextmanager
async def origin_of(scripted: ScriptedOrigin) -> AsyncIterator[S3Origin]:
    async with asyncio.timeout(HANG_S), RawServer(scripted.script) as server:
        given = {"endpoint_url": server.endpoint_url, "addressing_style": "path", "credentials": TOKEN}
        async with S3Origin(OriginSettings.model_validate(given)) as origin:
            yield origin


WHOLE = response("206 Partial", object_bytes(10), ETag=ETAG, Content_Range="bytes 0-9/10")
NO_KEY = response(
    "404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>", Content_Type="application/xml", x_amz_request_id="R1"
)


async def test_nothing_normalises_a_key_on_its_way() -> None:
    """I23: the target on the wire has each key as the SDK escapes it, and Host is that of the endpoint."""
    scripted = ScriptedOrigin(WHOLE)
    spelled = {
        "a//b": "a//b", "../x": "../x", "a/./b": "a/./b", "/lead": "/lead", "x/": "x/", ".": ".",
        "a%2Fb": "a%252Fb", "a+b c": "a%2Bb%20c", "é": "%C3%A9", "~!*'()": "~%21%2A%27%28%29",
    }  # fmt: skip
    async with origin_of(scripted) as origin:
        for key in spelled:
            found = await origin.get(ObjectKey("bucket", key), FromTo(0, 10))
            assert isinstance(found, OriginResponse)
            assert await found.body.read() == object_bytes(10)
            found.body.close()
        host = origin.endpoint.url.removeprefix("http://")
    assert [head.target for head in scripted.heads] == [f"/bucket/{place}" for place in spelled.values()]
    assert {head.headers["host"] for head in scripted.heads} == {host}
    assert {head.headers["x-amz-content-sha256"] for head in scripted.heads} == {"UNSIGNED-PAYLOAD"}


async def test_an_error_of_a_direct_read_costs_one_request() -> None:
    """The SDK judges the response that came, and sends no request of its own for it."""
    scripted = ScriptedOrigin(NO_KEY)
    async with origin_of(scripted) as origin:
        with pytest.raises(ObjectNotFound) as raised:
            await origin.get(ObjectKey("bucket", "o"), FromTo(0, 10))
        assert raised.value.response is not None
        assert (raised.value.response.code, raised.value.response.request_id) == ("NoSuchKey", "R1")
        assert len(scripted.heads) == 1
        assert sum(origin.billing.counts.values()) == 1


async def test_a_304_is_counted_and_leaves_its_connection_usable() -> None:
    """Revalidation is a direct read as well, and S3 charges for it."""
    scripted = ScriptedOrigin(response("304 Not Modified", ETag=ETAG), WHOLE)
    async with origin_of(scripted) as origin:
        key = ObjectKey("bucket", "o")
        assert isinstance(await origin.get(key, FromTo(0, 10), if_none_match=ETAG), NotModified)
        found = await origin.get(key, FromTo(0, 10))
        assert isinstance(found, OriginResponse)
        found.body.close()
        assert sum(origin.billing.counts.values()) == 2
    assert len({head.headers["x-amz-date"] for head in scripted.heads}) <= 2


async def test_a_direct_read_names_the_request_of_its_client() -> None:
    """The fields of the trace are those of a call of the SDK, behind the signature."""
    scripted = ScriptedOrigin(WHOLE)
    async with origin_of(scripted) as origin:
        with tracing(RequestTrace("id-4711", "1.1 bucketfront-0", "00-" + "1" * 32 + "-" + "2" * 16 + "-01", None)):
            found = await origin.get(ObjectKey("bucket", "o"), FromTo(0, 10))
        assert isinstance(found, OriginResponse)
        found.body.close()
    (head,) = scripted.heads
    assert head.headers["user-agent"].endswith("(request id-4711)")
    assert head.headers["traceparent"].startswith("00-1")
    assert "traceparent" not in head.headers["authorization"]
