"""Verify Signature Version 4 of AWS, in the fields of a request or in its query, as S3 does.

S3 API, "Authenticating Requests (AWS Signature Version 4)". A signature covers the method, the path, the query, the
fields that it names and the hash of the body. The body itself is compared later, while it arrives: see `payload`.

Every function is total: it returns a value or raises S3Refused. Its cost is linear in the length of the head
(docs/invariants.md#cost-of-a-request). No message quotes a secret or a signature.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from bucketfront.http.s3_refusal import Refusal, S3Refused

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW_S = 900.0  # S3 API, RequestTimeTooSkewed
MAX_EXPIRES_S = 604_800  # S3 API, "Authenticating Requests: Using Query Parameters": seven days
MAX_PARAMETERS = 200  # in a query; S3 defines fewer than 40 for one operation

_CREDENTIAL = re.compile(r"([^/\s,]{1,128})/([0-9]{8})/([a-z0-9-]{1,64})/(s3|s3express)/aws4_request")
_HEADER = re.compile(r"AWS4-HMAC-SHA256[ \t]+(.*)")
_NAMES = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+(?:;[a-z0-9!#$%&'*+.^_`|~-]+)*")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_MOMENT = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_EXPIRES = re.compile(r"[0-9]{1,10}")
_OF_FRONTS = frozenset({"x-amz-cf-id"})  # CloudFront adds it to what it forwards, and S3 takes it
_OF_PATHS, _OF_QUERIES = "/-_.~", "-_.~"
_IN_QUERY = frozenset(
    {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"}
)

Fields = Mapping[str, str]
"""The fields of a request by their names in lower case. Those that occur more than once are joined by commas."""


class Payload(StrEnum):
    """What `x-amz-content-sha256` says of the body in place of its hash."""

    UNSIGNED = "UNSIGNED-PAYLOAD"
    CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    CHUNKS_AND_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    UNSIGNED_CHUNKS_AND_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


_PAYLOADS = frozenset(Payload)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signing key is for: a day (YYYYMMDD), a region and a service."""

    day: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True, slots=True)
class Claim:
    """The signature of a request as it was sent, well-formed and not verified yet.

    `moment` is the time of the signature (YYYYMMDDTHHMMSSZ). `expires` is None for a signature in the fields, and for
    one in the query the seconds for which it holds. `payload` is the SHA-256 of the body in hex, or one of `Payload`.
    """

    key_id: str
    scope: Scope
    moment: str
    names: tuple[str, ...]
    signature: str
    payload: str
    expires: int | None = None


def claim_of(fields: Fields, query: str) -> Claim | None:
    """Return the signature of a request, or None if it has none. `query` is raw.

    Raises S3Refused for one that is malformed, or for two of them.
    """
    authorization = fields.get("authorization", "")
    parameters = parameters_of(query) if "X-Amz-" in query else ()
    is_presigned = any(name == "X-Amz-Algorithm" for name, _ in parameters)
    if not authorization:
        if is_presigned:
            return _claim_of_query(dict(parameters), fields)
        if "AWSAccessKeyId=" in query:
            raise _of_another_kind("AWS")
        return None
    if is_presigned:
        raise S3Refused(
            Refusal.INVALID_ARGUMENT,
            "Only one auth mechanism allowed: Authorization and X-Amz-Algorithm exclude each other",
        )
    return _claim_of_fields(authorization, fields)


def _claim_of_fields(authorization: str, fields: Fields) -> Claim:
    found = _HEADER.fullmatch(authorization)
    if found is None:
        raise _of_another_kind(authorization)
    parts = dict(part.strip(" \t").partition("=")[::2] for part in found[1].split(","))
    names, signature = parts.get("SignedHeaders", ""), parts.get("Signature", "")
    # More than three parts are those of two fields, which were joined.
    is_one = found[1].count(",") == 2
    if not is_one or _NAMES.fullmatch(names) is None or _SIGNATURE.fullmatch(signature) is None:
        raise S3Refused(Refusal.MALFORMED_HEADER, "Authorization is no signature of AWS4-HMAC-SHA256")
    key_id, scope = _credential(parts.get("Credential", ""), Refusal.MALFORMED_HEADER)
    moment = _moment(fields, scope)
    payload = fields.get("x-amz-content-sha256", "")
    if not payload:
        raise S3Refused(Refusal.INVALID, "Missing required header for this request: x-amz-content-sha256")
    if payload not in _PAYLOADS and _SIGNATURE.fullmatch(payload) is None:
        raise S3Refused(
            Refusal.INVALID_ARGUMENT,
            f"x-amz-content-sha256 must be a SHA-256 in hex, or one of {', '.join(sorted(_PAYLOADS))}",
        )
    return Claim(key_id, scope, moment, tuple(names.split(";")), signature, payload)


def _of_another_kind(authorization: str) -> S3Refused:
    """Return why an Authorization is refused that has no signature of version 4."""
    scheme = authorization.split(" ", 1)[0]
    if scheme == "AWS":
        return S3Refused(
            Refusal.INVALID,
            f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.",
        )
    if scheme.startswith("AWS4"):
        return S3Refused(Refusal.MALFORMED_HEADER, f"Authorization is no signature of {ALGORITHM}")
    return S3Refused(Refusal.INVALID_ARGUMENT, "Unsupported Authorization Type")


def _moment(fields: Fields, scope: Scope) -> str:
    moment = fields.get("x-amz-date", "")
    if _MOMENT.fullmatch(moment) is None:
        raise S3Refused(Refusal.DENIED, "a signed request needs x-amz-date, as YYYYMMDDTHHMMSSZ")
    if moment[:8] != scope.day:
        raise S3Refused(Refusal.MALFORMED_HEADER, "the day of the credential is not that of x-amz-date")
    return moment


def _claim_of_query(parameters: Mapping[str, str], fields: Fields) -> Claim:
    refusal = Refusal.MALFORMED_QUERY
    if missing := sorted(_IN_QUERY - parameters.keys()):
        raise S3Refused(refusal, f"a signature in the query needs {', '.join(missing)}")
    if parameters["X-Amz-Algorithm"] != ALGORITHM:
        raise S3Refused(refusal, f"X-Amz-Algorithm must be {ALGORITHM}")
    names, signature, moment = (parameters[f"X-Amz-{name}"] for name in ("SignedHeaders", "Signature", "Date"))
    key_id, scope = _credential(parameters["X-Amz-Credential"], refusal)
    if _NAMES.fullmatch(names) is None or _SIGNATURE.fullmatch(signature) is None or _MOMENT.fullmatch(moment) is None:
        raise S3Refused(refusal, "X-Amz-SignedHeaders, X-Amz-Signature or X-Amz-Date is malformed")
    if moment[:8] != scope.day:
        raise S3Refused(refusal, "the day of X-Amz-Credential is not that of X-Amz-Date")
    expires = parameters["X-Amz-Expires"]
    if _EXPIRES.fullmatch(expires) is None or not 0 < int(expires) <= MAX_EXPIRES_S:
        raise S3Refused(refusal, f"X-Amz-Expires must be from 1 to {MAX_EXPIRES_S}")
    # The field is what the body is compared with, so it counts if it is there. Then it must be signed.
    payload = fields.get("x-amz-content-sha256") or parameters.get("X-Amz-Content-Sha256", Payload.UNSIGNED)
    return Claim(key_id, scope, moment, tuple(names.split(";")), signature, payload, int(expires))


def _credential(text: str, refusal: Refusal) -> tuple[str, Scope]:
    found = _CREDENTIAL.fullmatch(text)
    if found is None:
        raise S3Refused(refusal, "the credential is not KEY/YYYYMMDD/REGION/s3/aws4_request")
    return found[1], Scope(found[2], found[3], found[4])


def check_time(claim: Claim, now: float) -> None:
    """Raise S3Refused unless the signature holds at `now`, in seconds since the epoch."""
    signed_at = _seconds(claim.moment)
    if claim.expires is None:
        if abs(now - signed_at) > MAX_SKEW_S:
            raise S3Refused(Refusal.SKEWED, "the clocks of client and server differ by more than 15 minutes")
    elif now > signed_at + claim.expires:
        raise S3Refused(Refusal.DENIED, "Request has expired")
    elif now < signed_at - MAX_SKEW_S:
        raise S3Refused(Refusal.DENIED, "Request is not valid yet")


def end_of(claim: Claim) -> float:
    """Return when the signature holds no more, in seconds since the epoch. Raises S3Refused for a malformed time."""
    return _seconds(claim.moment) + (MAX_SKEW_S if claim.expires is None else claim.expires)


def _seconds(moment: str) -> float:
    year, month, day = int(moment[:4]), int(moment[4:6]), int(moment[6:8])
    hour, minute, second = int(moment[9:11]), int(moment[11:13]), int(moment[13:15])
    try:  # strptime would take ten times as long
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        raise S3Refused(Refusal.DENIED, "the date of the signature is no date") from None


def verify(claim: Claim, secret: str, method: str, path: str, query: str, fields: Fields) -> None:
    """Raise S3Refused unless the signature is that of `secret` over this request.

    `path` and `query` are as sent. A field that changes what the request means must be signed.
    """
    if len(set(claim.names)) < len(claim.names):  # a long field would cost its length for each
        raise S3Refused(Refusal.MISMATCH, "SignedHeaders names a field twice")
    unsigned = [
        name for name in fields if name.startswith("x-amz-") and name not in claim.names and name not in _OF_FRONTS
    ]
    if "host" not in claim.names or unsigned:
        names = ", ".join(sorted(unsigned)) or "host"
        raise S3Refused(Refusal.DENIED, f"There were headers present in the request which were not signed: {names}")
    wanted = _hex_hmac(
        _signing_key(secret, claim.scope), string_to_sign(claim, canonical_request(claim, method, path, query, fields))
    )
    if not hmac.compare_digest(wanted, claim.signature):
        raise S3Refused(
            Refusal.MISMATCH,
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
        )


def canonical_request(claim: Claim, method: str, path: str, query: str, fields: Fields) -> str:
    """Return the text whose hash is signed."""
    lines = [f"{name}:{' '.join(fields.get(name, '').split())}\n" for name in claim.names]
    return "\n".join(
        (method, _canonical_path(path), _canonical_query(query), "".join(lines), ";".join(claim.names), claim.payload)
    )


def string_to_sign(claim: Claim, canonical: str) -> str:
    """Return the text that the key signs."""
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{claim.moment}\n{claim.scope}\n{digest}"


def _canonical_path(path: str) -> str:
    """Return the path with the one encoding of each byte. S3 encodes it once, and removes no dot segments."""
    return quote(unquote_to_bytes(path.encode("utf-8", "surrogateescape")), safe=_OF_PATHS)


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    encoded = sorted(
        (_encoded(name), _encoded(value)) for name, value in parameters_of(query) if name != "X-Amz-Signature"
    )
    return "&".join(f"{name}={value}" for name, value in encoded)


def _encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogateescape"), safe=_OF_QUERIES)


@lru_cache(maxsize=256)  # each request needs it several times
def parameters_of(query: str) -> Sequence[tuple[str, str]]:
    """Return the decoded names and values of a raw query. A plus sign is a space, as in S3.

    Raises S3Refused for more than MAX_PARAMETERS.
    """
    if query.count("&") >= MAX_PARAMETERS:
        raise S3Refused(Refusal.INVALID, f"the query has more than {MAX_PARAMETERS} parameters")
    return tuple(
        (_decoded(name), _decoded(value))
        for name, _, value in (parameter.partition("=") for parameter in query.split("&") if parameter)
    )


def _decoded(text: str) -> str:
    octets = unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape"))
    return octets.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=1024)
def _signing_key(secret: str, scope: Scope) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (scope.day, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _hex_hmac(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()


class ChunkSignatures:
    """Verifies the signatures of the chunks of one body, each of which covers the one before.

    S3 API, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks". The first
    one covers that of the request, `claim`.
    """

    def __init__(self, claim: Claim, secret: str) -> None:
        self._claim = claim
        self._key = _signing_key(secret, claim.scope)
        self._last = claim.signature

    def verify_chunk(self, digest: str, signature: str) -> None:
        """Verify the next chunk, of which `digest` is the SHA-256 in hex. Raises S3Refused."""
        self._verify(f"{ALGORITHM}-PAYLOAD", f"{_OF_NOTHING}\n{digest}", signature)

    def verify_trailer(self, fields: Sequence[tuple[str, str]], signature: str) -> None:
        """Verify the fields behind the last chunk, without that of the signature. Raises S3Refused."""
        canonical = "".join(f"{name}:{value}\n" for name, value in sorted(fields))
        self._verify("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(canonical.encode()).hexdigest(), signature)

    def _verify(self, kind: str, what: str, signature: str) -> None:
        claim = self._claim
        wanted = _hex_hmac(self._key, f"{kind}\n{claim.moment}\n{claim.scope}\n{self._last}\n{what}")
        if not hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "surrogateescape")):
            raise S3Refused(Refusal.MISMATCH, "The signature of a chunk does not match what was sent.")
        self._last = wanted


_OF_NOTHING = hashlib.sha256(b"").hexdigest()
