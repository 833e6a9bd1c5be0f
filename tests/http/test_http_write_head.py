"""The head of a write: S3 API, PutObject; RFC 9110, RFC 3230, RFC 9530."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.errors import PreconditionFailed, ProxyError
from bucketfront.http import checksums, write_head
from bucketfront.http.checksums import Digest
from bucketfront.http.write_head import BadWriteHead, NoSuchWrite, WriteHead

BODY = b"hello world"
MD5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
SHA1 = base64.b64encode(hashlib.sha1(BODY).digest()).decode()
SHA256 = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
SHA512 = base64.b64encode(hashlib.sha512(BODY).digest()).decode()
ETAG = '"5eb63bbbe01eeed093cb22bb8f5acdc3"'


NO_DATES = [
    "never", "1", "-2", "nan", "1e400", "9" * 20, "1" * 5000, "2065-10-21T07:28:00Z", "Wed, 21 Oct 2065 07:28:00 +0900",
    "Wed, 31 Feb 2065 07:28:00 GMT", "Mon, 01 Jan 0000 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:60 GMT",
]  # fmt: skip


def parsed(*fields: tuple[str, str]) -> WriteHead:
    return write_head.parse(fields)


def digest(algorithm: str) -> Digest:
    state = checksums.hasher(algorithm)
    state.update(BODY)
    return Digest(algorithm, state.digest())


def test_headers_by_allow_list() -> None:
    """The object's own fields and the user's metadata are taken, names in any case; nothing else is (I25)."""
    head = parsed(
        ("Content-Type", "text/css; charset=utf-8"),
        ("CACHE-CONTROL", "max-age=5"),
        ("Cache-Control", "public"),
        ("Expires", "Wed, 21 Oct 2065 07:28:00 GMT"),
        ("Content-Language", ""),
        ("x-amz-meta-Colour", "blue"),
        ("x-amz-meta-colour", "red"),
        ("x-amz-tagging", "a=1&b=%20"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-acl", "private"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-date", "20261125T120000Z"),
        ("x-amz-security-token", "secret"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ("x-amz-sdk-checksum-algorithm", "CRC32"),
        ("x-amz-user-agent", "aws-sdk-js/3"),
        ("x-amz-api-version", "2006-03-01"),
        ("x-amz-request-payer", "requester"),
        ("amz-sdk-invocation-id", "1"),
        ("x-amzn-trace-id", "Root=1"),
        ("Authorization", "Bearer secret"),
        ("Cookie", "a=b"),
    )
    assert head == WriteHead(
        headers=(
            ("content-type", "text/css; charset=utf-8"),
            ("cache-control", "max-age=5, public"),
            ("expires", "Wed, 21 Oct 2065 07:28:00 GMT"),
        ),
        metadata=(("colour", "blue, red"),),
        tagging="a=1&b=%20",
        storage_class="STANDARD_IA",
    )


@each_row(
    ("fields", "expected"),
    [
        ([("Content-MD5", MD5)], ["md5"]),
        ([("Digest", f"MD5={MD5},sha-256={SHA256}")], ["md5", "sha256"]),
        ([("Digest", f"SHA={SHA1}"), ("Digest", f"SHA-512={SHA512}")], ["sha1", "sha512"]),
        ([("Digest", f"unixsum=30637, SHA={SHA1}")], ["sha1"]),
        ([("Content-Digest", f"sha-256=:{SHA256}:, sha-512=:{SHA512}:")], ["sha256", "sha512"]),
        ([("Content-Digest", "adler=:AAAA:")], []),
        ([("Repr-Digest", f"sha-512=:{SHA512}:"), ("repr-digest", f"sha-256=:{SHA256}:")], ["sha512", "sha256"]),
        ([("x-amz-content-sha256", hashlib.sha256(BODY).hexdigest())], ["sha256"]),
        ([("X-Amz-Content-SHA256", hashlib.sha256(BODY).hexdigest().upper())], ["sha256"]),
        ([("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], []),
        ([("Content-Digest", "")], []),
        ([("x-amz-checksum-sha256", SHA256), ("Content-Digest", f"sha-256=:{SHA256}:")], ["sha256"]),
        ([("x-amz-checksum-crc32", "DUoRhQ=="), ("x-amz-checksum-algorithm", "CRC32")], ["crc32"]),
        ([("x-amz-checksum-crc32c", "yZRlqg==")], ["crc32c"]),
        ([("x-amz-checksum-type", "FULL_OBJECT"), ("x-amz-checksum-sha1", SHA1)], ["sha1"]),
    ],
)
def test_checksums(fields: list[tuple[str, str]], expected: list[str]) -> None:
    """Each header encodes the same bytes in its own way. Algorithms that a recipient may ignore are ignored."""
    assert parsed(*fields).checksums == tuple(digest(algorithm) for algorithm in expected)


@each_row(
    "fields",
    [
        [("Content-MD5", "abc")],
        [("Content-MD5", MD5[:-4])],
        [("Content-MD5", hashlib.md5(BODY).hexdigest())],  # a common mistake: hex
        [("Content-MD5", MD5), ("Content-MD5", MD5)],
        [("Content-MD5", MD5), ("Digest", "md5=AAAAAAAAAAAAAAAAAAAAAA==")],  # they contradict each other
        [("x-amz-checksum-crc32", "AAAA")],
        [("x-amz-checksum-crc32", "DUoRhQ==-2")],  # a checksum of checksums, of a multipart upload
        [("x-amz-checksum-crc32", "")],
        [("Digest", "sha-256")],
        [("Digest", "sha-256=a b")],
        [("Content-Digest", f"sha-256={SHA256}")],  # no byte sequence
        [("Content-Digest", f"sha-256=:{SHA256}")],
        [("Content-Digest", "sha-256=:????:")],
        *([("Expires", value)] for value in NO_DATES),
        [("Repr-Digest", "sha-256=nonsense")],
        [("Repr-Digest", f"sha-256=:{SHA256}:"), ("Content-Digest", f"sha-256=:{SHA256[:-2]}A=:")],
        [("x-amz-content-sha256", SHA256)],
        [("x-amz-content-sha256", "")],
        [("x-amz-content-sha256", "0" * 64), ("x-amz-checksum-sha256", SHA256)],
        [("Content-Range", "bytes 0-1/2")],
        [("Content-Type", "text/plain"), ("Content-Type", "text/html")],
        [("Content-Disposition", 'attachment; filename="ü"')],
        [("Content-Type", "text/\udcff")],
        [("x-amz-meta-", "no name")],
        [("x-amz-meta-name", "Jürgen")],
        [("x-amz-tagging", "a")],
        [("x-amz-tagging", "=1")],
        [("x-amz-tagging", "&".join(f"t{number}=1" for number in range(11)))],
        [("x-amz-storage-class", "DEEP_ARCHIVE")],
        [("x-amz-storage-class", "standard")],
        [("If-Match", "abc")],
        [("If-None-Match", "*"), ("If-None-Match", "*")],
    ],
)
def test_malformed(fields: list[tuple[str, str]]) -> None:
    """What cannot be read or kept is refused, rather than stored in another form or left unchecked."""
    with pytest.raises(BadWriteHead) as raised:
        parsed(*fields)
    assert not any(value in str(raised.value) for _, value in fields if len(value) > 3)


@each_row(
    "fields",
    [
        [("If-None-Match", ETAG)],
        [("If-None-Match", "")],
        [("If-None-Match", "*"), ("If-Match", ETAG)],
        [("If-Match", "*")],
        [("If-Match", f'{ETAG}, "other"')],
        [("If-Match", ETAG), ("If-Match", '"other"')],
        [("If-Unmodified-Since", "Wed, 21 Oct 2065 07:28:00 GMT")],
        [("If-Modified-Since", "x")],
        [("x-amz-checksum-xxhash64", "AAAAAAAAAAA=")],
        [("Content-Encoding", "gzip"), ("Content-Encoding", "aws-chunked")],
        [("Content-Encoding", "AWS-Chunked,gzip")],
        [("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")],
        [("Upload-Complete", "?0")],
        [("Upload-Complete", "?0;a"), ("Upload-Draft-Interop-Version", "8")],
        [("Upload-Incomplete", "?1")],
    ],
)
def test_terms_that_s3_does_not_offer(fields: list[tuple[str, str]]) -> None:
    """S3 responds with 501. An ignored condition or checksum would be a lost update or a corrupt object."""
    with pytest.raises(NoSuchWrite):
        parsed(*fields)


@each_row(
    ("name", "value"),
    [
        ("x-amz-copy-source", "/bucket/other"),
        ("x-amz-copy-source-range", "bytes=0-1"),
        ("X-Amz-Server-Side-Encryption", "aws:kms"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-server-side-encryption-customer-key", "secret"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "key"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-write-offset-bytes", "8"),
        ("x-amz-acl", "public-read"),
        ("x-amz-grant-read", "id=1"),
        ("x-amz-expected-bucket-owner", "123"),
        ("x-amz-website-redirect-location", "/other"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
        ("x-amz-decoded-content-length", "3"),
        ("x-amz-if-match-size", "5"),
        ("x-amz-mfa", "serial 123456"),
        ("x-amz-what-is-made-up-next-year", "1"),
    ],
)
def test_what_would_change_the_write(name: str, value: str) -> None:
    """An S3 header that is neither implemented nor known to have no effect refuses the write by its name."""
    with pytest.raises(NoSuchWrite, match=name.lower()) as raised:
        parsed((name, value))
    assert f" {value} " not in str(raised.value)


def test_conditions() -> None:
    """`If-None-Match: *` and one strong `If-Match`; a weak one can match nothing (RFC 9110 section 13.1.1)."""
    assert parsed(("If-None-Match", " * ")).only_if_absent
    assert parsed(("If-Match", ETAG)).if_match == ETAG
    with pytest.raises(PreconditionFailed):
        parsed(("If-Match", f"W/{ETAG}"))


def test_write_once() -> None:
    """A write-once place makes every write conditional, and one that wants to replace a version fails."""
    assert parsed().write_once().only_if_absent
    assert parsed(("If-None-Match", "*")).write_once().only_if_absent
    with pytest.raises(PreconditionFailed):
        parsed(("If-Match", ETAG)).write_once()


def test_a_type_is_guessed_only_where_none_was_given() -> None:
    """The extension of the key gives the type. A type that was sent stays, and an unknown extension adds none."""
    assert parsed().with_guessed_type("a/b.MP4").headers == (("content-type", "video/mp4"),)
    assert parsed(("Content-Type", "")).with_guessed_type("b.html").headers == (
        ("content-type", "text/html; charset=utf-8"),
    )
    assert parsed(("Content-Type", "x/y")).with_guessed_type("b.html").headers == (("content-type", "x/y"),)
    assert parsed().with_guessed_type("b").headers == ()
    assert parsed().with_guessed_type("a.css.gz").headers == (("content-type", "application/gzip"),)
    encoded = parsed(("Content-Encoding", "gzip"))
    assert dict(encoded.with_guessed_type("a.css.gz").headers)["content-type"] == "text/css; charset=utf-8"
    assert encoded.with_guessed_type("a.gz") == encoded


FIELDS = st.sampled_from(
    ["content-type", "expires", "x-amz-meta-a", "x-amz-tagging", "x-amz-storage-class", "digest", "content-digest",
     "content-md5", "repr-digest", "x-amz-content-sha256",
     "x-amz-checksum-crc32", "x-amz-checksum-", "if-match", "if-none-match", "x-other"]
)  # fmt: skip


@given(st.lists(st.tuples(FIELDS, st.text(max_size=40) | st.sampled_from(["*", ETAG, MD5, "a=b", f"md5={MD5}"]))))
def test_any_fields(fields: list[tuple[str, str]]) -> None:
    """Whatever is sent, there is a head or one of three errors, and no value holds what could break a header (I28)."""
    try:
        head = write_head.parse(fields)
    except ProxyError as error:
        assert isinstance(error, (BadWriteHead, NoSuchWrite, PreconditionFailed))  # noqa: PT017 - any of them will do
        return
    for _, value in (*head.headers, *head.metadata):
        assert value.isascii()
        assert not {"\r", "\n", "\0"} & set(value)
    assert all(len(one.value) == checksums.size_of(one.algorithm) for one in head.checksums)
