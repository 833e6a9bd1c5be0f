"""Heads of hostile clients of S3: no change of a signed request is accepted, and any head ends in a declared error."""

import contextlib
from collections.abc import Callable
from urllib.parse import parse_qsl, quote

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import assume, given
from hypothesis import strategies as st

from bucketfront.errors import BadPath
from bucketfront.http import s3_query, sigv4
from bucketfront.http.s3_operations import Named, Operation, operation_of
from bucketfront.http.s3_refusal import S3Refused
from bucketfront.keys import ObjectKey, percent_decode
from bucketfront.server.s3_endpoint import copy_source
from bucketfront.server.s3_endpoint.s3_resource import resource_of

SECRET = "0123456789abcdef"
HOST, PATH, QUERY = "127.0.0.1:8082", "/bucket/folder/a%20b", "partNumber=1&uploadId=u"
FIELDS = {"x-amz-meta-a": "b", "content-type": "text/plain", "range": "bytes=0-9"}

Head = tuple[str, str, str, dict[str, str]]
"""The method, the path, the query and the fields of a request."""

# Octets of a head as the parser decodes them: bytes above 0x7F are surrogate escapes.
RAW = st.binary(max_size=300).map(lambda octets: octets.decode("utf-8", "surrogateescape"))
TEXT = st.one_of(RAW, st.text("%&=+/?;.aX-mz0\x00é ", max_size=60))


def _head(is_presigned: bool) -> Head:
    request = AWSRequest("PUT", f"http://{HOST}{PATH}?{QUERY}", headers=FIELDS)
    request.context["client_config"] = None
    credentials = Credentials("app", SECRET)
    if is_presigned:
        S3SigV4QueryAuth(credentials, "s3", "us-east-1", 600).add_auth(request)
    else:
        S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
    prepared = request.prepare()
    fields = {name.lower(): str(value) for name, value in prepared.headers.items()}
    return "PUT", PATH, prepared.url.partition("?")[2], {"host": HOST, **fields}


HEADS = [_head(is_presigned=False), _head(is_presigned=True)]


def is_accepted(head: Head) -> bool:
    """Return whether the signature of a request holds."""
    method, path, query, fields = head
    try:
        claim = sigv4.claim_of(fields, query)
        if claim is None:
            return False
        sigv4.verify(claim, SECRET, method, path, query, fields)
    except S3Refused:
        return False
    return True


def _meaning(head: Head) -> object:
    """Return what a request means, so that two spellings of one request are the same."""
    method, path, query, fields = head
    claim = sigv4.claim_of(fields, query)
    assert claim is not None
    signed = [(name, " ".join(fields.get(name, "").split())) for name in claim.names]
    parameters = sorted(pair for pair in parse_qsl(query, True) if pair[0] != "X-Amz-Signature")
    return method, percent_decode(path.encode()), parameters, signed, claim.signature


@pytest.mark.parametrize("head", HEADS)
def test_an_unchanged_request(head: Head) -> None:
    """The requests that the property below changes are accepted as they are."""
    assert is_accepted(head)


PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)


@given(st.sampled_from(HEADS), st.data())
def test_any_change_of_a_signed_request(head: Head, data: st.DataObject) -> None:
    """A request with another method, path, query or signed field than was signed is refused (authorise first)."""
    method, path, query, fields = head
    signed = sorted(name for name in fields if name != "user-agent")
    what = data.draw(st.sampled_from(["method", "path", "query", "added", *signed]))

    def changed(text: str) -> str:
        at = data.draw(st.integers(0, len(text)))
        return text[:at] + data.draw(st.text(PRINTABLE, max_size=3)) + text[at + data.draw(st.integers(0, 3)) :]

    if what == "method":
        method = data.draw(st.sampled_from(["GET", "HEAD", "POST", "DELETE", "put"]))
    elif what == "path":
        path = changed(path)
    elif what == "query":
        query = changed(query)
    elif what == "added":
        fields = {**fields, f"x-amz-{data.draw(st.sampled_from(['acl', 'meta-b', 'copy-source']))}": "x"}
    else:
        fields = {**fields, what: changed(fields[what])}
    mutant = method, path, query, fields
    if is_accepted(mutant):
        unsigned = head == HEADS[1] and what in FIELDS and what not in query
        assume(not unsigned)
        assert _meaning(mutant) == _meaning(head)


def _named(path: str, query: str) -> Operation:
    resource = resource_of(f"{path}?{query}", "bucket.s3.test", "s3.test")
    found = s3_query.parse(resource.query)
    return operation_of("GET", resource.named, found.parameters, found.merged({"x-amz-acl": "private"}))


ENTRANCES: list[Callable[[str, str], object]] = [
    lambda text, other: sigv4.claim_of({"authorization": text, "x-amz-date": other}, other),
    lambda text, other: sigv4.claim_of({}, f"X-Amz-Algorithm={text}&X-Amz-Credential={other}"),
    lambda text, other: s3_query.parse(text).merged({"x-amz-acl": other}),
    lambda text, other: resource_of(f"/{text}", other, None),
    lambda text, other: resource_of(f"/{text}", f"{other}.s3.test", "s3.test"),
    lambda text, other: _named(f"/{text}", other),
    lambda text, other: copy_source.parse(f"{text}/{other}"),
    lambda text, other: copy_source.parse(f"bucket/{text}?versionId={other}"),
    lambda text, other: operation_of(text, Named.OBJECT, [text, other], [other]),
]


@pytest.mark.parametrize("number", range(len(ENTRANCES)))
@given(TEXT, TEXT)
def test_any_head_ends_in_a_declared_error(number: int, text: str, other: str) -> None:
    """What parses a head returns a value, or raises one of the errors that clients get (cost of a request)."""
    with contextlib.suppress(S3Refused, BadPath):
        ENTRANCES[number](text, other)


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60), st.booleans()
)
def test_a_copy_source_is_what_the_origin_reads(key: str, has_slash: bool) -> None:
    """The source that is judged is the one that the origin gets, however it was spelled (one door to a key)."""
    spelled = f"{'/' * has_slash}bucket/{quote(key)}"
    source = copy_source.parse(spelled)
    assert (source.resource.bucket, source.resource.octets) == ("bucket", key.encode())
    assert copy_source.parse(source.text(ObjectKey("bucket", key))) == source


def test_heads_that_would_cost_much() -> None:
    """A head that would be read many times over is refused before that (cost of a request)."""
    with pytest.raises(S3Refused, match="more than 200 parameters"):
        s3_query.parse("a&" * 200)
    with pytest.raises(S3Refused, match="more than 200 parameters"):
        sigv4.claim_of({}, "X-Amz-Algorithm=AWS4-HMAC-SHA256" + "&a=%41" * 200)
    method, path, query, fields = HEADS[0]
    names = fields["authorization"].replace("SignedHeaders=", "SignedHeaders=" + "range;" * 500)
    claim = sigv4.claim_of({**fields, "authorization": names}, query)
    assert claim is not None
    with pytest.raises(S3Refused, match="names a field twice"):
        sigv4.verify(claim, SECRET, method, path, query, fields)


@pytest.mark.parametrize(
    ("query", "meaning"),
    [("a=1&a=1", None), ("a&%61", None), ("x-amz-acl=a&X-Amz-Acl=b", None), ("prefix=a&Prefix=b", "prefix=a&Prefix=b"),
     ("X-Amz-Date=1&x-id=a&X-Amz-Date=2&&%58-amz-signature=", "x-id=a"), ("x-amz-acl=private&b=", "b=")],
)  # fmt: skip
def test_parameters_that_are_given_twice(query: str, meaning: str | None) -> None:
    """A parameter has one value however it is encoded. Those of a signature are left out."""
    if meaning is None:
        with pytest.raises(S3Refused):
            s3_query.parse(query)
    else:
        assert s3_query.parse(query).spelling == meaning
