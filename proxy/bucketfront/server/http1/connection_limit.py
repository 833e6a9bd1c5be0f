"""Decides which connections there may be, and which idle one makes way for a new one.

Theory of operation
-------------------
A client is an address. In IPv6 it is the first 64 bits of one, because a host can use all addresses behind them.
Each may have its share of all connections. These are the rules for a new connection:

1. While there is room, it is admitted. A client beyond its share has less room: the last eighth is for other clients.
2. Without room, an idle connection makes way, the longest idle one of those that
   - the same client has, if it is beyond its share;
   - else the client with the most connections has, of those beyond their share;
   - else any client has.
3. Without an idle connection, the new one is refused.

A connection is idle if it awaits a request, and has done so for MIN_IDLE_S. So no response is cut. An address of this
machine has no share, because a server in front may stand for all clients.

With front ends several processes admit connections. They share the limit and the shares of clients by a
`ConnectionTally`. At the limit a process closes idle connections of its own alone. It knows a client to be beyond its
share by the connections that all processes had at the last change here. A connection that moves to another process is
admitted once.

No hit costs anything here. `IdleOrder` learns the time of a connection's last response only once it looks for the
longest idle one.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bucketfront.fair_share import RESERVED_PART, share_of
from bucketfront.server.access.networks import client_of
from bucketfront.server.http1.connection_tally import ConnectionTally

MIN_IDLE_S = 1.0  # a client between two requests of a page is not idle
MAX_STEPS = 1000  # of one search, about a millisecond (docs/invariants.md#cost-of-a-request)
MIN_HEAP = 16  # below it no heap is rebuilt


class Occupant(Protocol):
    """A connection that has a place."""

    def idle_since(self) -> float | None:
        """Return the loop's time since when the connection awaits a request. Returns None if it is busy."""

    def make_way(self) -> None:
        """Close the idle connection."""


class IdleOrder:
    """Connections, of which it finds the longest idle one.

    The heap has a time for each member, which is not later than that since when it is idle. `oldest` corrects the first
    one until it is right.
    """

    def __init__(self, min_idle: float | None = None) -> None:
        self._min_idle = min_idle
        self._members: set[Occupant] = set()
        self._heap: list[tuple[float, int, Occupant]] = []
        self._numbers = itertools.count()  # occupants cannot be compared

    def add(self, occupant: Occupant, now: float) -> None:
        self._members.add(occupant)
        heapq.heappush(self._heap, (now, next(self._numbers), occupant))

    def discard(self, occupant: Occupant) -> None:
        self._members.discard(occupant)
        if len(self._heap) > 2 * len(self._members) + MIN_HEAP:
            self._heap = [entry for entry in self._heap if entry[2] in self._members]
            heapq.heapify(self._heap)

    def oldest(self, now: float) -> Occupant | None:
        """Return the connection that is idle for the longest. Returns None if none has been for the least time.

        After MAX_STEPS it is the longest idle one of those seen.
        """
        best: tuple[float, Occupant] | None = None
        latest = now - (MIN_IDLE_S if self._min_idle is None else self._min_idle)
        for _ in range(MAX_STEPS):
            if not self._heap or self._heap[0][0] > latest:
                break
            noted, number, occupant = self._heap[0]
            if occupant not in self._members:
                heapq.heappop(self._heap)
                continue
            since = occupant.idle_since()
            if since == noted:
                return occupant
            if since is not None and since <= latest and (best is None or since < best[0]):
                best = since, occupant
            heapq.heapreplace(self._heap, (now if since is None else since, number, occupant))
        return None if best is None else best[1]


@dataclass(eq=False, slots=True)
class _Client:
    name: str
    has_share: bool
    order: IdleOrder
    count: int = 0
    relayed: int = 0  # of them; another process counts these
    bucket: int = 0  # its number in the tally, if there is one


class ConnectionPlace:
    """The place of one connection, until `leave` is called."""

    __slots__ = ("_leave", "client")

    def __init__(self, client: str, leave: Callable[[], None]) -> None:
        self.client = client
        self._leave: Callable[[], None] | None = leave

    def leave(self) -> None:
        """Give the place up. Further calls do nothing."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class ConnectionLimit:
    """At most `limit` connections are `open` at a time, of which one client has the share `share_of_one`, from 0 to 1.

    `refused` counts the connections that were rejected, and `leaving` of them are open. `made_way` counts idle ones
    that were closed for others. `has_share` is false for an address that may stand for many clients.
    A connection is idle if it awaits a request for `min_idle` seconds, or MIN_IDLE_S.
    """

    def __init__(
        self,
        limit: int,
        share_of_one: float = 1.0,
        has_share: Callable[[str], bool] = bool,
        min_idle: float | None = None,
    ) -> None:
        self.limit = limit
        self.share_of_one = share_of_one
        self.has_share = has_share
        self.open = 0
        self.relayed = 0  # of those that are open; another process counts them
        self.tally: ConnectionTally | None = None  # None if no other process has connections of this limit
        self.leaving = 0
        self.refused = 0
        self.made_way = 0
        self.is_draining = False  # each next response is the last one of its connection, because the proxy stops
        self._min_idle = min_idle
        self._order = IdleOrder(min_idle)
        self._clients: dict[str, _Client] = {}
        self._beyond: set[_Client] = set()  # those that have more than their share
        self._places: dict[Occupant, ConnectionPlace] = {}

    @property
    def total(self) -> int:
        """Return the number of open connections of all processes."""
        return self.open - self.relayed + (0 if self.tally is None else self.tally.others)

    def acquire(self) -> None:
        """Count a request that goes on without its connection."""
        self._count(1)

    def release(self) -> None:
        self._count(-1)

    def rejected(self) -> None:
        self.leaving += 1

    def rejected_closed(self) -> None:
        self.leaving -= 1

    def admit(self, address: str, occupant: Occupant, now: float) -> ConnectionPlace | None:
        """Return a place for a connection of the address, for which an idle one may make way.

        Returns None if the connection is refused.
        """
        client = self._client(address)
        has_its_share = client.has_share and self._connections_of(client) >= self._share
        room = self.limit - (self.limit // RESERVED_PART if has_its_share else 0)
        if not self._has_place(room) and not self._make_room(client.order if has_its_share else None, now):
            self.refused += 1
            return None
        return self._take(client, occupant, now)

    def adopt(self, address: str, occupant: Occupant, now: float, *, is_relayed: bool = False) -> ConnectionPlace:
        """Return a place for a connection that another process has admitted.

        One that `is_relayed` keeps its place there, and has none of its own among those of all processes.
        """
        client = self._client(address)
        if is_relayed:
            self.relayed += 1
        return self._take(client, occupant, now, is_relayed=is_relayed)

    def may_admit(self, now: float) -> bool:
        """Return whether there is room for a connection, or an idle one here could make way for it."""
        return self.total < self.limit or self._first_to_go(now) is not None

    def make_room(self, now: float) -> bool:
        """Close the idle connection that makes way first. Returns whether there was one."""
        return self._make_room(None, now)

    def close_idle(self, latest: float) -> int:
        """Close the connections that are idle since `latest` or longer. Return how many others have work."""
        busy = self.open - len(self._places)
        for occupant, place in list(self._places.items()):
            since = occupant.idle_since()
            if since is None:
                busy += 1
            elif since <= latest:
                place.leave()
                occupant.make_way()
        return busy

    def most_connections(self) -> tuple[str, int]:
        """Return the client with the most connections, and their number. For the log."""
        if not self._clients:
            return "", 0
        most = max(self._clients.values(), key=lambda client: client.count)
        return most.name, most.count

    @property
    def _share(self) -> int:
        """Return the number of connections that are the share of one client."""
        return max(1, share_of(self.limit, self.share_of_one))

    def _client(self, address: str) -> _Client:
        name = client_of(address)
        if (client := self._clients.get(name)) is None:
            bucket = 0 if self.tally is None else self.tally.bucket_of(name)
            client = _Client(name, self.has_share(address), IdleOrder(self._min_idle), bucket=bucket)
        return client

    def _connections_of(self, client: _Client) -> int:
        """Return how many connections a client has at all processes."""
        if self.tally is None:
            return client.count - client.relayed
        return self.tally.of_client(client.bucket)

    def _count_client(self, client: _Client, change: int, *, is_relayed: bool) -> None:
        client.count += change
        if is_relayed:
            client.relayed += change
        elif self.tally is not None:
            self.tally.count(client.bucket, change)

    def _has_place(self, room: int) -> bool:
        """Return whether there are fewer than `room` connections, with the others counted after this one is."""
        if self.tally is None:
            return self.open < room
        self.tally.publish(self.open - self.relayed + 1)
        if self.total < room:
            return True
        self.tally.publish(self.open - self.relayed)
        return False

    def _count(self, change: int) -> None:
        self.open += change
        if self.tally is not None:
            self.tally.publish(self.open - self.relayed)

    def _make_room(self, own: IdleOrder | None, now: float) -> bool:
        victim = self._first_to_go(now) if own is None else own.oldest(now)
        if victim is None:
            return False
        self.made_way += 1
        self._places[victim].leave()
        victim.make_way()
        return True

    def _first_to_go(self, now: float) -> Occupant | None:
        for client in sorted(self._beyond, key=lambda client: -client.count):
            if (victim := client.order.oldest(now)) is not None:
                return victim
        return self._order.oldest(now)

    def _take(self, client: _Client, occupant: Occupant, now: float, *, is_relayed: bool = False) -> ConnectionPlace:
        def leave() -> None:
            self.relayed -= is_relayed
            self._count_client(client, -1, is_relayed=is_relayed)
            self._count(-1)
            client.order.discard(occupant)
            self._order.discard(occupant)
            del self._places[occupant]
            if not client.count or self._connections_of(client) <= self._share:
                self._beyond.discard(client)
            if not client.count:
                del self._clients[client.name]

        self._count(1)
        self._count_client(client, 1, is_relayed=is_relayed)
        client.order.add(occupant, now)
        self._order.add(occupant, now)
        self._clients[client.name] = client
        if client.has_share and self._connections_of(client) > self._share:
            self._beyond.add(client)
        self._places[occupant] = place = ConnectionPlace(client.name, leave)
        return place
