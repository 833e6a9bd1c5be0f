"""What of a client's own request goes to S3, if S3 is to verify its signature: nothing of it is changed.

Fields pass by allow-list (docs/invariants.md#complete-cache-key), which the names of the signed fields extend. Those of
the connection never pass, because they are about another one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from bucketfront.http import forwarded_fields, sigv4
from bucketfront.http.s3_refusal import S3Refused
from bucketfront.http.sigv4 import Claim

CONDITIONS = frozenset({"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since"})

_ALWAYS = frozenset({"authorization", "date", "host", "if-range", "origin", "referer", "user-agent"})
# Of the connection and the framing, and what this proxy adds itself.
_NEVER = frozenset({
    "connection", "content-length", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade", "via",
})  # fmt: skip
_ONE_PART = frozenset({"range"})  # which bytes of an object are read: S3 decides on all of them at once


@dataclass(frozen=True, slots=True)
class ClientSignature:
    """A client's signature, not verified. `claim` is None for an anonymous request.

    `is_known` is false for a signature of another kind, or a malformed one. S3 decides on it, and it is never
    remembered.
    """

    claim: Claim | None
    is_known: bool

    @property
    def names(self) -> frozenset[str]:
        """Return the names of the fields that the signature covers."""
        return frozenset() if self.claim is None else frozenset(self.claim.names)

    @property
    def expires_at(self) -> float | None:
        """Return when S3 takes the signature no more, in seconds since the epoch. Returns None for an anonymous one."""
        return None if self.claim is None else sigv4.end_of(self.claim)


def signature_of(fields: Mapping[str, str], query: str) -> ClientSignature:
    """Return the signature of a request. `fields` have names in lower case, and `query` is raw."""
    try:
        claim = sigv4.claim_of(fields, query)
        if claim is not None:
            sigv4.end_of(claim)
    except S3Refused:
        return ClientSignature(None, is_known=False)
    is_other = claim is None and ("authorization" in fields or "Signature=" in query or "AWSAccessKeyId=" in query)
    return ClientSignature(claim, is_known=not is_other)


def passed_fields(fields: Mapping[str, str], signature: ClientSignature) -> dict[str, str]:
    """Return the fields that S3 gets."""
    of_client = dict(forwarded_fields.of_request(fields))
    named = {name.strip().lower() for name in fields.get("connection", "").split(",")}
    return {
        name: value
        for name, value in fields.items()
        if name not in _NEVER
        and (name in signature.names or name not in named)
        and (name in _ALWAYS or name in of_client or name in signature.names or name.startswith("x-amz-"))
    }


def digest_of(method: str, target: str, passed: Mapping[str, str], signature: ClientSignature) -> bytes:
    """Return a digest of all by which S3 decides whether a read is allowed: of the same request alone it is the same.

    A Range that is not signed is no part of it.
    """
    parts = [method, target]
    for name, value in sorted(passed.items()):
        if name not in _ONE_PART or name in signature.names:
            parts += (name, value)
    digest = hashlib.sha256()
    for part in parts:
        octets = part.encode("utf-8", "surrogateescape")
        digest.update(b"%d:%b" % (len(octets), octets))
    return digest.digest()
