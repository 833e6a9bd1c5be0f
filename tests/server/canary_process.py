"""`bucketfront` with every logger at DEBUG, and with a bug: a lookup of the key `bug` breaks down."""

import logging
from typing import Any

from bucketfront.cache.cache import Cache
from bucketfront.cli import main
from bucketfront.keys import ObjectKey

configure, lookup = logging.basicConfig, Cache.lookup


def configure_loudly(**options: Any) -> None:
    configure(**{**options, "level": logging.DEBUG})
    logging.getLogger().setLevel(logging.DEBUG)


async def lookup_with_a_bug(self: Cache, key: ObjectKey, **options: Any) -> Any:
    if key.key.endswith("bug"):
        raise RuntimeError("the bug that a test wants")
    return await lookup(self, key, **options)


logging.basicConfig = configure_loudly
Cache.lookup = lookup_with_a_bug  # type: ignore[method-assign]
main()
