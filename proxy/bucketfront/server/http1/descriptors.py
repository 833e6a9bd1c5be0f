"""The process's descriptors and who may have how many of them, decided once at the start (I21)."""

import resource
from dataclasses import dataclass

from bucketfront.errors import ConfigError

USED = 0.8  # of the limit, at most; what is left is for refusals, the admin port and what nobody foresaw
MAX_HOT = 4096  # open files of the cache beside those that answers are being sent from
MIN_HOT = 16
OTHERS = 64  # listeners, index, logs, threads at work on the disk, the resolver, credentials
MIN_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Shares:
    """`hot`: entries that the cache keeps open, a quarter more for a moment. `connections`: clients at one time."""

    hot: int
    connections: int


def raise_limit() -> None:
    """The soft limit becomes the hard one: what is below it is for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    """Descriptors that this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def shares(limit: int, origin_connections: int) -> Shares:
    """Raises ConfigError where hardly a client would have room.

    A client takes a socket, a second descriptor of it while a file is sent, and the file: one of the hot ones, unless
    there are more clients than those.
    """
    hot = max(MIN_HOT, min(MAX_HOT, limit // 8))
    room = int(limit * USED) - OTHERS - origin_connections
    connections = min((room - hot * 5 // 4) // 2, room // 3)
    if connections < MIN_CONNECTIONS:
        raise ConfigError(
            f"a limit of {limit} open files is too low for origin.max_connections = {origin_connections}: raise it"
            " (ulimit -n, LimitNOFILE=), or lower that"
        )
    return Shares(hot, connections)
