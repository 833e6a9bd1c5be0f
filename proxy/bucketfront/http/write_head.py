"""What a client says of the object that it writes: its headers by allow-list (I25), conditions and checksums.

Rule 1: everything here is decided by the head alone, so that a refusal comes before the body.
Rule 2: nothing that a client relies on is passed over in silence: a condition or a checksum that can be neither held
nor handed to S3 refuses the write, and so does any field of S3's (`x-amz-`) that is not known to change nothing.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bucketfront.errors import PreconditionFailed, ProxyError
from bucketfront.http import checksums, dates, etags, media_types
from bucketfront.http.checksums import MD5, Digest
from bucketfront.http.grammar import is_field_value, is_token
from bucketfront.http.metadata import USER_METADATA_PREFIX

OBJECT_FIELDS = (
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "cache-control",
    "expires",
)
MAX_TAGS = 10  # S3 API, PutObjectTagging

# S3 API, PutObject, `StorageClass`: those whose objects can be read at once. One that was archived would have to be
# restored before anybody could get it here.
STORAGE_CLASSES = frozenset(
    {"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR",
     "EXPRESS_ONEZONE"}
)  # fmt: skip

# RFC 9110 section 5.3: of these, several fields are one list. Any other that counts here may come once.
_LISTS = frozenset(
    {"cache-control", "content-encoding", "content-language", "digest", "content-digest", "repr-digest", "if-match"}
)
_CHECKSUM_PREFIX = "x-amz-checksum-"
_NO_CHECKSUMS = frozenset({"x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"})
# RFC 3230 section 4.1.1 and RFC 5843; RFC 9530 section 5. Any other algorithm may be passed over.
_DIGEST_ALGORITHMS = {"md5": MD5, "sha": "sha1", "sha-256": "sha256", "sha-512": "sha512"}
# Fields of S3's that say who asks, with which program, or how the message came: nothing of the object. CloudFront adds
# its `x-amz-cf-id` to whatever it passes on.
_OF_THE_REQUEST = frozenset(
    {"x-amz-algorithm", "x-amz-cf-id", "x-amz-content-sha256", "x-amz-credential", "x-amz-date", "x-amz-expires",
     "x-amz-request-payer", "x-amz-s3session-token", "x-amz-sdk-checksum-algorithm", "x-amz-security-token",
     "x-amz-signature", "x-amz-signedheaders", "x-amz-user-agent"}
)  # fmt: skip
_OF_THE_OBJECT = frozenset({"x-amz-storage-class", "x-amz-tagging"})
# Wishes that S3 fulfils without being told of them.
_DEFAULTS = {"x-amz-acl": "private", "x-amz-server-side-encryption": "AES256"}
_SIGNED, _UNSIGNED = "x-amz-content-sha256", "UNSIGNED-PAYLOAD"  # S3 API, "Authenticating requests"
_YEAR_10000 = 253402300800  # which a leap second at the end of 9999 would reach
_EXPIRED = ("0", "-1")  # RFC 9111 section 5.3: no dates, and widely sent to say that something is stale already
_UNCHECKED = ("if-modified-since", "if-unmodified-since", "if-range")

_TAG = re.compile(r"[^=&]{1,}=[^=&]*")
_INSTANCE_DIGEST = re.compile(r"([A-Za-z0-9-]+)=([^\s,]+)")
_HEX_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_MEMBER = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):")


class BadWriteHead(ProxyError):
    """A header of a write that cannot be read, or that no object can have."""


class NoSuchWrite(ProxyError):
    """A write on terms that S3 does not offer. S3 itself answers 501 to such."""


@dataclass(frozen=True, slots=True)
class WriteHead:
    """What S3 is to be told of an object.

    `headers` are OBJECT_FIELDS, lower-case name and value, `expires` an HTTP date. `metadata` is the user's, names in
    lower case without `x-amz-meta-`. `tagging` is form-encoded, `storage_class` one of STORAGE_CLASSES.
    `only_if_absent` is `If-None-Match: *`; `if_match` one strong entity tag in wire form. `checksums` are of the body
    as sent, at most one of each algorithm.
    """

    headers: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    tagging: str | None = None
    storage_class: str | None = None
    only_if_absent: bool = False
    if_match: str | None = None
    checksums: tuple[Digest, ...] = ()

    def write_once(self) -> "WriteHead":
        """The same, for a place where nothing is overwritten. Raises PreconditionFailed: to replace a version there
        is the one condition that never holds.
        """
        if self.if_match is not None:
            raise PreconditionFailed("nothing is overwritten here")
        return replace(self, only_if_absent=True)

    def with_guessed_type(self, name: str) -> "WriteHead":
        """The same, with a Content-Type by the extension of `name` where none was given and the extension says one."""
        given = dict(self.headers)
        kind = media_types.of(name)
        if "content-encoding" in given and kind in media_types.COMPRESSED:
            # RFC 9110 section 8.3: the type is that of the decoded bytes. `a.css.gz` is text then.
            kind = media_types.of(name.rpartition(".")[0])
        if kind is None or "content-type" in given:
            return self
        return replace(self, headers=(("content-type", kind), *self.headers))


def parse(fields: Iterable[tuple[str, str]]) -> WriteHead:
    """The request's fields, names in any case, in the order they came.

    Raises BadWriteHead, NoSuchWrite, PreconditionFailed (a condition that nothing can meet).
    """
    given = _joined(fields)
    if "content-range" in given:
        # RFC 9110 section 14.5: a partial PUT that is taken for a whole one destroys the object.
        raise BadWriteHead("a write has the whole object, not a Content-Range of it")
    _refuse_aws_chunked(given)
    _refuse_unknown(given)
    return WriteHead(
        headers=tuple((name, _header(name, given[name])) for name in OBJECT_FIELDS if given.get(name)),
        metadata=tuple(_metadata(given)),
        tagging=_tagging(given.get("x-amz-tagging")),
        storage_class=_storage_class(given.get("x-amz-storage-class")),
        only_if_absent=_only_if_absent(given),
        if_match=_if_match(given.get("if-match")),
        checksums=_checksums(given),
    )


def _joined(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in ((name.lower(), value.strip(" \t")) for name, value in fields):
        if name not in given:
            given[name] = value
        elif name in _LISTS or name.startswith(USER_METADATA_PREFIX):
            given[name] += f", {value}"
        elif name in OBJECT_FIELDS or name.startswith(("x-amz-", "content-", "if-")):
            raise BadWriteHead(f"more than one {name}")
    return given


def _refuse_aws_chunked(given: dict[str, str]) -> None:
    """S3 clients' own framing inside the body (S3 API, "Signature calculations: chunked upload"): nobody undoes it."""
    is_streamed = given.get(_SIGNED, "").lower().startswith("streaming-")
    if is_streamed or "aws-chunked" in given.get("content-encoding", "").lower():
        raise NoSuchWrite("aws-chunked bodies are not taken; send the plain bytes")


def _refuse_unknown(given: dict[str, str]) -> None:
    """S3 has fields that make a write a copy, an append, an encryption with the client's key, a lock, a grant."""
    for name, value in given.items():
        if not name.startswith("x-amz-") or name.startswith((USER_METADATA_PREFIX, _CHECKSUM_PREFIX)):
            continue
        if name not in _OF_THE_REQUEST | _OF_THE_OBJECT and _DEFAULTS.get(name) != value:
            raise NoSuchWrite(f"{name:.64} is not implemented here, or not with this value")


def _value(name: str, value: str) -> str:
    # S3 signs and stores ASCII; what it makes of other octets, no two servers agree on.
    if not is_field_value(value):
        raise BadWriteHead(f"{name} must be printable ASCII; a file name goes into filename*=UTF-8''")
    return value


def _header(name: str, value: str) -> str:
    return _expires(value) if name == "expires" else _value(name, value)


def _expires(value: str) -> str:
    """S3 keeps a time, not a text: what is no HTTP date would become some other one."""
    if value in _EXPIRED:
        return dates.format(0)
    at = dates.parse(value, 0.0)  # of a short year the century comes later; whether it is a date does not hang on it
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
        # RFC 9110 section 13.1.1: the comparison is the strong one, which no weak tag passes.
        raise PreconditionFailed("a weak entity tag matches no version")
    return _value("If-Match", str(strong))


def _checksums(given: dict[str, str]) -> tuple[Digest, ...]:
    found: dict[str, bytes] = {}
    for name, algorithm, text in _claims(given):
        value = _base64(text)
        if value is None or len(value) != checksums.size_of(algorithm):
            raise BadWriteHead(f"{name} is no {algorithm} in base64")
        if found.setdefault(algorithm, value) != value:
            raise BadWriteHead(f"{name} contradicts another {algorithm} of the same body")
    return tuple(Digest(algorithm, value) for algorithm, value in found.items())


def _claims(given: dict[str, str]) -> Iterable[tuple[str, str, str]]:
    """Field, algorithm, base64."""
    for name, text in given.items():
        if name.startswith(_CHECKSUM_PREFIX) and name not in _NO_CHECKSUMS:
            algorithm = name[len(_CHECKSUM_PREFIX) :]
            if algorithm not in checksums.ALGORITHMS:
                raise NoSuchWrite("a checksum of this algorithm cannot be verified here")
            yield name, algorithm, text
    if "content-md5" in given:
        yield "Content-MD5", MD5, given["content-md5"]
    if (signed := given.get(_SIGNED, _UNSIGNED)) != _UNSIGNED:
        yield _SIGNED, "sha256", _from_hex(signed)
    yield from _digests(given)


def _digests(given: dict[str, str]) -> Iterable[tuple[str, str, str]]:
    # The body of a write is the whole representation, in its content coding: the two digests of RFC 9530 are one.
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
