"""The settings of how long responses are fresh, and for how long stale ones may be served."""

from pydantic import Field

from bucketfront.config.checked_text import FieldValue, RuleField, Text
from bucketfront.config.quantities import Duration, Flag
from bucketfront.config.section import Section


class FreshnessRule(Section):
    """Settings for the keys that match. For each setting, the first rule counts that matches and has it."""

    match: Text = Field(examples=["live/**/*.json"])
    """Pattern for keys. `*` and `?` match within a folder, `**` crosses folders. A pattern without `/` matches in every
    folder."""
    ttl: Duration | None = None
    """How long an object is fresh that carries no lifetime of its own."""
    negative_ttl: Duration | None = None
    """How long a 404 of S3 is remembered."""
    stale_while_revalidate: Duration | None = None
    """As `freshness.stale_while_revalidate`, for an object that does not set it itself."""
    stale_if_error: Duration | None = None
    """As `freshness.stale_if_error`, for an object that does not set it itself."""
    cache: Flag | None = None
    """`false` passes such objects through and stores none of them."""
    headers: dict[RuleField, FieldValue | None] | None = Field(
        default=None, examples=["{X-Robots-Tag: noindex, x-amz-meta-author: null}"]
    )
    """Response headers to set, or with `null` to remove."""
    cache_control: FieldValue | None = Field(default=None, examples=["max-age=2"])
    """The `Cache-Control` that clients and CDNs receive in place of the object's own."""


class FreshnessSettings(Section):
    """How long a cached object is used without a request to S3 (RFC 9111, RFC 5861).

    The object's own `Cache-Control` and `Expires` come first, then the rules, then these defaults.
    """

    default_ttl: Duration = 300.0
    """How long an object is fresh if neither its headers nor a rule set a lifetime."""
    negative_ttl: Duration = 10.0
    """How long a 404 of S3 is remembered."""
    stale_while_revalidate: Duration | None = None
    """How long past its lifetime a stale object may be served while it is revalidated (RFC 5861 section 3). `null`
    means 60 seconds, and none for an object that is fresh for less than 10 seconds, such as a live playlist: caches
    behind bucketfront would add their own age to it."""
    stale_if_error: Duration = 86400.0
    """How long past its lifetime a stale object may be served while S3 fails (RFC 5861 section 4)."""
    outage: Duration | None = None
    """How long past its lifetime a stale object may be served while S3 is out of reach. The longer of this
    and `freshness.stale_if_error` holds, and `null` means the latter. An object's own `stale-if-error` comes first."""
    honor_client_no_cache: Flag = False
    """Whether a client's `Cache-Control: no-cache` makes bucketfront revalidate the object."""
    media_rules: Flag = True
    """Whether built-in rules for HLS and DASH follow yours. They keep playlists for 2 seconds and segments for a
    day."""
    rules: tuple[FreshnessRule, ...] = ()
    """Rules for keys that match a pattern."""
