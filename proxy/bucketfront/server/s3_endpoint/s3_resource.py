"""What a request names: the service, a bucket, or an object (S3 User Guide, "Virtual hosting of buckets").

| Host | path | names |
|---|---|---|
| any other name, or an address | `/` | the service |
| | `/bucket`, `/bucket/` | a bucket |
| | `/bucket/key` | an object |
| `bucket.DOMAIN` | `/` | a bucket |
| | `/key` | an object |

The key has the strict decoding of all paths (docs/invariants.md#one-name).
"""

from dataclasses import dataclass

from bucketfront.config.bucket_name import bucket_name
from bucketfront.http.s3_operations import Named
from bucketfront.http.s3_refusal import Refusal, S3Refused
from bucketfront.http.web_origin import Authority
from bucketfront.keys import parse_target


@dataclass(frozen=True, slots=True)
class S3Resource:
    """`octets` are those of the key, decoded, and empty for a bucket. `path` and `query` are as sent."""

    bucket: str | None
    octets: bytes
    path: str
    query: str

    @property
    def named(self) -> Named:
        """Return what the resource is one of."""
        if self.bucket is None:
            return Named.SERVICE
        return Named.OBJECT if self.octets else Named.BUCKET


def resource_of(raw_target: str, host: str, domain: str | None) -> S3Resource:
    """Return what a request names. `host` is the value of Host. Raises BadPath, S3Refused."""
    target = parse_target(raw_target)
    if (name := bucket_in_host(host, domain)) is not None:
        return S3Resource(_checked(name), target.path[1:], target.spelling, target.query)
    # A bucket has one spelling: an escape could evade a rule of a server in front.
    spelled = target.spelling[1:].partition("/")[0]
    octets = target.path[1:].partition(b"/")[2]
    bucket = _checked(spelled) if spelled else None
    if bucket is None and len(target.path) > 1:
        raise S3Refused(Refusal.INVALID_BUCKET, "The specified bucket is not valid.")
    return S3Resource(bucket, octets, target.spelling, target.query)


def bucket_in_host(host: str, domain: str | None) -> str | None:
    """Return the name before `domain` in the value of Host, not checked. Returns None without one."""
    authority = None if domain is None else Authority.parse(host)
    if authority is None or not authority.host.endswith(f".{domain}"):
        return None
    return authority.host.removesuffix(f".{domain}")


def _checked(name: str) -> str:
    """Return the name of a bucket. Raises S3Refused."""
    try:
        return bucket_name(name)
    except ValueError:
        raise S3Refused(Refusal.INVALID_BUCKET, "The specified bucket is not valid.") from None
