"""The S3 that the SDK resolves, which is a part of the cache key (docs/invariants.md#complete-cache-key).

Without `origin.endpoint_url`, the SDK takes the endpoint from variables such as AWS_ENDPOINT_URL and
AWS_USE_FIPS_ENDPOINT, and from the profile. Two S3 services must never share a cached object, so the name comes from
the result.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

from bucketfront.errors import OriginError

DEFAULT_REGION = "us-east-1"
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The domains of AWS by partition, from botocore's partitions.json. Endpoints of other domains are named by their URL.
_AWS_DOMAINS = (
    "amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "c2s.ic.gov", "sc2s.sgov.gov", "cloud.adc-e.uk",
    "csp.hci.ic.gov",
)  # fmt: skip
_GLOBAL_REGIONS = frozenset({DEFAULT_REGION, "aws-global"})  # their endpoint may be s3.amazonaws.com


@dataclass(frozen=True, slots=True)
class S3Endpoint:
    """The endpoint of a client. `url` is normalised: equal endpoints have equal URLs."""

    url: str
    region: str
    name: str  # in all that is stored
    is_custom: bool  # another S3 than those that the SDK knows

    def __str__(self) -> str:
        return f"{self.url}, region {self.region}"

    def includes(self, url: str) -> bool:
        """Return whether a request to `url` stays at this endpoint.

        A custom endpoint includes its own host and those below it, for buckets in the host name.
        AWS has hosts for access points and directory buckets, so all URLs are included.
        """
        if not self.is_custom or url.startswith(f"{self.url}/"):
            return True
        mine, asked = _origin(self.url), _origin(url)
        return asked[0] == mine[0] and asked[2] == mine[2] and f".{asked[1]}".endswith(f".{mine[1]}")


async def resolve(client: Any, given: str | None, region: str) -> S3Endpoint:
    """Return the endpoint of aiobotocore's client.

    `given` and `region` are `origin.endpoint_url` and `origin.region`. Raises OriginError if the URL holds credentials.
    """
    # The attribute meta.endpoint_url has the host s3-fips.aws-global.amazonaws.com, which requests do not go to.
    operation = client.meta.service_model.operation_model("ListBuckets")
    context = {"client_region": client.meta.region_name, "client_config": client.meta.config}
    found, *_ = await client._resolve_endpoint_ruleset(operation, {}, context)  # noqa: SLF001 - it has no public name
    if "@" in urlsplit(found).netloc:
        raise OriginError(
            "the endpoint of the environment or profile must not hold credentials: see origin.credentials"
        )
    url, used = normalised(found), client.meta.region_name
    return S3Endpoint(url, used, given or _name(url, used, region), is_custom=_aws_variant(url, used) is None)


def normalised(url: str) -> str:
    """Return the URL in the one form of its endpoint: lower case, no default port, no slash at the end."""
    scheme, host, port = _origin(url)
    authority = host if port == _DEFAULT_PORTS.get(scheme) else f"{host}:{port}"
    return f"{scheme}://{authority}{urlsplit(url).path}".removesuffix("/")


def _name(url: str, used: str, region: str) -> str:
    """Return the name of an endpoint that the settings leave to the SDK.

    `used` is the region that the SDK made of `region`.
    """
    # The SDK reads region fips-us-east-1 as us-east-1 with FIPS. The name of such a region includes the variant.
    if _aws_variant(url, used) == ("" if used == region else "-fips"):
        return f"aws:{region}"
    # Without the default region, the name is the one that the same URL has in origin.endpoint_url.
    return url if used == DEFAULT_REGION else f"{url} {used}"


def _aws_variant(url: str, region: str) -> str | None:
    """Return what the host has between `s3` and the region, such as `-fips` and `.dualstack`, if it is AWS's own."""
    place = rf"\.{re.escape(region)}"
    if region in _GLOBAL_REGIONS:
        place = f"({place})?"
    domains = "|".join(map(re.escape, _AWS_DOMAINS))
    found = re.fullmatch(rf"https://s3((?:-fips)?(?:\.dualstack)?){place}\.(?:{domains})", url)
    return None if found is None else found[1]


def _origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port, as RFC 6454 section 4 compares them."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        with suppress(ValueError):
            host = str(IPv6Address(host))
        host = f"[{host}]"
    return parts.scheme, host, parts.port or _DEFAULT_PORTS.get(parts.scheme)
