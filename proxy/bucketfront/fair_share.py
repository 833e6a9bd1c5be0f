"""Fair shares: how much of a limited resource one client may have (docs/invariants.md#fair-share).

Theory of operation
-------------------
A client is a name: its credential if an access rule knows one, else its address. None stands for work that is no
client's own, and for a local front that does not name its clients. It has no share.

These are the rules of `Shares`, for each limited resource alike:

1. While there is room, a client gets what it wants.
2. A client beyond its share has less room: the reserved part, an eighth by default, is for other clients.
3. A client that is refused by rule 2 alone has used up its share. Otherwise the whole resource is used up.

`FairShares` is the table of those resources from which a client is refused at once. It counts and reports refusals.
`FairSlots` lets clients wait by the same rules. `ConnectionLimit` applies them to connections. Idle
connections make way.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import NoReturn

from bucketfront.errors import ShareUsedUp, WholeUsedUp

RESERVED_PART = 8  # one in so many is for clients within their share
REPORT_INTERVAL_S = 60.0  # between two lines about one resource: a log of a day of attacks stays readable

Client = str | None

_CLIENT: ContextVar[Client] = ContextVar("client", default=None)


def current_client() -> Client:
    """Return the client for which the running task works. Tasks inherit it from the task that starts them."""
    return _CLIENT.get()


def act_for(client: Client) -> None:
    """Let the running task work for a client from now on, until the block of `acting_for` ends."""
    _CLIENT.set(client)


@contextmanager
def acting_for(client: Client) -> Iterator[None]:
    """Let the running task work for a client in the block. Tasks that the block starts inherit it."""
    token = _CLIENT.set(client)
    try:
        yield
    finally:
        _CLIENT.reset(token)


class Resource(Enum):
    """What clients have shares of. The values are labels of a metric."""

    REQUESTS = "requests"
    UPLOADS = "uploads"
    ORIGIN = "origin"
    DELETES = "deletes"
    RESUMABLE_UPLOADS = "resumable_uploads"
    UPLOAD_SPACE = "upload_space"


class UsedUp(Enum):
    """What is used up, so that a client gets none of a resource. The values are labels of a metric."""

    SHARE = "share"  # the client's own share, and the rest is for others
    WHOLE = "whole"  # the whole resource


def share_of(capacity: int, share_of_one: float) -> int:
    """Return how many units of a resource are the share of one client."""
    return max(1, int(capacity * share_of_one))


class Shares:
    """How much each client has of one resource. `capacity` is the whole, and `share_of_one` is from 0 to 1.

    One in `reserved_part` units is for clients within their share.
    """

    def __init__(self, capacity: int, share_of_one: float = 1.0, reserved_part: int = RESERVED_PART) -> None:
        self.capacity = capacity
        self.share_of_one = share_of_one
        self.reserved_part = reserved_part
        self.used = 0
        self._counts: dict[str, int] = {}

    @property
    def share(self) -> int:
        """Return how many units are the share of one client."""
        return share_of(self.capacity, self.share_of_one)

    def of(self, client: Client) -> int:
        """Return how many units a client has."""
        return 0 if client is None else self._counts.get(client, 0)

    def is_beyond(self, client: Client, count: int = 0) -> bool:
        """Return whether a client has more than its share, or would have it with `count` more."""
        return client is not None and self._counts.get(client, 0) + count > self.share

    def refusal(self, client: Client, count: int = 1) -> UsedUp | None:
        """Return why a client may not take `count` more units. Returns None if it may."""
        left = self.capacity - self.used
        if self.is_beyond(client, count) and left - self._reserved < count:
            return UsedUp.SHARE
        return UsedUp.WHOLE if left < count else None

    def take(self, client: Client, count: int = 1) -> None:
        """Count units that a client takes, also beyond the capacity. Callers that can refuse check `refusal` before."""
        self.used += count
        if client is not None and count:
            self._counts[client] = self._counts.get(client, 0) + count

    def give_back(self, client: Client, count: int = 1) -> None:
        """Count units that the client has no longer."""
        assert count <= self.used, f"gave back {count} of {self.used}"
        self.used -= count
        if client is not None and count:
            left = self._counts[client] - count
            assert left >= 0, f"gave back {-left} more than was taken"
            if left:
                self._counts[client] = left
            else:
                del self._counts[client]

    @property
    def clients(self) -> Mapping[str, int]:
        """Return the clients that have any units, each with their number."""
        return self._counts

    @property
    def _reserved(self) -> int:
        # Of the smallest numbers one is reserved as well, because no client may have the whole.
        return max(self.capacity // self.reserved_part, 1 if self.capacity > 1 else 0)


class FairShares:
    """The resources of which a client is refused at once, by their names, and the count of all refusals.

    `clock` is monotonic, in seconds. `report` takes a line for the operator.
    """

    def __init__(
        self, shares: Mapping[Resource, Shares], clock: Callable[[], float], report: Callable[[str], None]
    ) -> None:
        self.shares = shares
        self._clock = clock
        self._report = report
        self._reported_at: dict[Resource, float] = {}
        self._unreported = dict.fromkeys(Resource, 0)
        self.refused = {(resource, refusal): 0 for resource in Resource for refusal in UsedUp}

    def take(self, resource: Resource, client: Client, count: int = 1) -> "ResourcePlace":
        """Take units of a resource until the caller leaves the place. Raises ShareUsedUp, WholeUsedUp."""
        self.check(resource, client, self.shares[resource], count)
        place = ResourcePlace(self.shares[resource], client)
        place.grow(count)
        return place

    def check(self, resource: Resource, client: Client, shares: Shares, count: int = 1) -> None:
        """Raise ShareUsedUp or WholeUsedUp if a client may not take `count` more. Without a share it always may."""
        if client is None:
            return
        refusal = shares.refusal(client, count)
        if refusal is not None:
            self.refuse(resource, client, refusal)

    def refuse(self, resource: Resource, client: Client, refusal: UsedUp) -> NoReturn:
        """Count and report a refusal, and raise ShareUsedUp or WholeUsedUp."""
        self.refused[resource, refusal] += 1
        self._unreported[resource] += 1
        now, before = self._clock(), self._reported_at.get(resource)
        if before is None or now - before >= REPORT_INTERVAL_S:
            self._reported_at[resource] = now
            number, self._unreported[resource] = self._unreported[resource], 0
            many = "" if number == 1 else f"; {number} requests were refused since the last line of this kind"
            name = "a client without a share" if client is None else f"the client {client!a}"
            self._report(f"{name} is refused: {_REASONS[refusal].format(_NAMES[resource])}{many}")
        kind = ShareUsedUp if refusal is UsedUp.SHARE else WholeUsedUp
        raise kind(_REASONS[refusal].format(_NAMES[resource]), resource.value)


_NAMES = {
    Resource.REQUESTS: "requests at once",
    Resource.UPLOADS: "uploads at once",
    Resource.ORIGIN: "requests that wait for the origin",
    Resource.DELETES: "DeleteObjects at once",
    Resource.RESUMABLE_UPLOADS: "unfinished resumable uploads",
    Resource.UPLOAD_SPACE: "space for uploads",
}
_REASONS = {UsedUp.SHARE: "its share of {} is used up", UsedUp.WHOLE: "there is no room for more {}"}


class ResourcePlace:
    """The units of a resource that one request has, until it calls `leave`."""

    __slots__ = ("_client", "_count", "_shares")

    def __init__(self, shares: Shares, client: Client) -> None:
        self._shares = shares
        self._client = client
        self._count = 0

    def grow(self, count: int) -> None:
        self._shares.take(self._client, count)
        self._count += count

    def leave(self) -> None:
        """Give everything back. Further calls do nothing."""
        count, self._count = self._count, 0
        if count:
            self._shares.give_back(self._client, count)
