"""Signatures of S3's clients are verified as S3 does; botocore's own signers are the reference."""

import dataclasses
import hashlib
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.utils import percent_encode
from hypothesis import given
from hypothesis import strategies as st

from bucketfront.http import sigv4
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.http.sigv4 import ChunkSignatures, Claim, claim_of

KEY_ID, SECRET, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-west-1"
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
METHODS = st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "POST"])
NAMES = st.sampled_from(["x-amz-meta-a", "x-amz-acl", "x-amz-tagging", "range", "content-type", "if-match"])


def signed(
    method: str, key: str, query: dict[str, str], fields: dict[str, str], *, expires: int | None = None, token: str = ""
) -> tuple[str, str, dict[str, str]]:
    """Return path, query and fields of a request that botocore has signed."""
    place = "&".join(f"{percent_encode(name)}={percent_encode(value)}" for name, value in query.items())
    url = f"https://bucket.example.com/{percent_encode(key, safe='/~')}" + (f"?{place}" if place else "")
    request = AWSRequest(method, url, headers=fields)
    credentials = Credentials(KEY_ID, SECRET, token or None)
    if expires is None:
        request.context["client_config"] = None
        S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
    else:
        S3SigV4QueryAuth(credentials, "s3", REGION, expires).add_auth(request)
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    found = {
        name.lower(): value if isinstance(value, str) else value.decode() for name, value in prepared.headers.items()
    }
    return parts.path, parts.query, {"host": "bucket.example.com", **found}


def verified(method: str, path: str, query: str, fields: dict[str, str], secret: str = SECRET) -> Claim:
    claim = claim_of(fields, query)
    assert claim is not None
    sigv4.verify(claim, secret, method, path, query, fields)
    return claim


@given(METHODS, KEYS, st.dictionaries(KEYS, VALUES, max_size=3), st.dictionaries(NAMES, VALUES, max_size=3))
def test_signatures_in_fields(method: str, key: str, query: dict[str, str], fields: dict[str, str]) -> None:
    """What botocore signs is verified, for any key, query and fields."""
    claim = verified(method, *signed(method, key, query, fields, token="a-session"))
    assert (claim.key_id, claim.scope.region, claim.expires) == (KEY_ID, REGION, None)


@given(METHODS, KEYS, st.dictionaries(KEYS, VALUES, max_size=3), st.integers(1, sigv4.MAX_EXPIRES_S))
def test_signatures_in_the_query(method: str, key: str, query: dict[str, str], expires: int) -> None:
    """So is what botocore signs in the query."""
    claim = verified(method, *signed(method, key, query, {}, expires=expires, token="a-session"))
    assert (claim.key_id, claim.expires, claim.payload) == (KEY_ID, expires, sigv4.Payload.UNSIGNED)


@pytest.mark.parametrize("expires", [None, 60])
def test_each_part_is_signed(expires: int | None) -> None:
    """Another method, path, query, field or secret is refused."""
    path, query, fields = signed("GET", "a/b", {"versionId": "1"}, {"x-amz-meta-a": "1"}, expires=expires)
    verified("GET", path, query, fields)
    changed: list[tuple[str, str, str, dict[str, str], str]] = [
        ("HEAD", path, query, fields, SECRET),
        ("GET", path + "x", query, fields, SECRET),
        ("GET", path, query.replace("versionId=1", "versionId=2"), fields, SECRET),
        ("GET", path, query + "&acl", fields, SECRET),
        ("GET", path, query, {**fields, "host": "other.example.com"}, SECRET),
        ("GET", path, query, {**fields, "x-amz-meta-a": "2"}, SECRET),
        ("GET", path, query, fields, SECRET + "x"),
    ]
    for request in changed:
        with pytest.raises(S3Refused) as raised:
            verified(*request)
        assert raised.value.refusal is Refusal.MISMATCH
        assert raised.value.refusal.status == 403


def test_fields_that_are_not_signed() -> None:
    """A field of S3 that is not signed is refused, since anyone on the way may have added it."""
    path, query, fields = signed("GET", "x", {}, {})
    with pytest.raises(S3Refused, match="x-amz-copy-source") as raised:
        verified("GET", path, query, {**fields, "x-amz-copy-source": "b/k"})
    assert raised.value.refusal is Refusal.DENIED


def test_other_spellings_of_a_path() -> None:
    """Escapes that a path does not need, or that are missing, change nothing of its signature."""
    path, query, fields = signed("GET", "a(b)!~ü", {}, {})
    for spelling in ("/a(b)!~%c3%bc", "/%61(b)!%7E%C3%BC", path):
        verified("GET", spelling, query, fields)


@pytest.mark.parametrize(
    ("seconds", "refusal"),
    [(0, None), (899, None), (-899, None), (901, Refusal.SKEWED), (-901, Refusal.SKEWED)],
)
def test_clock_skew(seconds: float, refusal: Refusal | None) -> None:
    """A signature in the fields holds for 15 minutes before and after its time."""
    claim = verified("GET", *signed("GET", "x", {}, {}))
    assert refusal_at(claim, seconds) is refusal


@pytest.mark.parametrize(
    ("seconds", "refusal"),
    [(0, None), (59, None), (61, Refusal.DENIED), (-899, None), (-901, Refusal.DENIED)],
)
def test_expiry(seconds: float, refusal: Refusal | None) -> None:
    """A signature in the query holds until it expires."""
    claim = verified("GET", *signed("GET", "x", {}, {}, expires=60))
    assert refusal_at(claim, seconds) is refusal


def refusal_at(claim: Claim, seconds: float) -> Refusal | None:
    at = datetime.strptime(claim.moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    try:
        sigv4.check_time(claim, at + seconds)
    except S3Refused as error:
        return error.refusal
    return None


def test_no_signature() -> None:
    """A request without a signature has no claim."""
    assert claim_of({"host": "a"}, "") is None
    assert claim_of({"host": "a"}, "X-Amz-Meta=1") is None


FIELDS: dict[str, str] = signed("GET", "x", {}, {})[2]


@pytest.mark.parametrize(
    ("fields", "query", "refusal"),
    [
        ({**FIELDS, "authorization": "Basic YTpi"}, "", Refusal.INVALID_ARGUMENT),
        ({**FIELDS, "authorization": "AWS app:c2lnbmF0dXJl"}, "", Refusal.INVALID),
        ({**FIELDS, "authorization": "AWS4-HMAC-SHA256 "}, "", Refusal.MALFORMED_HEADER),
        ({**FIELDS, "authorization": FIELDS["authorization"].replace("/s3/", "/ec2/")}, "", Refusal.MALFORMED_HEADER),
        ({**FIELDS, "authorization": FIELDS["authorization"][:-1]}, "", Refusal.MALFORMED_HEADER),
        ({**FIELDS, "x-amz-date": "yesterday"}, "", Refusal.DENIED),
        ({**FIELDS, "x-amz-date": "19990101T000000Z"}, "", Refusal.MALFORMED_HEADER),
        ({**FIELDS, "x-amz-content-sha256": "abc"}, "", Refusal.INVALID_ARGUMENT),
        ({**FIELDS, "x-amz-content-sha256": ""}, "", Refusal.INVALID),
        ({**FIELDS}, "X-Amz-Algorithm=AWS4-HMAC-SHA256", Refusal.INVALID_ARGUMENT),
        ({"host": "a"}, "AWSAccessKeyId=app&Expires=9999999999&Signature=x", Refusal.INVALID),
        ({"host": "a"}, "X-Amz-Algorithm=AWS4-HMAC-SHA256", Refusal.MALFORMED_QUERY),
    ],
)
def test_malformed_signatures(fields: dict[str, str], query: str, refusal: Refusal) -> None:
    """What is no signature of this version is refused with the code of S3, and never counts as none."""
    with pytest.raises(S3Refused) as raised:
        claim_of(fields, query)
    assert raised.value.refusal is refusal


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=50))
def test_any_input_ends(authorization: str, query: str, date: str) -> None:
    """Any head is verified or refused, and raises nothing else (cost of a request)."""
    fields = {
        "host": "a",
        "authorization": authorization,
        "x-amz-date": date,
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
    }
    try:
        claim = claim_of(fields, query)
        if claim is not None:
            sigv4.verify(claim, SECRET, "GET", "/" + query, query, fields)
    except S3Refused:
        pass


# S3 API, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks", its example.
EXAMPLE = Claim(
    "AKIAIOSFODNN7EXAMPLE",
    sigv4.Scope("20130524", "us-east-1", "s3"),
    "20130524T000000Z",
    ("host",),
    "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    sigv4.Payload.CHUNKS,
)
EXAMPLE_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
CHUNKS = [
    (b"a" * 65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (b"a" * 1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (b"", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
]


def test_signatures_of_chunks() -> None:
    """The chunks of S3's own example are verified in their order, and in no other."""
    found = ChunkSignatures(EXAMPLE, EXAMPLE_SECRET)
    for data, signature in CHUNKS:
        found.verify_chunk(hashlib.sha256(data).hexdigest(), signature)
    for wrong in (CHUNKS[1], (b"b" * 65536, CHUNKS[0][1]), (CHUNKS[0][0], "é" * 64)):
        with pytest.raises(S3Refused) as raised:
            ChunkSignatures(EXAMPLE, EXAMPLE_SECRET).verify_chunk(hashlib.sha256(wrong[0]).hexdigest(), wrong[1])
        assert raised.value.refusal is Refusal.MISMATCH


def test_another_seed() -> None:
    """A chunk of one request is none of another."""
    other: Any = dataclasses.replace(EXAMPLE, signature="0" * 64)
    with pytest.raises(S3Refused):
        ChunkSignatures(other, EXAMPLE_SECRET).verify_chunk(hashlib.sha256(CHUNKS[0][0]).hexdigest(), CHUNKS[0][1])
