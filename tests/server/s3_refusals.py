"""Requests that S3 refuses because of their signature, and what it responds: rows of a table, made from a good key.

S3 API, "Error Responses" and "Authenticating Requests (AWS Signature Version 4)".
"""

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from s3_signer import OF_NOTHING, SIGNED_CHUNKS, SIGNED_TRAILER, UNSIGNED, UNSIGNED_TRAILER, Chunks, Signer, target_of

KEY = "folder/a b+ä"
BODY = b"0123456789" * 1000
PIECES = (BODY[:8192], BODY[8192:])  # the smallest chunk of S3's clients is 8 KiB, except for the last one
MINUTE_S = 60.0
DENIED = (403, "AccessDenied")
MISMATCH = (403, "SignatureDoesNotMatch")
MALFORMED = (400, "AuthorizationHeaderMalformed")
MALFORMED_QUERY = (400, "AuthorizationQueryParametersError")
ACCEPTED = (200, "")


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    fields: Mapping[str, str]
    body: bytes | None = None

    def having(self, **fields: str | None) -> "Request":
        """Return the request with other fields. Names have `_` in place of `-`, and None removes a field."""
        changed = {name.replace("_", "-").lower(): value for name, value in fields.items()}
        kept = {name: value for name, value in self.fields.items() if name.lower() not in changed}
        return replace(self, fields=kept | {name: value for name, value in changed.items() if value is not None})

    def at(self, name: str) -> str:
        return next(value for found, value in self.fields.items() if found.lower() == name.lower())


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests go: an endpoint, one of its buckets, and a key that may do all there."""

    url: str
    bucket: str
    signer: Signer

    def get(self, query: str = "", key: str = KEY, signer: Signer | None = None, **fields: str) -> Request:
        target = target_of(self.bucket, key) + query
        signed = (signer or self.signer).fields("GET", f"{self.url}{target}", _named(fields))
        return Request("GET", target, signed)

    def presigned(self, method: str = "GET", expires: int = 600, signer: Signer | None = None) -> Request:
        url = f"{self.url}{target_of(self.bucket, KEY)}"
        target = (signer or self.signer).presigned(method, url, expires)
        return Request(method, target, {"Host": self.url.removeprefix("http://")})

    def put(self, body: bytes = BODY, payload: str | None = None, **fields: str) -> Request:
        target = target_of(self.bucket, "written")
        signed = self.signer.fields("PUT", f"{self.url}{target}", _named(fields), body, payload=payload)
        return Request("PUT", target, signed, body)

    def chunked(self, framed: "Callable[[Chunks], bytes]", payload: str = SIGNED_CHUNKS, **fields: str) -> Request:
        """Return a PUT in chunks, whose body `framed` makes."""
        given = {"content_encoding": "aws-chunked", "x_amz_decoded_content_length": str(len(BODY)), **fields}
        head = self.put(b"", payload, **given)
        return replace(head, body=framed(Chunks(self.signer, head.fields)))


def _named(fields: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in fields.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """A request and the status and code of its response. SeaweedFS has another one if not `as_seaweed`."""

    what: str
    made: Callable[[Place], Request]
    wanted: tuple[int, str]
    as_seaweed: bool = True


def later(place: Place, seconds: float) -> Signer:
    """Return the key of a client whose clock is ahead by so much."""
    now = place.signer.now() + seconds
    return replace(place.signer, now=lambda: now)


def with_authorization(old: str, new: str) -> Callable[[Place], Request]:
    """Return a GET in whose signature a text is another one."""

    def made(place: Place) -> Request:
        request = place.get()
        text = request.at("Authorization")
        assert old in text
        return request.having(authorization=text.replace(old, new))

    return made


def in_target(old: str, new: str) -> Callable[[Place], Request]:
    """Return a presigned GET in whose target a text is another one."""

    def made(place: Place) -> Request:
        request = place.presigned()
        assert old in request.target
        return replace(request, target=request.target.replace(old, new))

    return made


def _with_wrong_date(place: Place) -> Request:
    """Return a GET whose credential is of another day than its date."""
    request = place.get()
    day = request.at("X-Amz-Date")[:8]
    return request.having(authorization=request.at("Authorization").replace(f"/{day}/", "/20200101/"))


def _without_host(place: Place) -> Request:
    request = place.get()
    return request.having(authorization=request.at("Authorization").replace("host;", ""))


def _anonymous(place: Place) -> Request:
    return Request("GET", target_of(place.bucket, KEY), {"Host": place.url.removeprefix("http://")})


def _both(place: Place) -> Request:
    return replace(place.presigned(), fields=place.get().fields)


OF_READS = [
    Row("a good signature", Place.get, ACCEPTED),
    Row("a good presigned URL", Place.presigned, ACCEPTED),
    Row("a clock 14 minutes ahead", lambda at: at.get(signer=later(at, 14 * MINUTE_S)), ACCEPTED),
    Row("a clock 14 minutes behind", lambda at: at.get(signer=later(at, -14 * MINUTE_S)), ACCEPTED),
    Row("a clock 16 minutes ahead", lambda at: at.get(signer=later(at, 16 * MINUTE_S)), (403, "RequestTimeTooSkewed")),
    Row(
        "a clock 16 minutes behind", lambda at: at.get(signer=later(at, -16 * MINUTE_S)), (403, "RequestTimeTooSkewed")
    ),
    Row("a wrong secret", lambda at: at.get(signer=replace(at.signer, secret_key="wrong")), MISMATCH),
    Row(
        "an unknown key",
        lambda at: at.get(signer=replace(at.signer, access_key="unknown")),
        (403, "InvalidAccessKeyId"),
    ),
    Row("another path", lambda at: replace(at.get(), target=target_of(at.bucket, "other")), MISMATCH),
    Row("another query", lambda at: replace(at.get("?partNumber=1"), target=at.get("?partNumber=2").target), MISMATCH),
    Row("a query that was added", lambda at: replace(at.get(), target=f"{at.get().target}?a=b"), MISMATCH),
    Row("another method", lambda at: replace(at.get(), method="DELETE"), MISMATCH),
    Row("another signed field", lambda at: at.get(x_amz_meta_a="b").having(x_amz_meta_a="c"), MISMATCH),
    Row("a signed field that is missing", lambda at: at.get(x_amz_meta_a="b").having(x_amz_meta_a=None), MISMATCH),
    Row("a field of S3 that is not signed", lambda at: at.get().having(x_amz_meta_a="b"), DENIED, as_seaweed=False),
    Row("a host that is not signed", _without_host, DENIED, as_seaweed=False),
    Row("no signature", lambda at: at.get().having(authorization=None), DENIED),
    Row("nothing that says who asks", _anonymous, DENIED),
    Row("no date", lambda at: at.get().having(x_amz_date=None), DENIED, as_seaweed=False),
    Row("a date that is none", lambda at: at.get().having(x_amz_date="yesterday"), DENIED, as_seaweed=False),
    Row("a credential of another day", _with_wrong_date, MALFORMED, as_seaweed=False),
    Row("a credential of another service", with_authorization("/s3/", "/ec2/"), MALFORMED, as_seaweed=False),
    Row(
        "a credential with another end",
        with_authorization("/aws4_request", "/aws5_request"),
        MALFORMED,
        as_seaweed=False,
    ),
    Row(
        "a credential without a day",
        with_authorization("/s3/", "/"),
        MALFORMED,
        as_seaweed=False,
    ),
    Row("no credential", with_authorization("Credential=", "Credentials="), MALFORMED, as_seaweed=False),
    Row("no names of signed fields", with_authorization("SignedHeaders=", "Headers="), MALFORMED, as_seaweed=False),
    Row("no signature in the field", with_authorization("Signature=", "Seal="), MALFORMED, as_seaweed=False),
    Row(
        "a field that is nonsense",
        lambda at: at.get().having(authorization="AWS4-HMAC-SHA256 nonsense"),
        MALFORMED,
        as_seaweed=False,
    ),
    Row(
        "a signature of version 2",
        lambda at: at.get().having(authorization="AWS app:c2lnbmF0dXJl"),
        (400, "InvalidRequest"),
        as_seaweed=False,
    ),
    Row(
        "another kind of credentials",
        lambda at: at.get().having(authorization="Bearer x"),
        (400, "InvalidArgument"),
        as_seaweed=False,
    ),
    Row("two signatures", _both, (400, "InvalidArgument"), as_seaweed=False),
    Row(
        "no hash of the body",
        lambda at: at.get().having(x_amz_content_sha256=None),
        (400, "InvalidRequest"),
        as_seaweed=False,
    ),
    Row(
        "a hash of the body that is none",
        lambda at: at.get().having(x_amz_content_sha256="nonsense"),
        (400, "InvalidArgument"),
        as_seaweed=False,
    ),
    Row("a presigned URL that has expired", lambda at: at.presigned(signer=later(at, -11 * MINUTE_S)), DENIED),
    Row("one of the future", lambda at: at.presigned(signer=later(at, 20 * MINUTE_S)), DENIED, as_seaweed=False),
    Row("one for eight days", lambda at: at.presigned(expires=8 * 86400), MALFORMED_QUERY),
    Row("one for a negative time", in_target("Expires=600", "Expires=-1"), MALFORMED_QUERY),
    Row("one for a time that is none", in_target("Expires=600", "Expires=soon"), MALFORMED_QUERY, as_seaweed=False),
    Row("one for a longer time than was signed", in_target("Expires=600", "Expires=601"), MISMATCH),
    Row("one without a time", in_target("X-Amz-Expires", "X-Expires"), MALFORMED_QUERY),
    Row("one without a signature", in_target("X-Amz-Signature", "X-Signature"), MALFORMED_QUERY, as_seaweed=False),
    Row("one without a date", in_target("X-Amz-Date", "X-Date"), MALFORMED_QUERY, as_seaweed=False),
    Row("one without a credential", in_target("X-Amz-Credential", "X-Credential"), MALFORMED_QUERY, as_seaweed=False),
    Row("one of another algorithm", in_target("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), MALFORMED_QUERY, as_seaweed=False),
    Row(
        "one of a credential that is none",
        in_target(quote("/s3/", ""), quote("/s4/", "")),
        MALFORMED_QUERY,
        as_seaweed=False,
    ),
    Row("one of an unknown key", in_target("Credential=", "Credential=x"), (403, "InvalidAccessKeyId")),
    Row("one of another object", in_target("folder", "other"), MISMATCH),
    Row("one for another method", lambda at: replace(at.presigned("PUT"), method="GET"), MISMATCH),
    Row("one with a query that was added", lambda at: _longer(at.presigned(), "&versionId=1"), MISMATCH),
    Row(
        "one with a field of S3 that is not signed",
        lambda at: at.presigned().having(x_amz_meta_a="b"),
        DENIED,
        as_seaweed=False,
    ),
    Row(
        "a presigned URL of version 2",
        lambda at: _longer(_anonymous(at), "?AWSAccessKeyId=app&Expires=9999999999&Signature=x"),
        (400, "InvalidRequest"),
        as_seaweed=False,
    ),
]


def _longer(request: Request, more: str) -> Request:
    return replace(request, target=request.target + more)


# --- bodies --------------------------------------------------------------------------------------------------


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4)).decode()


def whole(chunks: Chunks) -> bytes:
    """Return all chunks of the body, rightly signed."""
    return b"".join(chunks.chunk(piece) for piece in (*PIECES, b"")) + b"\r\n"


def _altered(number: int) -> Callable[[Chunks], bytes]:
    """Return the body with another byte in the chunk of that number."""

    def framed(chunks: Chunks) -> bytes:
        made = [chunks.chunk(piece) for piece in (*PIECES, b"")]
        head, end, data = made[number].partition(b"\r\n")
        made[number] = head + end + b"x" + data[1:]
        return b"".join(made) + b"\r\n"

    return framed


def _with_wrong_signature(number: int) -> Callable[[Chunks], bytes]:
    """Return the body with another signature of the chunk of that number. That of the last one has number 2."""

    def framed(chunks: Chunks) -> bytes:
        made = [chunks.chunk(piece) for piece in (*PIECES, b"")]
        head, equals, rest = made[number].partition(b"chunk-signature=")
        made[number] = head + equals + (b"0" * 64) + rest[64:]
        return b"".join(made) + b"\r\n"

    return framed


def _in_other_order(chunks: Chunks) -> bytes:
    first, second, last = [chunks.chunk(piece) for piece in (*PIECES, b"")]
    return second + first + last + b"\r\n"


def _without_signatures(chunks: Chunks) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in PIECES) + b"0\r\n\r\n"


def _without_end(chunks: Chunks) -> bytes:
    return b"".join(chunks.chunk(piece) for piece in PIECES)


def _with_trailer(data: bytes, alter: Callable[[bytes], bytes] = bytes) -> Callable[[Chunks], bytes]:
    """Return the body with a signed trailer, whose checksum is that of `data`."""

    def framed(chunks: Chunks) -> bytes:
        made = b"".join(chunks.chunk(piece) for piece in (*PIECES, b""))
        return made + alter(chunks.trailer("x-amz-checksum-crc32", _crc32(data)))

    return framed


def _unsigned(trailer: bytes) -> Callable[[Chunks], bytes]:
    return lambda _: b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in PIECES) + b"0\r\n" + trailer + b"\r\n"


TRAILER = {"x_amz_trailer": "x-amz-checksum-crc32"}


def _crc_line(data: bytes) -> bytes:
    return f"x-amz-checksum-crc32:{_crc32(data)}\r\n".encode()


OF_WRITES = [
    Row("a signed body", Place.put, ACCEPTED),
    Row("a body that is not signed", lambda at: at.put(payload=UNSIGNED), ACCEPTED),
    Row("signed chunks", lambda at: at.chunked(whole), ACCEPTED),
    Row("signed chunks and trailer", lambda at: at.chunked(_with_trailer(BODY), SIGNED_TRAILER, **TRAILER), ACCEPTED),
    Row("a trailer", lambda at: at.chunked(_unsigned(_crc_line(BODY)), UNSIGNED_TRAILER, **TRAILER), ACCEPTED),
    Row(
        "another body",
        lambda at: replace(at.put(), body=BODY[::-1]),
        (400, "XAmzContentSHA256Mismatch"),
        as_seaweed=False,
    ),
    Row(
        "the hash of nothing",
        lambda at: at.put(payload=OF_NOTHING),
        (400, "XAmzContentSHA256Mismatch"),
        as_seaweed=False,
    ),
    Row("another Content-MD5", lambda at: at.put(content_md5="1B2M2Y8AsgTpgAmY7PhCfg=="), (400, "BadDigest")),
    Row(
        "a Content-MD5 that is none",
        lambda at: at.put(content_md5="nonsense"),
        (400, "InvalidDigest"),
        as_seaweed=False,
    ),
    Row("another checksum", lambda at: at.put(x_amz_checksum_crc32=_crc32(b"other")), (400, "BadDigest")),
    Row("another byte in the first chunk", lambda at: at.chunked(_altered(0)), MISMATCH, as_seaweed=False),
    Row("another byte in the second chunk", lambda at: at.chunked(_altered(1)), MISMATCH, as_seaweed=False),
    Row(
        "another signature of the first chunk",
        lambda at: at.chunked(_with_wrong_signature(0)),
        MISMATCH,
        as_seaweed=False,
    ),
    Row(
        "another signature of the second chunk",
        lambda at: at.chunked(_with_wrong_signature(1)),
        MISMATCH,
        as_seaweed=False,
    ),
    Row("another signature of the end", lambda at: at.chunked(_with_wrong_signature(2)), MISMATCH, as_seaweed=False),
    Row("chunks in another order", lambda at: at.chunked(_in_other_order), MISMATCH, as_seaweed=False),
    Row("chunks without signatures", lambda at: at.chunked(_without_signatures), (400, "IncompleteBody")),
    Row("chunks without an end", lambda at: at.chunked(_without_end), (400, "IncompleteBody")),
    Row(
        "a longer decoded length",
        lambda at: at.chunked(whole, x_amz_decoded_content_length=str(len(BODY) + 1)),
        (400, "IncompleteBody"),
        as_seaweed=False,
    ),
    Row(
        "a shorter decoded length",
        lambda at: at.chunked(whole, x_amz_decoded_content_length=str(len(BODY) - 1)),
        (400, "IncompleteBody"),
        as_seaweed=False,
    ),
    Row("a body that is not framed", lambda at: at.chunked(lambda _: BODY), (400, "IncompleteBody"), as_seaweed=False),
    Row(
        "another checksum in a signed trailer",
        lambda at: at.chunked(_with_trailer(b"other"), SIGNED_TRAILER, **TRAILER),
        (400, "BadDigest"),
        as_seaweed=False,
    ),
    Row(
        "another signature of the trailer",
        lambda at: at.chunked(
            _with_trailer(BODY, lambda made: made.replace(b"signature:", b"signature:0")[:-5] + b"\r\n\r\n"),
            SIGNED_TRAILER,
            **TRAILER,
        ),
        MISMATCH,
        as_seaweed=False,
    ),
    Row(
        "another checksum in a trailer",
        lambda at: at.chunked(_unsigned(_crc_line(b"other")), UNSIGNED_TRAILER, **TRAILER),
        (400, "BadDigest"),
        as_seaweed=False,
    ),
    Row(
        "no trailer where one is declared",
        lambda at: at.chunked(_unsigned(b""), UNSIGNED_TRAILER, **TRAILER),
        (400, "MalformedTrailerError"),
        as_seaweed=False,
    ),
]
