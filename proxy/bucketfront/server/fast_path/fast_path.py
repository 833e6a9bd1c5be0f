"""What all connections of a listener share to serve plain hits, and what they need of the rooms around."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bucketfront.cache import Lease
from bucketfront.server.client_address import ClientAddresses
from bucketfront.server.fast_path.prepared import LeaseFinder, PreparedSource
from bucketfront.server.fast_path.recogniser import PlainRequest
from bucketfront.server.send.sender import BodyReader
from bucketfront.server.telemetry.access_log import AccessRecord
from bucketfront.server.telemetry.logged_fields import NOTHING, LoggedFields


class HitRecorder(Protocol):
    """What counts and logs the responses. `Telemetry` is the implementation in the process that has the cache."""

    def add(
        self, record: AccessRecord, sent: int, client: str, at: float, seconds: float, fields: LoggedFields = NOTHING
    ) -> None:
        """Add one request that ended `at` (seconds since the epoch)."""


class LeaseSource(LeaseFinder, Protocol):
    """The part of the cache that the fast path uses."""

    def record_use(self, lease: Lease, now: float) -> None: ...

    def reader_of(self, lease: Lease) -> BodyReader: ...


@dataclass(frozen=True, slots=True)
class PlainRules:
    """The parts of the fast path that depend on the settings. `addresses` finds the clients behind fronts.

    With `remembers` a head that equals the last one of its connection is not recognised again.
    """

    recognise: Callable[[bytes], PlainRequest | None]
    prepared: PreparedSource
    addresses: ClientAddresses
    remembers: bool = True


class FastPath:
    """What all connections of the listener share. `served` counts the responses that began here.

    `clock` is the cache's time, and `wall` is wall time in seconds since the epoch. It recognises no request before
    `adopt` has given it rules.
    """

    prepared: PreparedSource
    addresses: ClientAddresses
    remembers: bool

    def __init__(
        self, cache: LeaseSource, telemetry: HitRecorder, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.recognise: Callable[[bytes], PlainRequest | None] = _recognise_none
        self.cache = cache
        self.telemetry = telemetry
        self.clock = clock
        self.wall = wall
        self.served = 0

    @property
    def is_on(self) -> bool:
        return self.recognise is not _recognise_none

    def adopt(self, rules: PlainRules | None) -> None:
        """Serve the requests that begin from now on by these rules, or leave all of them to aiohttp.

        Drops the prepared responses of the rules before. Each hit reads these attributes, so they are not behind one
        more reference.
        """
        if rules is None:
            self.recognise = _recognise_none
            return
        self.recognise, self.prepared, self.addresses = rules.recognise, rules.prepared, rules.addresses
        self.remembers = rules.remembers


def _recognise_none(_: bytes) -> PlainRequest | None:
    """Leave each request to aiohttp."""
    return None
