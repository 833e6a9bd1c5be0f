"""Decide how long a stored response may be used: RFC 9111 section 4.2, RFC 5861, RFC 9213.

The object's own headers come first: CDN-Cache-Control, else Surrogate-Control, else Cache-Control and Expires. The
configured values follow. There is no heuristic (RFC 9111 section 4.2.2), because operators can configure rules.
"""

from dataclasses import dataclass, field
from enum import Enum

from bucketfront.http import cache_control, dates, surrogate_control
from bucketfront.http.cache_control import MAX_SECONDS, CacheControl
from bucketfront.http.metadata import Metadata
from bucketfront.http.response_fields import USER_METADATA_PREFIX


@dataclass(frozen=True, slots=True)
class Defaults:
    """The configured values, or those of a matching rule. They are in seconds, and not negative.

    `outage` is the time past the TTL in which a stale response may be used while the origin is out of reach. If
    `stale_while_revalidate` is None, the lifetime of the response decides (DEFAULT_STALE_WHILE_REVALIDATE_S).
    """

    ttl: float
    stale_while_revalidate: float | None
    stale_if_error: float
    outage: float


class Basis(Enum):
    """What decided the lifetime of a response. The values are stable, for programs."""

    S_MAXAGE = "s-maxage"
    MAX_AGE = "max-age"
    NO_CACHE = "no-cache"
    EXPIRES = "Expires"
    VERSION = "version-id"  # a version with an id never changes
    CONFIGURED = "configured"  # a rule or the default, because the object has no lifetime of its own
    UNKNOWN = "unknown"  # it counts as stale: a soft purge, or its age is not known
    NO_STORE = "no-store"
    PRIVATE = "private"
    RULE = "rule"  # a rule forbids storing
    NO_VALIDATOR = "no-validator"  # no ETag tells its versions apart


@dataclass(frozen=True, slots=True)
class Freshness:
    """The lifetime of a response, in seconds.

    `ttl` counts from the validation, less the age of the response at that time. The stale windows count from the end of
    `ttl`. With `must_revalidate` a stale response is never used without a validation. `outage` is the window while the
    origin is out of reach (RFC 9111 section 4.2.4, "disconnected"). It is at least as long as `stale_if_error`. `basis`
    is what decided `ttl`, and `header` the name of the object's own header that it stands in.
    """

    ttl: float
    storable: bool = True
    must_revalidate: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    outage: float = 0.0
    basis: Basis = field(default=Basis.CONFIGURED, compare=False)
    header: str | None = field(default=None, compare=False)


# A cache behind this one adds its own age to a stale response. A live playlist of 3 seconds would be shown for 6, and
# players would wait for its next segment. For other objects a minute lets no client wait for the origin.
DEFAULT_STALE_WHILE_REVALIDATE_S = 60.0
SHORT_LIFETIME_S = 10.0  # below it, responses are revalidated in the foreground by default

_OF_HEADER = (Basis.NO_CACHE, Basis.S_MAXAGE, Basis.MAX_AGE)  # those that stand in a header with several directives

# The target list of RFC 9213 section 2.2, the most applicable field first. S3 stores no such header with an object.
# It stores user metadata, so user metadata of that name counts after the field itself.
_TARGETED = tuple(
    (name, parse)
    for field, parse in (
        ("CDN-Cache-Control", cache_control.parse_targeted),
        ("Surrogate-Control", surrogate_control.parse),
    )
    for name in (field, USER_METADATA_PREFIX + field)
)


def policy(
    metadata: Metadata, defaults: Defaults, now: float, *, cache: bool = True, immutable: bool = False
) -> Freshness:
    """Return the freshness of a response that the origin sent, or confirmed with a 304, at `now`.

    `now` is in seconds since the epoch. `cache` is False if a rule forbids storing. A response without a usable ETag
    is not stored either. With `immutable` the key names one S3 version (`versionId`), whose bytes and metadata never
    change. It stays fresh unless it has no-store or private.

    The lifetime of RFC 9111 section 4.2.1 is Expires minus Date, both by the origin's clock. So a difference between
    the clocks does not matter.
    """
    targeted = _targeted(metadata)
    header, control = targeted or ("Cache-Control", cache_control.parse(metadata.header("Cache-Control")))
    if (refusal := _refusal(control, metadata, cache=cache)) is not None:
        of_header = header if refusal in (Basis.NO_STORE, Basis.PRIVATE) else None
        return Freshness(0.0, storable=False, must_revalidate=True, basis=refusal, header=of_header)
    strict = control.no_cache or control.must_revalidate or control.proxy_revalidate

    def window(own: int | None, configured: float) -> float:
        if strict:
            return 0.0
        if own is not None:
            return float(own)
        # RFC 9111 section 5.2.2.10: s-maxage forbids stale responses, unless RFC 5861's directives allow them.
        return configured if control.s_maxage is None else 0.0

    # RFC 9213 section 2.2: a targeted field overrides Expires too.
    expires = metadata.header("Expires") if targeted is None else None
    basis = _basis(control, expires, immutable=immutable)
    ttl = _ttl(basis, control, expires, metadata, defaults.ttl, now)
    # An object that declares a lifetime of 0 wants a revalidation for each request, not a minute later.
    has_zero_lifetime = not ttl and any(own is not None for own in (control.s_maxage, control.max_age, expires))
    revalidating = 0.0 if has_zero_lifetime else _stale_while_revalidate(defaults, ttl + metadata.age)
    return Freshness(
        ttl=ttl,
        must_revalidate=strict,
        stale_while_revalidate=window(control.stale_while_revalidate, revalidating),
        stale_if_error=window(control.stale_if_error, defaults.stale_if_error),
        outage=window(control.stale_if_error, max(defaults.stale_if_error, defaults.outage)),
        basis=basis,
        header=header if basis in _OF_HEADER else None,
    )


def _refusal(control: CacheControl, metadata: Metadata, *, cache: bool) -> Basis | None:
    """Return why a response is not stored, or None."""
    if not cache:
        return Basis.RULE
    if control.no_store:
        return Basis.NO_STORE
    if control.private:
        return Basis.PRIVATE
    return None if metadata.has_validator else Basis.NO_VALIDATOR


def _basis(control: CacheControl, expires: str | None, *, immutable: bool) -> Basis:
    """Return what decides the lifetime, in the order of precedence."""
    if immutable:
        return Basis.VERSION
    if control.no_cache:
        return Basis.NO_CACHE
    if control.s_maxage is not None:
        return Basis.S_MAXAGE
    if control.max_age is not None:
        return Basis.MAX_AGE
    return Basis.CONFIGURED if expires is None else Basis.EXPIRES


def _stale_while_revalidate(defaults: Defaults, lifetime: float) -> float:
    """Return the configured window, or the default one of a response with that lifetime."""
    if defaults.stale_while_revalidate is not None:
        return defaults.stale_while_revalidate
    return DEFAULT_STALE_WHILE_REVALIDATE_S if lifetime >= SHORT_LIFETIME_S else 0.0


def _targeted(metadata: Metadata) -> tuple[str, CacheControl] | None:
    """Return the first field of the target list with a valid, non-empty value, or None (RFC 9213 section 2.2)."""
    for name, parse in _TARGETED:
        control = parse(metadata.header(name))
        if control is not None:
            return name, control
    return None


def _ttl(
    basis: Basis, control: CacheControl, expires: str | None, metadata: Metadata, default: float, now: float
) -> float:
    """Return the lifetime less the age (RFC 9111 sections 4.2.1 and 4.2.3)."""
    match basis:
        case Basis.VERSION:
            return float(MAX_SECONDS)
        case Basis.NO_CACHE:
            return 0.0
        case Basis.EXPIRES:
            return _until(expires or "", metadata, now)
        case Basis.S_MAXAGE:
            lifetime: float = control.s_maxage or 0
        case Basis.MAX_AGE:
            lifetime = control.max_age or 0
        case _:
            lifetime = default
    return max(0.0, float(lifetime) - metadata.age)


def _until(expires: str, metadata: Metadata, now: float) -> float:
    """Return the lifetime up to Expires, less the age. An invalid date, "0" above all, is past (section 5.3)."""
    end, date = dates.parse(expires, now), dates.parse(metadata.date or "", now)
    if end is None:
        return 0.0
    # By the origin's clock: a Date in the past is the age at least (section 4.2.3). Without a Date, the response
    # counts as generated such that its Age is right.
    age = float(metadata.age) if date is None else max(0.0, now - date, metadata.age)
    began = now - age if date is None else date
    return min(max(0.0, end - began - age), float(MAX_SECONDS))
