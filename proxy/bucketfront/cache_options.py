"""The values that the cache and the origin take, made of the settings."""

import logging
import math
import time
from collections.abc import Callable

from pydantic import SecretStr

from bucketfront.cache import CacheMode, CacheOptions
from bucketfront.config.freshness_policy import FreshnessPolicy
from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.config.settings import Settings
from bucketfront.fair_share import FairShares, Resource, Shares
from bucketfront.http.cache_tags import TagFields
from bucketfront.keys import ObjectKey
from bucketfront.s3.accepted_codings import Area
from bucketfront.tus.manager import MAX_UPLOADS

SPLIT_DISTANCE_BYTES = 1 << 20  # a reader that is closer waits, because a request of its own costs more


def cache_options(
    settings: Settings, freshness: FreshnessPolicy, hot_limit: int, mount_of: Callable[[ObjectKey], str]
) -> CacheOptions:
    """Return the options of the cache. `hot_limit` is the number of entries in memory."""
    config, origin = settings.cache, settings.origin
    return CacheOptions(
        max_size=config.max_size,
        block_size=config.block_size,
        part_size=origin.part_size,
        # A key has half of the connections, because more parts of it would wait for each other.
        parallel_parts=min(origin.parallel_parts, max(1, origin.max_connections // 2)),
        read_ahead_limit=max(1, origin.max_connections * 3 // 4),
        read_ahead_max=config.read_ahead_max,
        hot_limit=hot_limit,
        memory=config.memory,
        policy=freshness.lifetime,
        negative_ttl=freshness.negative_ttl,
        idle_timeout=config.idle_timeout,
        reader_timeout=3 * (origin.connect_timeout + origin.read_timeout),
        min_free=config.free_floor,
        after_disconnect=config.after_disconnect,
        split_distance=SPLIT_DISTANCE_BYTES,
        is_durable=config.durability == "power",
        eviction=config.eviction,
        mount_of=mount_of,
        share_of_one=settings.server.share_of_one,
        tag_fields=TagFields(config.tag_headers),
        mode=CacheMode(config.mode),
        ttl_when_lost=math.inf if settings.bus is None else settings.bus.ttl_when_lost,
    )


def fair_shares(connections: int, share_of_one: float) -> FairShares:
    """Return the resources of which clients are refused at once.

    Behind a front the connections are the front's, so requests and uploads of its clients are counted apart.
    """
    return FairShares(
        {
            Resource.REQUESTS: Shares(connections, share_of_one),
            Resource.UPLOADS: Shares(max(1, connections // 2), share_of_one),
            Resource.RESUMABLE_UPLOADS: Shares(MAX_UPLOADS, share_of_one),
        },
        time.monotonic,
        logging.getLogger("bucketfront").warning,
    )


def coding_areas(settings: Settings) -> list[Area]:
    """Return the keys of the mounts, with the codings that requests for them accept."""
    default = settings.origin.accept_encoding
    return [Area(mount.bucket, mount.prefix, mount.accept_encoding or default) for mount in settings.mounts]


def with_demo_keys(origin: OriginSettings) -> OriginSettings:
    """Return the settings with any keys, which moto accepts.

    Without keys the SDK would look for an instance's role and wait for it.
    """
    demo = StaticCredentials(access_key_id=SecretStr("demo"), secret_access_key=SecretStr("demo"))
    return origin.model_copy(update={"credentials": demo})
