"""S3's response headers as values, and the responses that are refused."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.cache.origin import NotModified
from bucketfront.errors import InvalidOriginResponse, ObjectChanged, RangeUnsatisfiable
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import FromTo, Span, Suffix
from bucketfront.http.response_fields import ResponseFields
from bucketfront.s3 import responses
from bucketfront.s3.responses import check_done, check_version, is_chunked, size_sent, span_sent

ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'


def fields(headers: Mapping[str, str]) -> ResponseFields:
    return ResponseFields((name.encode(), value.encode()) for name, value in headers.items())


def metadata(headers: Mapping[str, str], size: int, version: str | None = None, *, is_whole: bool = False) -> Metadata:
    return responses.metadata(fields(headers), size, version, is_whole=is_whole)


def not_modified(headers: Mapping[str, str]) -> NotModified:
    return responses.not_modified(fields(headers))


def sent(content_range: str | None, length: int | str | None) -> dict[str, str]:
    headers = {"content-range": content_range, "content-length": None if length is None else str(length)}
    return {name: value for name, value in headers.items() if value is not None}


@each_row(
    ("part", "status", "content_range", "length", "expected"),
    [
        # RFC 9110 section 14.4: first-last/complete
        (FromTo(0, 10), 206, "bytes 0-9/100", 10, (Span(0, 10), 100)),
        (FromTo(90, 200), 206, "bytes 90-99/100", 10, (Span(90, 100), 100)),
        (FromTo(90), 206, "bytes 90-99/100", 10, (Span(90, 100), 100)),
        (FromTo(0), 206, "bytes 0-99/100", 100, (Span(0, 100), 100)),
        (Suffix(10), 206, "bytes 90-99/100", 10, (Span(90, 100), 100)),
        (Suffix(1000), 206, "bytes 0-99/100", 100, (Span(0, 100), 100)),
        (FromTo(0, 1), 206, f"bytes 0-0/{2**63 - 1}", 1, (Span(0, 1), 2**63 - 1)),
        # section 14.2: a server may ignore Range
        (FromTo(0), 200, None, 100, (Span(0, 100), 100)),
        (FromTo(0, 10), 200, None, 100, (Span(0, 100), 100)),
        (Suffix(10), 200, None, 100, (Span(0, 100), 100)),
    ],
)
def test_the_span_of_a_response(
    part: FromTo | Suffix, status: int, content_range: str | None, length: int, expected: tuple[Span, int]
) -> None:
    """I3: the span and the whole size come from a head whose parts agree with each other and with the request."""
    assert span_sent(status, sent(content_range, length), part) == expected


@each_row(
    ("status", "content_range", "length"),
    [
        (206, None, 10),  # RFC 9110 section 15.3.7.1: Content-Range is a must
        (206, "bytes 10-19/*", 10),  # section 14.4: no complete length
        (206, "bytes */100", 10),  # that is a 416's
        (206, "items 10-19/100", 10),
        (206, "bytes=10-19/100", 10),
        (206, "bytes 10-19/100, bytes 30-39/100", 20),
        (206, "bytes 10-19/100 ", 10),
        (206, "bytes -10-19/100", 10),
        (206, "bytes \u0661\u0660-\u0661\u0669/100", 10),  # digits, but not DIGIT
        (206, "bytes 10-19/15", 10),  # section 14.4: last-pos < complete-length
        (206, "bytes 10-19/19", 10),
        (206, "bytes 19-10/100", 10),
        (206, "bytes 10-19/100", 9),  # section 8.6: Content-Length is that of the part
        (206, "bytes 10-19/100", 100),
        (206, "bytes 10-19/100", None),
        (206, "bytes 10-19/100", "10, 10"),
        (206, "bytes 10-19/100", "-10"),
        (206, "bytes 10-19/100", "²"),
        (206, "bytes 10-19/100", ""),
        (206, "bytes 11-19/100", 9),  # other ranges than the requested one: later, earlier, longer, shorter
        (206, "bytes 0-19/100", 20),
        (206, "bytes 10-20/100", 11),
        (206, "bytes 10-18/100", 9),
        (200, None, 100),  # the range begins at 10, and 200 is the whole object
        (204, "bytes 10-19/100", 10),
        (203, None, 100),
        (206, f"bytes 10-19/{'9' * 20}", 10),
        (200, "bytes 10-19/100", 10),  # section 14.4: Content-Range belongs to 206 and 416
        (200, "bytes 10-19/100", 100),
    ],
)
def test_contradictory_heads_are_refused(status: int, content_range: str | None, length: int | str | None) -> None:
    """I1, I3: if status, Content-Range and Content-Length do not fit the request, no byte is read."""
    with pytest.raises(InvalidOriginResponse):
        span_sent(status, sent(content_range, length), FromTo(10, 20))


@each_row("content_range", ["bytes 80-99/100", "bytes 91-99/100", "bytes 80-89/100", "bytes 90-98/100"])
def test_another_suffix_than_requested(content_range: str) -> None:
    """I1: `-10` of 100 bytes is 90-99 and nothing else."""
    first, last = map(int, content_range[6:-4].split("-"))
    with pytest.raises(InvalidOriginResponse):
        span_sent(206, sent(content_range, last - first + 1), Suffix(10))


@given(
    size=st.integers(1, 2**63 - 1),
    start=st.integers(0, 2**63 - 1),
    length=st.none() | st.integers(1, 2**62),
    is_suffix=st.booleans(),
)
def test_a_correct_response_is_accepted(size: int, start: int, length: int | None, is_suffix: bool) -> None:
    """I22: for all sizes in 0..2^63-1, a correct response to a satisfiable range is accepted."""
    stop = None if length is None else start + length
    part = Suffix(max(1, start)) if is_suffix else FromTo(start, stop)
    span = part.within(size)
    if span is None:
        return
    headers = sent(f"bytes {span.start}-{span.stop - 1}/{size}", span.length)
    assert span_sent(206, headers, part) == (span, size)


@given(
    numbers=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)),
    start=st.integers(0, 30),
    length=st.integers(1, 30),
)
def test_any_other_response_is_refused(numbers: tuple[int, int, int, int], start: int, length: int) -> None:
    """I1: any other 206 is refused, or has exactly the requested range of the size that it names."""
    first, last, total, declared = numbers
    part = FromTo(start, start + length)
    try:
        span, size = span_sent(206, sent(f"bytes {first}-{last}/{total}", declared), part)
    except RangeUnsatisfiable:
        assert total == 0
    except InvalidOriginResponse:
        assert (first, last + 1, declared) != (start, min(start + length, total), last + 1 - first) or start >= total
    else:
        assert size == total
        assert span == part.within(total) == Span(first, last + 1)
        assert span.length == declared


def test_fields_of_the_connection_are_not_the_objects() -> None:
    """RFC 9110 section 7.6.1: Connection names fields of the connection, and they are not stored with the object."""
    headers = {"etag": ETAG, "x-amz-meta-a": "1", "x-amz-meta-b": "2", "connection": "x, X-Amz-Meta-A ,close"}
    assert metadata(headers, 5).headers == (("x-amz-meta-b", "2"),)


@each_row("field", [("Cache-Control", "no-store"), ("Content-Encoding", "gzip"), ("Expires", "0")])
def test_no_field_of_the_object_is_of_the_connection(field: tuple[str, str]) -> None:
    """I13: a field that decides whether the object is stored, or how it is decoded, stays whatever Connection names."""
    assert metadata({"etag": ETAG, field[0].lower(): field[1], "connection": field[0]}, 5).headers == (field,)


@each_row("etag", [ETAG, '"x-2"', 'W/"weak"'])
def test_etags_pass_as_sent(etag: str) -> None:
    """RFC 9110 section 8.8.3: an entity-tag is opaque, and its quotes and its weakness are part of it."""
    assert metadata({"etag": etag}, 5) == Metadata(etag, 5)


@each_row("etag", [None, "", '""', 'W/""', '"', '"open', 'close"', 'w/"weak"', "two words"])
def test_an_etag_that_is_no_validator(etag: str | None) -> None:
    """I1: an absent, empty or malformed entity-tag (RFC 9110 section 8.8.3) names no version."""
    found = metadata({} if etag is None else {"etag": etag}, 5)
    assert (found.etag, found.has_validator, found.is_strong) == ("", False, False)


@pytest.mark.parametrize("etag", ["d41d8cd9", "d41d8cd98f00b204e9800998ecf8427e-2"])
def test_an_etag_without_quotes(etag: str) -> None:
    """An ETag without quotes, as some S3-alikes send it, gets them."""
    found = metadata({"etag": etag}, 5)
    assert (found.etag, found.has_validator, found.is_strong) == (f'"{etag}"', True, True)


@each_row(
    ("etag", "dates", "is_same"),
    [
        ('"1"', ("a", "a"), True),
        ('"1"', (None, None), True),
        ('"1"', (None, "a"), False),
        ('"1"', ("a", "b"), False),  # an ETag that never changes
        ('W/"1"', ("a", "b"), False),
        ('"d41d8cd98f00b204e9800998ecf8427e-2"', ("a", "b"), False),
        (ETAG, ("a", "b"), False),  # some constant ETags look like an MD5
    ],
)
def test_a_version_has_one_last_modified(etag: str, dates: tuple[str | None, str | None], is_same: bool) -> None:
    """I1: an ETag is not believed against Last-Modified, even if it looks like an MD5."""
    one, other = (Metadata(etag, 5, last_modified=date) for date in dates)
    assert one.is_version(other) == other.is_version(one) == is_same
    assert not one.is_version(Metadata(etag, 6, last_modified=dates[0]))


@each_row(
    ("versions", "is_same"),
    [(("v1", "v1"), True), ((None, None), True), (("v1", "v2"), False), (("v1", None), False)],
)
def test_a_version_has_one_version_id(versions: tuple[str | None, str | None], is_same: bool) -> None:
    """I1: responses with two version ids, or with one and without, are of two versions."""
    one, other = (Metadata(ETAG, 5, last_modified="a", version=version) for version in versions)
    assert one.is_version(other) == other.is_version(one) == is_same


def test_headers_pass_by_allow_list() -> None:
    """I25: the object's own headers and its user metadata pass, and S3's other headers do not."""
    headers = {
        "etag": ETAG,
        "last-modified": "Wed, 21 Oct 2015 07:28:00 GMT",
        "age": "17",
        "content-type": "video/mp4",
        "content-encoding": "gzip",
        "content-language": "de",
        "content-disposition": "inline",
        "cache-control": "no-cache",
        "expires": "0",
        "x-amz-meta-b": "2",
        "x-amz-meta-a": "1",
        "content-length": "5",
        "content-range": "bytes 0-4/5",
        "server": "AmazonS3",
        "set-cookie": "a=b",
        "x-amz-request-id": "4711",
        "x-amz-version-id": "v1",
        "x-amz-server-side-encryption": "AES256",
        "x-amz-metadata": "no user's",
        "connection": "close",
    }
    found = metadata(headers, 5)
    assert found.last_modified == "Wed, 21 Oct 2015 07:28:00 GMT"
    assert found.age == 17
    assert found.headers == (
        ("Content-Type", "video/mp4"),
        ("Content-Encoding", "gzip"),
        ("Content-Language", "de"),
        ("Content-Disposition", "inline"),
        ("Cache-Control", "no-cache"),
        ("Expires", "0"),
        ("x-amz-meta-a", "1"),
        ("x-amz-meta-b", "2"),
    )


@each_row(
    ("encoding", "passed"),
    [
        ("gzip", "gzip"),
        ("aws-chunked", None),  # S3 API, "Signature calculations": framing of the upload, no coding of the object
        ("AWS-Chunked", None),
        ("gzip,aws-chunked", "gzip"),
        ("aws-chunked, gzip , br", "gzip, br"),
        (",aws-chunked,", None),
        ("identity", "identity"),
        ("gzip,br", "gzip,br"),  # as the origin sent it
    ],
)
def test_upload_framing_is_no_content_coding(encoding: str, passed: str | None) -> None:
    """I24: a browser never gets a Content-Encoding that the bytes do not have. The framing leaves none behind."""
    assert metadata({"etag": ETAG, "content-encoding": encoding}, 5).header("Content-Encoding") == passed


@each_row("age", ["", "-1", "1.5", "soon", "1" * 20, "²"])
def test_an_invalid_age(age: str) -> None:
    """RFC 9111 section 5.1: an Age that is no delta-seconds counts as absent."""
    assert metadata({"etag": ETAG, "age": age}, 5).age == 0


CRC64 = "AAECAwQFBgc="
SHA256 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@each_row(
    ("said", "checksum"),
    [
        ({}, None),
        ({"crc64nvme": CRC64, "type": "FULL_OBJECT"}, ("crc64nvme", CRC64)),
        ({"crc32": "AAECAw=="}, ("crc32", "AAECAw==")),  # S3-alikes know no type
        ({"crc32c": "AAECAw==", "type": "FULL_OBJECT"}, ("crc32c", "AAECAw==")),
        ({"sha1": "2jmj7l5rSw0yVb/vlWAYkK/YBwk="}, ("sha1", "2jmj7l5rSw0yVb/vlWAYkK/YBwk=")),
        ({"sha256": SHA256}, ("sha256", SHA256)),
        # S3 API, "Checking object integrity": of a multipart object, from its parts' checksums
        ({"sha256": SHA256, "type": "COMPOSITE"}, None),
        ({"crc32": "AAECAw==-3"}, None),
        ({"crc32": "AAECAw==-3", "type": "FULL_OBJECT"}, None),
        ({"crc32": "AAECAw==", "type": "full"}, None),
        ({"crc32": "AAEC"}, None),  # not the length of a CRC-32
        ({"crc32": "AAECAw"}, None),
        ({"crc32": "AAEC Aw=="}, None),
        ({"crc32": "AAECAÄ=="}, None),
        ({"crc32": ""}, None),
        ({"crc32": "", "sha256": SHA256}, ("sha256", SHA256)),
        ({"xxhash": "AAECAw=="}, None),
    ],
)
def test_a_checksum_of_the_whole_object(said: dict[str, str], checksum: tuple[str, str] | None) -> None:
    """I15: a checksum is kept if it is that of all bytes, and never from a partial response."""
    headers = {"etag": ETAG} | {f"x-amz-checksum-{name}": value for name, value in said.items()}
    assert metadata(headers, 5, is_whole=True).checksum == checksum
    assert metadata(headers, 5).checksum is None
    assert metadata(headers, 5, is_whole=True).is_version(metadata({"etag": ETAG}, 5))


def test_a_checksum_of_an_object_in_parts() -> None:
    """Without a type the checksum of an object in parts may be that of its parts, so it is not compared (I15)."""
    of_parts = {"etag": f'"{ETAG.strip(chr(34))}-2"', "x-amz-checksum-crc32": "AAECAw=="}
    assert metadata(of_parts, 5, is_whole=True).checksum is None
    typed = {**of_parts, "x-amz-checksum-type": "FULL_OBJECT"}
    assert metadata(typed, 5, is_whole=True).checksum == ("crc32", "AAECAw==")


@each_row(
    ("etag", "said", "md5"),
    [
        (ETAG, {}, ETAG.strip('"')),
        (ETAG, {"x-amz-server-side-encryption": "AES256"}, ETAG.strip('"')),  # S3's own keys
        (ETAG, {"x-amz-server-side-encryption": "aws:kms"}, None),
        (ETAG, {"x-amz-server-side-encryption": "aws:kms:dsse"}, None),
        (ETAG, {"x-amz-server-side-encryption": "something new"}, None),
        (ETAG, {"x-amz-server-side-encryption-customer-algorithm": "AES256"}, None),
        ('"d41d8cd98f00b204e9800998ecf8427e-2"', {}, None),  # multipart
        (f"W/{ETAG}", {}, None),
        ('"D41D8CD98F00B204E9800998ECF8427E"', {}, "d41d8cd98f00b204e9800998ecf8427e"),
        ('"d41d8cd98f00b204e9800998ecf8427"', {}, None),
    ],
)
def test_an_etag_that_is_an_md5(etag: str, said: dict[str, str], md5: str | None) -> None:
    """I15: S3 API, "Common response headers": the ETag is an MD5 of the bytes, or it is not."""
    assert metadata({"etag": etag} | said, 5).content_md5 == md5


def test_check_version() -> None:
    """I1: another ETag than the requested one is ObjectChanged, also if the origin ignored If-Match."""
    check_version(Metadata(ETAG, 5), None)
    check_version(Metadata(ETAG, 5), ETAG)
    for other in ('"other"', f"W/{ETAG}", ETAG.strip('"')):
        with pytest.raises(ObjectChanged):
            check_version(Metadata(ETAG, 5), other)


@each_row(
    ("sent", "asked", "version"),
    [
        (None, None, None),  # S3 API, GetObject: no header where the bucket was never versioned
        ("null", None, None),  # "null" can be overwritten
        ("v1", None, "v1"),
        ("v1", "v1", "v1"),
        (None, "null", None),
        ("null", "null", None),
    ],
)
def test_the_version_of_a_response(sent: str | None, asked: str | None, version: str | None) -> None:
    """I25: the version id is the one that S3 names, if that version cannot change."""
    headers = {"etag": ETAG} | ({} if sent is None else {"x-amz-version-id": sent})
    assert metadata(headers, 5, asked).version == version


@each_row(("sent", "asked"), [(None, "v1"), ("null", "v1"), ("v2", "v1"), ("V1", "v1"), ("v1", "null")])
def test_another_version_than_requested(sent: str | None, asked: str) -> None:
    """I1: a response that does not name the requested version is refused."""
    headers = {"etag": ETAG} | ({} if sent is None else {"x-amz-version-id": sent})
    with pytest.raises(InvalidOriginResponse, match="version id"):
        metadata(headers, 5, asked)


def test_headers_of_a_304() -> None:
    """RFC 9110 section 15.4.5: the headers that a 304 repeats, and None or 0 for the others."""
    said = {"last-modified": "Wed, 21 Oct 2015 07:28:00 GMT", "cache-control": "no-cache", "expires": "0", "age": "5"}
    assert not_modified(said) == NotModified(
        "Wed, 21 Oct 2015 07:28:00 GMT", 5, (("Cache-Control", "no-cache"), ("Expires", "0"))
    )
    assert not_modified({"etag": ETAG, "last-modified": "", "age": "-5"}) == NotModified()


@each_row("content_range", ["bytes 0-9/100", "bytes 0-99/100", "bytes */100", "nonsense", ""])
def test_a_200_with_content_range_is_refused(content_range: str) -> None:
    """I3: Content-Range describes a part, and a 200 the whole object. A response that says both is unusable."""
    headers = sent(content_range, 10)
    for part in (FromTo(0, 10), FromTo(0), Suffix(10)):
        with pytest.raises(InvalidOriginResponse):
            span_sent(200, headers, part)
    with pytest.raises(InvalidOriginResponse):
        size_sent(200, headers)


@each_row("status", [201, 202, 204, 206])
def test_only_a_200_describes_an_object_to_head(status: int) -> None:
    """I13: another 2xx to HEAD is not the object."""
    assert size_sent(200, sent(None, 10)) == 10
    assert size_sent(200, {}) is None
    with pytest.raises(InvalidOriginResponse):
        size_sent(status, sent(None, 10))


@each_row(("status", "is_done"), [(200, True), (201, True), (204, True), (202, False), (206, False)])
def test_what_a_write_may_respond(status: int, is_done: bool) -> None:
    """I9: a 2xx that means that something is not done yet is no success of a write."""
    if is_done:
        check_done(status, "PutObject")
    else:
        with pytest.raises(InvalidOriginResponse):
            check_done(status, "PutObject")


@each_row(
    ("headers", "expected"),
    [
        ({"transfer-encoding": "chunked"}, True),
        ({"transfer-encoding": "gzip, Chunked"}, True),
        ({"transfer-encoding": "chunked", "content-length": "5"}, False),
        ({"transfer-encoding": "chunked, gzip"}, False),
        ({}, False),  # the end of the connection could be an interruption
    ],
)
def test_a_chunked_body(headers: dict[str, str], expected: bool) -> None:
    """I3: only a body whose framing shows its end may have a length that Content-Length does not name."""
    assert is_chunked(headers) == expected
    headers |= {"content-range": "bytes 0-4/9"}
    if expected or "content-length" in headers:
        assert span_sent(206, headers, FromTo(0, 5)) == (Span(0, 5), 9)
    else:
        with pytest.raises(InvalidOriginResponse):
            span_sent(206, headers, FromTo(0, 5))
