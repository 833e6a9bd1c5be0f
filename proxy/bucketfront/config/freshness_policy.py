"""The freshness that the settings define: rules by path, and the lifetime of each version.

The functions are pure. The cache gets them as callables, because it takes values and no settings.
"""

from bucketfront.config.freshness_settings import FreshnessSettings
from bucketfront.http import freshness
from bucketfront.http.freshness import Freshness
from bucketfront.http.metadata import Metadata
from bucketfront.http.path_rules import MEDIA_RULES, Rules, Ruling
from bucketfront.keys import ObjectKey


class FreshnessPolicy:
    """Applies the rules and the defaults of the settings. `rules` are the operator's, then those for media."""

    def __init__(self, settings: FreshnessSettings) -> None:
        self._settings = settings
        self.rules = _rules_of(settings)

    def defaults(self, key: ObjectKey) -> freshness.Defaults:
        """Return the lifetimes of an object that has none of its own: those of the rules, else the configured ones."""
        settings, ruling = self._settings, self.rules.ruling(key.key)
        return freshness.Defaults(
            ttl=_first(ruling.ttl, settings.default_ttl),
            stale_while_revalidate=(
                settings.stale_while_revalidate
                if ruling.stale_while_revalidate is None
                else ruling.stale_while_revalidate
            ),
            stale_if_error=_first(ruling.stale_if_error, settings.stale_if_error),
            # The longer window holds, so 0 leaves stale_if_error.
            outage=_first(settings.outage, 0.0),
        )

    def may_store(self, key: ObjectKey) -> bool:
        """Return whether no rule has `cache: false` for the key."""
        return self.rules.ruling(key.key).cache is not False

    def is_own(self, pattern: str) -> bool:
        """Return whether a pattern is that of a rule of the operator, and not only of a built-in one."""
        return any(rule.match == pattern for rule in self._settings.rules)

    def lifetime(self, key: ObjectKey, metadata: Metadata, now: float) -> Freshness:
        """Return how long a version is fresh. `now` is in seconds since the epoch."""
        # S3's "null" version can be overwritten, and has no version in its metadata.
        is_immutable = key.version is not None and metadata.version is not None
        return freshness.policy(metadata, self.defaults(key), now, cache=self.may_store(key), immutable=is_immutable)

    def negative_ttl(self, key: ObjectKey) -> float:
        """Return how many seconds a 404 of the key holds."""
        return _first(self.rules.ruling(key.key).negative_ttl, self._settings.negative_ttl)


def _first(ruled: float | None, configured: float) -> float:
    return configured if ruled is None else ruled


def _rules_of(settings: FreshnessSettings) -> Rules:
    own = tuple(
        (
            rule.match,
            Ruling(
                ttl=rule.ttl,
                negative_ttl=rule.negative_ttl,
                stale_while_revalidate=rule.stale_while_revalidate,
                stale_if_error=rule.stale_if_error,
                cache=rule.cache,
                headers=None if rule.headers is None else tuple(rule.headers.items()),
                cache_control=rule.cache_control,
            ),
        )
        for rule in settings.rules
    )
    return Rules((*own, *MEDIA_RULES) if settings.media_rules else own)
