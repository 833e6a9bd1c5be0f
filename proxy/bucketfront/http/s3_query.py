"""The query of a request of S3: parameters, those of a signature, and fields that a presigned URL has there.

S3 takes the name of a field in the query as that field of the head, so SDKs put `x-amz-meta-…` and its like into
presigned URLs. Here such a parameter becomes the field, so that all rules for the field hold for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.http.sigv4 import parameters_of

_FIELD = "x-amz-"
_OF_SIGNATURES = frozenset({
    "x-amz-algorithm", "x-amz-content-sha256", "x-amz-credential", "x-amz-date", "x-amz-expires",
    "x-amz-s3session-token", "x-amz-security-token", "x-amz-signature", "x-amz-signedheaders", "x-amz-user-agent",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class S3Query:
    """A query, taken apart.

    `parameters` are decoded, `fields` have names in lower case, and `spelling` is the raw query with the parameters
    alone.
    """

    parameters: Mapping[str, str]
    fields: Mapping[str, str]
    spelling: str

    def merged(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Return `fields` of the head and those of the query. Raises S3Refused if one of them has two values."""
        for name, value in self.fields.items():
            if fields.get(name, value) != value:
                raise _ambiguous(name)
        return {**fields, **self.fields}


def parse(query: str) -> S3Query:
    """Return a raw query, taken apart.

    Raises S3Refused for a parameter that occurs twice: the origin may take the other value than the one judged here.
    """
    parameters: dict[str, str] = {}
    fields: dict[str, str] = {}
    kept: list[str] = []
    raw = (part for part in query.split("&") if part)
    for part, (name, value) in zip(raw, parameters_of(query), strict=True):
        lower = name.lower()
        if lower in _OF_SIGNATURES:
            continue
        is_field = lower.startswith(_FIELD)
        found, known = (fields, lower) if is_field else (parameters, name)
        if known in found:
            raise _ambiguous(known)
        found[known] = value
        if not is_field:
            kept.append(part)
    return S3Query(parameters, fields, "&".join(kept))


def _ambiguous(name: str) -> S3Refused:
    shown = name.encode("ascii", "backslashreplace").decode()
    return S3Refused(Refusal.INVALID_ARGUMENT, f"{shown:.64} is given twice")
