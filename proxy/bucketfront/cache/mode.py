"""Whether the cache serves its clients, or only shows what it would do."""

from enum import StrEnum


class CacheMode(StrEnum):
    """The values are those of `cache.mode`."""

    SERVE = "serve"
    OBSERVE = "observe"  # S3 serves, and nothing is stored
    SHADOW = "shadow"  # S3 serves, and the cache runs beside it, to be compared
