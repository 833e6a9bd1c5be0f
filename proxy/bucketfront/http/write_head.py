"""Parse the head of a write: headers by allow-list (docs/invariants.md#complete-cache-key), conditions, checksums.

- The head alone decides everything here, so that a refusal is sent before the body.
- A header that a client relies on is never ignored. A condition or checksum that can neither be verified here nor
  passed to S3 refuses the write. So does each S3 header (`x-amz-`) that is not known to have no effect here.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bucketfront.errors import PreconditionFailed, ProxyError
from bucketfront.http import aws_chunked, checksums, dates, etags, media_types
from bucketfront.http.aws_chunked import AwsChunked
from bucketfront.http.checksums import MD5, Digest
from bucketfront.http.grammar import Headers, is_field_value, is_token
from bucketfront.http.response_fields import USER_METADATA_PREFIX

OBJECT_FIELDS = (
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "cache-control",
    "expires",
)
MAX_TAGS = 10  # S3 API, PutObjectTagging

# S3 API, PutObject, `StorageClass`: the classes whose objects can be read at once. An archived object must be restored
# before a GET.
STORAGE_CLASSES = frozenset(
    {"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR",
     "EXPRESS_ONEZONE"}
)  # fmt: skip

# Several fields of these names form one list (RFC 9110 section 5.3). Other relevant names may occur once.
_LISTS = frozenset(
    {"cache-control", "content-encoding", "content-language", "digest", "content-digest", "repr-digest", "if-match"}
)
_CHECKSUM_PREFIX = aws_chunked.CHECKSUM_PREFIX
_MD5_FIELD = "Content-MD5"
_NO_CHECKSUMS = frozenset({"x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"})
# RFC 3230 section 4.1.1, RFC 5843 and RFC 9530 section 5. They allow a recipient to ignore other algorithms.
_DIGEST_ALGORITHMS = {"md5": MD5, "sha": "sha1", "sha-256": "sha256", "sha-512": "sha512"}
# S3 headers about the sender, its program or the message, and not about the object. CloudFront adds `x-amz-cf-id` to
# each request that it forwards.
_OF_THE_REQUEST = frozenset(
    {"x-amz-algorithm", "x-amz-api-version", "x-amz-cf-id", "x-amz-content-sha256", "x-amz-credential", "x-amz-date",
     "x-amz-expires", "x-amz-request-payer", "x-amz-s3session-token", "x-amz-sdk-checksum-algorithm",
     "x-amz-security-token", "x-amz-signature", "x-amz-signedheaders", "x-amz-user-agent"}
)  # fmt: skip
_OF_THE_OBJECT = frozenset({"x-amz-storage-class", "x-amz-tagging"})
# Values that S3 applies by default.
_DEFAULTS = {"x-amz-acl": "private", "x-amz-server-side-encryption": "AES256"}
_SIGNED, _UNSIGNED = "x-amz-content-sha256", "UNSIGNED-PAYLOAD"  # S3 API, "Authenticating requests"
_STREAMED = frozenset(
    {"STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
     "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
     "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"}
)  # fmt: skip
_YEAR_10000 = 253402300800  # in seconds since the epoch; a leap second at the end of 9999 reaches it
_EXPIRED = ("0", "-1")  # RFC 9111 section 5.3: not dates, but common values for an object that is stale at once
# "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload), with the value that a whole object has. Drafts
# before the fourth have the second field.
_WHOLE = {"upload-complete": "?1", "upload-incomplete": "?0"}
_BOOLEANS = ("?0", "?1")  # RFC 9651 section 3.3.6
_PART = "the body is only a part of the object, which is not taken this way; send the whole object, or use tus 1.0.0"
# Clients of tus send them in its successor's drafts as well, which do not have them.
_OF_TUS = ("upload-metadata", "upload-defer-length")
_OTHER_PROTOCOL = "resumable uploads are tus 1.0.0 here, with Tus-Resumable, and no later draft: choose tus-v1"
_UNCHECKED = ("if-modified-since", "if-unmodified-since", "if-range")

_TAG = re.compile(r"[^=&]{1,}=[^=&]*")
_INSTANCE_DIGEST = re.compile(r"([A-Za-z0-9-]+)=([^\s,]+)")
_HEX_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_MEMBER = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):")


class BadWriteHead(ProxyError):
    """A header of a write that is malformed, or that no object can have."""


class BadMd5(BadWriteHead):
    """A Content-MD5 that is no MD5."""


class NoSuchWrite(ProxyError):
    """A write with a feature that is not implemented here. S3 responds with 501 in such cases."""


@dataclass(frozen=True, slots=True)
class WriteHead:
    """The properties and conditions of a write.

    - `headers` are OBJECT_FIELDS with lower-case names. The value of `expires` is an HTTP date.
    - `metadata` is the user's, with lower-case names without `x-amz-meta-`.
    - `tagging` is form-encoded, and `storage_class` one of STORAGE_CLASSES.
    - `only_if_absent` is `If-None-Match: *`, and `if_match` one strong entity tag in wire form.
    - `checksums` are those of the body as sent, at most one of each algorithm.
    """

    headers: Headers = ()
    metadata: tuple[tuple[str, str], ...] = ()
    tagging: str | None = None
    storage_class: str | None = None
    only_if_absent: bool = False
    if_match: str | None = None
    checksums: tuple[Digest, ...] = ()

    def write_once(self) -> "WriteHead":
        """Return the head for a mount where uploads only create objects.

        Raises PreconditionFailed if the head requires an existing version, because that condition never holds there.
        """
        if self.if_match is not None:
            raise PreconditionFailed("nothing is overwritten here")
        return replace(self, only_if_absent=True)

    def with_guessed_type(self, name: str) -> "WriteHead":
        """Return the head with a Content-Type by the extension of `name`, if it has none and the extension is known."""
        given = dict(self.headers)
        kind = media_types.of(name)
        if "content-encoding" in given and kind in media_types.COMPRESSED:
            # RFC 9110 section 8.3: the type is that of the decoded bytes, so `a.css.gz` is text.
            kind = media_types.of(name.rpartition(".")[0])
        if kind is None or "content-type" in given:
            return self
        return replace(self, headers=(("content-type", kind), *self.headers))


def parse(fields: Iterable[tuple[str, str]]) -> WriteHead:
    """Return the head of a request with these fields, given in their order with names in any case.

    Raises BadWriteHead, NoSuchWrite, or PreconditionFailed for a condition that cannot hold. An aws-chunked body raises
    NoSuchWrite, so that its framing is never stored.
    """
    head, framing = parse_framed(fields)
    if framing is not None:
        raise NoSuchWrite("aws-chunked bodies are not taken here; send the plain bytes")
    return head


def parse_framed(fields: Iterable[tuple[str, str]]) -> tuple[WriteHead, AwsChunked | None]:
    """Return the head, and the framing within the body, None if the body is the object. Raises the same, BadChunks."""
    given = _joined(fields)
    framing = _without_framing(given)
    if "content-range" in given:
        # RFC 9110 section 14.5: a partial PUT that is stored as a whole object destroys the object.
        raise BadWriteHead("a write has the whole object, not a Content-Range of it")
    _refuse_incomplete(given)
    _refuse_unknown(given)
    head = WriteHead(
        headers=tuple((name, _header(name, given[name])) for name in OBJECT_FIELDS if given.get(name)),
        metadata=tuple(_metadata(given)),
        tagging=_tagging(given.get("x-amz-tagging")),
        storage_class=_storage_class(given.get("x-amz-storage-class")),
        only_if_absent=_only_if_absent(given),
        if_match=_if_match(given.get("if-match")),
        checksums=_checksums(given),
    )
    return head, framing


def parse_body(fields: Iterable[tuple[str, str]]) -> tuple[tuple[Digest, ...], AwsChunked | None]:
    """Return the checksums of a body and its framing, for a request whose other fields the origin judges.

    Raises BadWriteHead, NoSuchWrite, BadChunks.
    """
    given = _joined(fields)
    framing = _without_framing(given)
    return _checksums(given), framing


def without_aws_chunked(codings: str) -> str:
    """Return a value of Content-Encoding without the framing of S3's clients."""
    kept = (coding.strip(" \t") for coding in codings.split(","))
    return ", ".join(coding for coding in kept if coding and coding.lower() != aws_chunked.CODING)


def _joined(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in ((name.lower(), value.strip(" \t")) for name, value in fields):
        if name not in given:
            given[name] = value
        elif name in _LISTS or name.startswith(USER_METADATA_PREFIX):
            given[name] += f", {value}"
        elif name in OBJECT_FIELDS or name in _WHOLE or name.startswith(("x-amz-", "content-", "if-")):
            raise BadWriteHead(f"more than one {name}")
    return given


def refuse_part(fields: Mapping[str, str], length: int | None) -> None:
    """Refuse a write outside of a resumable upload whose head declares that the object has more bytes than the body.

    `fields` find a name in any case. `length` is the body's length in bytes, None if it is not known. A head with
    fields of tus is refused too: without Tus-Resumable, its key and its type would be ignored. Raises NoSuchWrite.
    """
    if any(name in fields for name in _OF_TUS):
        raise NoSuchWrite(_OTHER_PROTOCOL)
    if fields.get("upload-offset", "0") != "0" or fields.get("upload-length", str(length)) != str(length):
        raise NoSuchWrite(_PART)


def is_declared_whole(fields: Mapping[str, str]) -> bool:
    """Return whether a head says that its body is the whole object, as "Resumable Uploads for HTTP" has it."""
    return any(name in fields for name in _WHOLE)


def _refuse_incomplete(given: dict[str, str]) -> None:
    """Refuse a body that is declared as a part of the object, because it would be stored as the whole."""
    for name, whole in _WHOLE.items():
        value = given.get(name, whole).partition(";")[0].strip(" ")  # a parameter has no meaning
        if value not in _BOOLEANS:
            raise BadWriteHead(f"{name} must be ?0 or ?1")
        if value != whole:
            raise NoSuchWrite(_PART)


def _without_framing(given: dict[str, str]) -> AwsChunked | None:
    """Remove the fields of S3's framing within the body, and return what they declare (S3 API, "chunked upload")."""
    is_streamed = given.get(_SIGNED, "").lower().startswith("streaming-")
    codings = given.get("content-encoding", "").lower().split(",")
    if not is_streamed and aws_chunked.CODING not in (coding.strip(" \t") for coding in codings):
        return None
    if is_streamed and given.pop(_SIGNED) not in _STREAMED:
        raise NoSuchWrite(f"this value of {_SIGNED} is not implemented here")
    given["content-encoding"] = without_aws_chunked(given.get("content-encoding", ""))
    length = aws_chunked.declared_length(given.pop("x-amz-decoded-content-length", None))
    names = [name.strip(" \t").lower() for name in given.pop("x-amz-trailer", "").split(",")]
    algorithms = tuple(name.removeprefix(_CHECKSUM_PREFIX) for name in names if name)
    if not checksums.ALGORITHMS.issuperset(algorithms):
        raise NoSuchWrite("x-amz-trailer names something else than checksums that can be verified here")
    return AwsChunked(length, algorithms)


def _refuse_unknown(given: dict[str, str]) -> None:
    """Refuse unknown S3 headers, because some make a write a copy, an append, a lock, a grant or an encryption."""
    for name, value in given.items():
        if not name.startswith("x-amz-") or name.startswith((USER_METADATA_PREFIX, _CHECKSUM_PREFIX)):
            continue
        if name not in _OF_THE_REQUEST | _OF_THE_OBJECT and _DEFAULTS.get(name) != value:
            raise NoSuchWrite(f"{name:.64} is not implemented here, or not with this value")


def _value(name: str, value: str) -> str:
    # S3 signs and stores ASCII. S3-compatible servers differ in how they treat other octets.
    if not is_field_value(value):
        raise BadWriteHead(f"{name} must be printable ASCII; a file name goes into filename*=UTF-8''")
    return value


def _header(name: str, value: str) -> str:
    return _expires(value) if name == "expires" else _value(name, value)


def _expires(value: str) -> str:
    """Return a value that is an HTTP date, because S3 stores a time and would turn any other text into a wrong one."""
    if value in _EXPIRED:
        return dates.format(0)
    at = dates.parse(value, 0.0)  # `now` affects only the century of a two-digit year, not whether the text is a date
    if at is not None and at < _YEAR_10000:
        return value
    raise BadWriteHead("Expires must be an HTTP date; 0 and -1 are taken for the year 1970")


def _metadata(given: dict[str, str]) -> Iterable[tuple[str, str]]:
    for field, value in given.items():
        if field.startswith(USER_METADATA_PREFIX):
            name = field[len(USER_METADATA_PREFIX) :]
            if not is_token(name) or name != name.lower() or not is_field_value(value):
                raise BadWriteHead("user metadata must have a name, and be printable ASCII")
            yield name, value


def _tagging(text: str | None) -> str | None:
    if not text:
        return None
    tags = _value("x-amz-tagging", text).split("&")
    if len(tags) > MAX_TAGS or not all(_TAG.fullmatch(tag) for tag in tags):
        raise BadWriteHead(f"x-amz-tagging must be up to {MAX_TAGS} tags, form-encoded: a=1&b=2")
    return text


def _storage_class(text: str | None) -> str | None:
    if text is not None and text not in STORAGE_CLASSES:
        raise BadWriteHead("x-amz-storage-class must be one whose objects can be read at once")
    return text


def _only_if_absent(given: dict[str, str]) -> bool:
    for name in _UNCHECKED:
        if name in given:
            raise NoSuchWrite(f"S3 cannot hold a write against {name}")
    text = given.get("if-none-match")
    if text is None:
        return False
    if text != "*":
        raise NoSuchWrite("S3 takes no If-None-Match of a write but *")
    if "if-match" in given:
        raise NoSuchWrite("S3 takes one of If-Match and If-None-Match")
    return True


def _if_match(text: str | None) -> str | None:
    if text is None:
        return None
    wanted = etags.parse_list(text)
    if wanted is None:
        raise BadWriteHead("If-Match must be an entity tag, in double quotes")
    if wanted is etags.ANY or len(wanted) > 1:
        raise NoSuchWrite("S3 takes one entity tag as If-Match of a write, neither * nor a list")
    strong = next((tag for tag in wanted if not tag.weak), None)
    if strong is None:
        # RFC 9110 section 13.1.1: the comparison is strong, so a weak tag never matches.
        raise PreconditionFailed("a weak entity tag matches no version")
    return _value("If-Match", str(strong))


def _checksums(given: dict[str, str]) -> tuple[Digest, ...]:
    found: dict[str, bytes] = {}
    for name, algorithm, text in _claims(given):
        value = _base64(text)
        if value is None or len(value) != checksums.size_of(algorithm):
            raise (BadMd5 if name == _MD5_FIELD else BadWriteHead)(f"{name} is no {algorithm} in base64")
        if found.setdefault(algorithm, value) != value:
            raise BadWriteHead(f"{name} contradicts another {algorithm} of the same body")
    return tuple(Digest(algorithm, value) for algorithm, value in found.items())


def _claims(given: dict[str, str]) -> Iterable[tuple[str, str, str]]:
    """Yield the field name, algorithm and base64 value of each checksum."""
    for name, text in given.items():
        if name.startswith(_CHECKSUM_PREFIX) and name not in _NO_CHECKSUMS:
            algorithm = name[len(_CHECKSUM_PREFIX) :]
            if algorithm not in checksums.ALGORITHMS:
                raise NoSuchWrite("a checksum of this algorithm cannot be verified here")
            yield name, algorithm, text
    if "content-md5" in given:
        yield _MD5_FIELD, MD5, given["content-md5"]
    if (signed := given.get(_SIGNED, _UNSIGNED)) != _UNSIGNED:
        yield _SIGNED, "sha256", _from_hex(signed)
    yield from _digests(given)


def _digests(given: dict[str, str]) -> Iterable[tuple[str, str, str]]:
    # The body of a write is the whole representation in its content coding, so both digests of RFC 9530 are equal.
    for name, member in (("digest", _INSTANCE_DIGEST), ("content-digest", _MEMBER), ("repr-digest", _MEMBER)):
        for part in given.get(name, "").split(","):
            if not part.strip(" \t"):
                continue
            match = member.fullmatch(part.strip(" \t"))
            if match is None:
                raise BadWriteHead(f"{name} is malformed")
            if (known := _DIGEST_ALGORITHMS.get(match[1].lower())) is not None:
                yield name, known, match[2]


def _from_hex(text: str) -> str:
    if _HEX_SHA256.fullmatch(text) is None:
        raise BadWriteHead(f"{_SIGNED} is neither a SHA-256 in hex nor {_UNSIGNED}")
    return base64.b64encode(bytes.fromhex(text)).decode()


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
