"""What is watched because it does not report to the troubles by itself: the circuit breaker, the disk, the logs."""

from collections.abc import Iterator

from bucketfront.admin.health import Watch
from bucketfront.cache import CacheAssembly
from bucketfront.fleet.fleet import Fleet
from bucketfront.s3.client import S3Origin
from bucketfront.server.telemetry.telemetry import Telemetry
from bucketfront.troubles import Kind, Reason

_OUTAGE = Kind(
    Reason.ORIGIN_UNREACHABLE,
    "circuit-breaker",
    "the origin kept failing, so it gets a probe now and then only, and what is not cached fails at once",
    "the origin works again",
    what_failed="requests were not sent",
)
_DISK = Kind(
    Reason.DISK_FAILING,
    "disk",
    "the cache folder fails, and requests go on uncached; check the disk of cache.dir",
    "the cache folder works again",
    what_failed="calls failed",
)
_INODES = Kind(
    Reason.INODES_USED_UP,
    "inodes",
    "the file system of cache.dir has hardly an inode left, so new objects displace others or pass through; remove"
    " small files there, or move cache.dir to a file system with more inodes",
    "the file system of cache.dir has inodes again",
    what_failed="files were refused",
)
_INDEX = Kind(
    Reason.INDEX_FAILING,
    "index",
    "the cache's index cannot be written, so a restart would lose what is new in the cache",
    "the cache's index is written again",
    what_failed="writes failed",
)
_ACCESS_LOG = Kind(
    Reason.ACCESS_LOG_FAILING,
    "access-log",
    "the access log loses lines",
    "the access log loses no more lines",
    what_failed="lines were lost",
    has_own_warning=True,
)


_BUS = Kind(
    Reason.BUS_UNREACHABLE,
    "bus",
    "the bus cannot be read, so changes on other proxies may be missed, and objects are fresh for bus.ttl_when_lost",
    "the bus is read again",
)
_BUS_REGISTERING = Kind(
    Reason.BUS_UNREACHABLE,
    "bus-register",
    "this proxy is not in the register of the bus, so purges that wait do not wait for it",
    "this proxy is in the register of the bus again",
)
_BUS_SENDING = Kind(
    Reason.BUS_UNREACHABLE,
    "bus-sending",
    "the bus takes nothing, so other proxies learn later of what is written and purged here",
    "the bus takes notices again",
)


def watches(
    origin: S3Origin, assembly: CacheAssembly, telemetry: Telemetry, fleet: Fleet | None = None
) -> Iterator[Watch]:
    """Yield all watches of a running proxy."""
    store, flusher = assembly.store, assembly.flusher
    yield Watch(
        _OUTAGE,
        lambda: origin.breaker.refused,
        lambda: origin.breaker.last_error,
        lambda: origin.breaker.is_open,
    )
    yield Watch(_DISK, lambda: store.failures, lambda: store.last_failure, lambda: not store.is_usable)
    budget = assembly.entries.budget
    yield Watch(
        _INODES,
        lambda: 0,
        lambda: f"{budget.free_inodes:,} of {budget.inodes:,} are free",
        lambda: budget.lacks_inodes,
    )
    yield Watch(_INDEX, lambda: 0, lambda: store.last_failure, lambda: flusher.has_failed)
    yield Watch(_ACCESS_LOG, lambda: telemetry.lines_lost, lambda: "lines are lost")
    if fleet is not None:
        yield Watch(_BUS, lambda: 0, lambda: fleet.reading_failure, lambda: bool(fleet.reading_failure))
        yield Watch(
            _BUS_REGISTERING,
            lambda: 0,
            lambda: fleet.registering_failure,
            lambda: bool(fleet.registering_failure and not fleet.reading_failure),
        )
        yield Watch(_BUS_SENDING, lambda: 0, lambda: fleet.sending_failure, lambda: bool(fleet.sending_failure))
