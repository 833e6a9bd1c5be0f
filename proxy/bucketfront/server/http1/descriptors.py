"""The process's descriptors: how many of them each part may have, decided at the start.

See docs/invariants.md#descriptors.
"""

import resource
import sys
from dataclasses import dataclass

from bucketfront.errors import ConfigError

MAX_USED_SHARE = 0.8  # of the limit; the rest is for rejected clients, the admin port, idle connections, surprises
MAX_HOT_FILES = 4096  # open files of the cache beside those of running responses
MIN_HOT_FILES = 16
RESERVED_DESCRIPTORS = 64  # listeners, index, logs, threads at work on the disk, the resolver, credentials
MIN_CONNECTIONS = 8
MAX_DESCRIPTORS_OF_MACOS = 10_240  # OPEN_MAX: setrlimit(2) takes no more there, also if the hard limit is higher


@dataclass(frozen=True, slots=True)
class DescriptorShares:
    """`hot` files of the cache stay open, and a quarter more for a moment. `connections` clients come in at a time."""

    hot: int
    connections: int


def raise_limit() -> None:
    """Raise the soft limit to the hard one. A lower soft limit only serves programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MAX_DESCRIPTORS_OF_MACOS) if sys.platform == "darwin" else hard
    if soft < wanted or (wanted == resource.RLIM_INFINITY != soft):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """Return the number of descriptors that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def shares(limit: int, origin_connections: int) -> DescriptorShares:
    """Divide `limit` descriptors. Raises ConfigError if fewer than MIN_CONNECTIONS clients would have room.

    A client takes a socket, a duplicate of it while a file is sent, and the file. The file is one of the hot ones,
    unless there are more clients than hot files.
    """
    hot = max(MIN_HOT_FILES, min(MAX_HOT_FILES, limit // 8))
    room = int(limit * MAX_USED_SHARE) - RESERVED_DESCRIPTORS - origin_connections
    connections = min((room - hot * 5 // 4) // 2, room // 3)
    if connections < MIN_CONNECTIONS:
        raise ConfigError(
            f"a limit of {limit} open files is too low for origin.max_connections = {origin_connections}: raise it"
            " (ulimit -n, LimitNOFILE=), or lower that"
        )
    return DescriptorShares(hot, connections)
