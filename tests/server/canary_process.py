"""`bucketfront` with every logger at DEBUG, and with a bug: a lookup of the key `bug` breaks down."""

import logging
from typing import Any

from bucketfront import process_log
from bucketfront.cache.cache import Cache
from bucketfront.cli import main
from bucketfront.config.log_settings import LogSettings
from bucketfront.keys import ObjectKey

apply, lookup = process_log.apply, Cache.lookup_for_client


def apply_loudly(settings: LogSettings, **options: Any) -> None:
    apply(settings, **options)
    logging.getLogger().setLevel(logging.DEBUG)


async def lookup_with_a_bug(self: Cache, key: ObjectKey, **options: Any) -> Any:
    if key.key.endswith("bug"):
        raise RuntimeError("the bug that a test wants")
    return await lookup(self, key, **options)


process_log.apply = apply_loudly
Cache.lookup_for_client = lookup_with_a_bug  # type: ignore[method-assign]
main()
