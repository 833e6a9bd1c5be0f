"""How long a stored answer may be used: RFC 9111 section 4.2, RFC 5861, RFC 9213.

The object's own word comes first: CDN-Cache-Control, else Surrogate-Control, else Cache-Control and Expires. Then
the configured values. Never a heuristic (RFC 9111 section 4.2.2): a rule says what is meant.
"""

from dataclasses import dataclass

from bucketfront.http import cache_control, dates, surrogate_control
from bucketfront.http.cache_control import MAX_SECONDS, CacheControl
from bucketfront.http.metadata import USER_METADATA_PREFIX, Metadata


@dataclass(frozen=True, slots=True)
class Defaults:
    """The configured values, those of the rules where one matches: seconds, none negative.

    `outage`: past the ttl, while the origin is out of reach altogether.
    """

    ttl: float
    stale_while_revalidate: float
    stale_if_error: float
    outage: float


@dataclass(frozen=True, slots=True)
class Freshness:
    """All times in seconds. `ttl` counts from the validation: the age that the answer had then is taken off.

    The stale windows count from the end of `ttl`. `must_revalidate`: once stale, never used without a
    validation, whatever the reason. `outage` is the window while the origin is out of reach altogether
    (RFC 9111 section 4.2.4, "disconnected"), never shorter than `stale_if_error`.
    """

    ttl: float
    storable: bool = True
    must_revalidate: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    outage: float = 0.0


_NOT_STORABLE = Freshness(ttl=0.0, storable=False, must_revalidate=True)

# RFC 9213 section 2.2: the target list, first the most applicable. S3 keeps no such field of an object, only user
# metadata, so that counts as well, after the field itself.
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
    """The freshness of an answer that the origin gave, or confirmed with a 304, at `now` (seconds since the epoch).

    `cache`: False where a rule forbids to store. `immutable`: the key names one S3 version (`versionId`), whose
    bytes and metadata never change, so that it is fresh for good, whatever it says short of no-store and private.

    The origin's Date is not kept. S3 is asked now, so `now` is its Date: what RFC 9110 section 6.6.1 has a
    recipient put in place of a missing one. The lifetime of RFC 9111 section 4.2.1, Expires less Date, is then
    Expires less `now`, by our own clock.
    """
    targeted = _targeted(metadata)
    control = cache_control.parse(metadata.header("Cache-Control")) if targeted is None else targeted
    if not cache or control.no_store or control.private:
        return _NOT_STORABLE
    strict = control.no_cache or control.must_revalidate or control.proxy_revalidate

    def window(own: int | None, configured: float) -> float:
        if strict:
            return 0.0
        if own is not None:
            return float(own)
        # RFC 9111 section 5.2.2.10: s-maxage forbids stale answers, unless RFC 5861's directives allow them.
        return configured if control.s_maxage is None else 0.0

    # RFC 9213 section 2.2: a targeted field takes Expires out of play too.
    expires = metadata.header("Expires") if targeted is None else None
    if immutable:
        ttl = float(MAX_SECONDS)
    elif control.no_cache:
        ttl = 0.0
    else:
        ttl = _ttl(control, expires, metadata.age, defaults.ttl, now)
    # An object that says it is stale at once wants the origin asked each time, not a minute later.
    is_stale_by_word = not ttl and any(said is not None for said in (control.s_maxage, control.max_age, expires))
    revalidating = 0.0 if is_stale_by_word else defaults.stale_while_revalidate
    return Freshness(
        ttl=ttl,
        must_revalidate=strict,
        stale_while_revalidate=window(control.stale_while_revalidate, revalidating),
        stale_if_error=window(control.stale_if_error, defaults.stale_if_error),
        outage=window(control.stale_if_error, max(defaults.stale_if_error, defaults.outage)),
    )


def _targeted(metadata: Metadata) -> CacheControl | None:
    """RFC 9213 section 2.2: the first field of the target list with a valid, non-empty value, or None."""
    for name, parse in _TARGETED:
        control = parse(metadata.header(name))
        if control is not None:
            return control
    return None


def _ttl(control: CacheControl, expires: str | None, age: int, default: float, now: float) -> float:
    """RFC 9111 sections 4.2.1 and 4.2.3."""
    lifetime: float
    if control.s_maxage is not None:
        lifetime = control.s_maxage
    elif control.max_age is not None:
        lifetime = control.max_age
    elif expires is not None:
        # A point in time: unlike the lifetimes it needs no correction for Age. Section 5.3: no date, "0"
        # above all, is a time in the past.
        end = dates.parse(expires, now)
        return 0.0 if end is None else min(max(0.0, end - now), float(MAX_SECONDS))
    else:
        lifetime = default
    return max(0.0, float(lifetime) - age)
