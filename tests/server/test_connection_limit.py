"""Which connections are admitted, and which idle one makes way: fair shares of the places (I21, I34)."""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from rows import each_row

from bucketfront.server.access.networks import client_of
from bucketfront.server.http1 import connection_limit
from bucketfront.server.http1.connection_limit import MIN_IDLE_S, ConnectionLimit, ConnectionPlace, IdleOrder
from bucketfront.server.http1.connection_tally import ConnectionTally


@dataclass(eq=False)
class Guest:
    """A connection. `since` is when its last response ended, or None while it is busy."""

    since: float | None
    is_closed: bool = field(default=False)

    def idle_since(self) -> float | None:
        assert not self.is_closed
        return self.since

    def make_way(self) -> None:
        self.is_closed = True


@dataclass
class Crowd:
    """Connections at a limit of 16, of which one client may have 4. The last 2 places are for others."""

    now: float = 1000.0
    limit: ConnectionLimit = field(
        default_factory=lambda: ConnectionLimit(16, 0.25, has_share=lambda address: address != "127.0.0.1")
    )
    places: dict[Guest, ConnectionPlace] = field(default_factory=dict)

    def come(self, address: str, since: float | None) -> Guest | None:
        guest = Guest(since)
        place = self.limit.admit(address, guest, self.now)
        if place is None:
            return None
        self.places[guest] = place
        return guest

    def fill(self, address: str, count: int, since: float | None) -> list[Guest]:
        guests = [self.come(address, since) for _ in range(count)]
        self.now += 10
        return [guest for guest in guests if guest is not None]


def test_the_longest_idle_one_makes_way() -> None:
    """At the limit the connection goes that has been idle for the longest, whenever it was accepted."""
    crowd = Crowd()
    guests = [guest for number in range(16) if (guest := crowd.come(f"10.0.0.{number}", None)) is not None]
    crowd.now += 100
    order = random.Random(1).sample(guests, 16)
    for nth, guest in enumerate(order):
        guest.since = 1010.0 + nth
    for nth in range(1, 17):
        assert crowd.come(f"10.0.1.{nth}", None) is not None
        assert [guest.is_closed for guest in order] == [True] * nth + [False] * (16 - nth)
    assert (crowd.limit.open, crowd.limit.made_way) == (16, 16)


def test_busy_and_new_connections_stay() -> None:
    """A connection with a request, or one that has just ended a response, never makes way: the new one is refused."""
    crowd = Crowd()
    assert len(crowd.fill("127.0.0.1", 8, None)) == 8
    crowd.fill("127.0.0.1", 8, crowd.now + 10 - MIN_IDLE_S / 2)
    assert crowd.come("10.0.0.1", None) is None
    assert (crowd.limit.open, crowd.limit.refused, crowd.limit.made_way) == (16, 1, 0)
    crowd.now += MIN_IDLE_S
    assert crowd.come("10.0.0.1", None) is not None
    assert (crowd.limit.open, crowd.limit.refused, crowd.limit.made_way) == (16, 1, 1)


def test_a_client_beyond_its_share_goes_first() -> None:
    """Its idle connections make way before older ones of others, the most numerous client first."""
    crowd = Crowd()
    older = crowd.fill("10.0.0.1", 3, crowd.now)
    more = crowd.fill("10.0.0.2", 5, crowd.now)
    most = crowd.fill("10.0.0.3", 6, crowd.now)
    crowd.fill("10.0.0.4", 2, crowd.now)
    assert crowd.limit.open == 16
    for number in range(3):
        assert crowd.come(f"10.0.1.{number}", None) is not None
    assert not any(guest.is_closed for guest in older)
    assert sum(guest.is_closed for guest in most) == 2
    assert sum(guest.is_closed for guest in more) == 1
    assert crowd.come("10.0.1.3", None) is not None  # all have their share now, so the oldest one goes
    assert sum(guest.is_closed for guest in older) == 1


def test_the_last_places_are_for_others() -> None:
    """A client beyond its share gets none of the last places, and pushes out only its own idle connections."""
    crowd = Crowd()
    idle = crowd.fill("10.0.0.1", 2, crowd.now)
    assert len(crowd.fill("10.0.0.2", 16, None)) == 12
    assert (crowd.limit.open, crowd.limit.refused) == (14, 4)
    assert not any(guest.is_closed for guest in idle)
    for guest in list(crowd.places)[-3:]:
        guest.since = crowd.now - 5
    for _ in range(5):
        crowd.come("10.0.0.2", None)
    assert (crowd.limit.open, crowd.limit.refused, crowd.limit.made_way) == (14, 6, 3)
    assert len(crowd.fill("10.0.0.3", 3, None)) == 3  # two places, and one of the first client's
    assert [guest.is_closed for guest in idle] == [True, False]


def test_addresses_without_a_share() -> None:
    """A server in front on this machine may have all places, and its longest idle connection makes way for its own."""
    crowd = Crowd()
    guests = crowd.fill("127.0.0.1", 16, crowd.now)
    assert len(guests) == 16
    assert crowd.come("127.0.0.1", None) is not None
    assert [guest.is_closed for guest in guests] == [True] + [False] * 15


def test_a_place_is_left_once() -> None:
    """A connection that made way and then closes gives its place up once, and nothing of it stays."""
    crowd = Crowd()
    guests = crowd.fill("10.0.0.1", 14, crowd.now)
    assert crowd.come("10.0.0.2", None) is not None
    assert crowd.come("10.0.0.2", None) is not None
    assert crowd.come("10.0.0.2", None) is not None
    assert sum(guest.is_closed for guest in guests) == 1
    for place in (*crowd.places.values(), *crowd.places.values()):
        place.leave()
    assert crowd.limit.open == 0
    assert crowd.limit.most_connections() == ("", 0)
    assert not crowd.limit.make_room(crowd.now)


@each_row("seed", range(20))
def test_any_order(seed: int) -> None:
    """Among any uses, accepts and closes, the connection found is the longest idle one, and none is forgotten."""
    chance, order, members = random.Random(seed), IdleOrder(), set[Guest]()
    now = 0.0
    for _ in range(500):
        now += chance.random()
        match chance.randrange(5):
            case 0 | 1:
                guest = Guest(now)
                members.add(guest)
                order.add(guest, now)
            case 2 if members:
                chance.choice(sorted(members, key=id)).since = chance.choice((None, now))
            case 3 if members:
                guest = chance.choice(sorted(members, key=id))
                members.discard(guest)
                order.discard(guest)
            case _:
                idle = [guest.since for guest in members if guest.since is not None and guest.since <= now - MIN_IDLE_S]
                found = order.oldest(now)
                assert (None if found is None else found.idle_since()) == min(idle, default=None)
    assert len(order._heap) <= 2 * len(members) + connection_limit.MIN_HEAP + 1


def test_a_search_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search among very many connections ends early, and finds an idle one of those it saw (I22)."""
    monkeypatch.setattr(connection_limit, "MAX_STEPS", 10)
    order = IdleOrder()
    guests = [Guest(50.0 - number / 100) for number in range(100)]
    for guest in guests:
        order.add(guest, 0.0)
    found = order.oldest(100.0)
    assert found is guests[9]
    for guest in guests:
        guest.since = None
    assert order.oldest(100.0) is None


@each_row(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_client_by_its_address(address: str, name: str) -> None:
    """A host has a whole network of IPv6 addresses, so that network is one client."""
    assert client_of(address) == name


@pytest.fixture
def sharing() -> Iterator[list[ConnectionLimit]]:
    """The limits of three processes, which have 16 connections together."""
    tally = ConnectionTally.create()
    limits = [ConnectionLimit(16) for _ in range(3)]
    for slot, limit in enumerate(limits):
        limit.tally = ConnectionTally(tally.descriptor, slot)
    yield limits
    tally.close()


@pytest.mark.skipif(sys.platform != "linux", reason="front ends need Linux")
@pytest.mark.parametrize("seed", range(5))
def test_processes_share_a_limit(sharing: list[ConnectionLimit], seed: int) -> None:
    """The sum never exceeds the limit, and any process gets a place as long as there is one."""
    rng = random.Random(seed)
    places: list[ConnectionPlace] = []
    for _ in range(1000):
        if places and rng.random() < 0.45:
            places.pop(rng.randrange(len(places))).leave()
        else:
            place = rng.choice(sharing).admit("127.0.0.1", Guest(None), 0.0)
            assert (place is not None) == (len(places) < 16)
            places += [] if place is None else [place]
        assert {limit.total for limit in sharing} == {len(places)}


@pytest.mark.skipif(sys.platform != "linux", reason="front ends need Linux")
def test_a_connection_that_moves_keeps_its_place(sharing: list[ConnectionLimit]) -> None:
    """A full limit refuses no connection that was admitted before, and one that is relayed counts once."""
    front, owner, _ = sharing
    places = [front.admit("127.0.0.1", Guest(None), 0.0) for _ in range(16)]
    relayed = owner.adopt("127.0.0.1", Guest(None), 0.0, is_relayed=True)
    assert (owner.open, owner.total, front.total) == (1, 16, 16)
    relayed.leave()
    assert (owner.open, owner.total) == (0, 16)
    moved = owner.adopt("127.0.0.1", Guest(None), 0.0)
    assert places[0] is not None
    places[0].leave()
    assert (owner.open, front.total) == (1, 16)
    moved.leave()
    assert front.total == 15


@pytest.mark.skipif(sys.platform != "linux", reason="front ends need Linux")
def test_who_may_accept_at_the_limit(sharing: list[ConnectionLimit]) -> None:
    """At the limit only a process with an idle connection accepts at once. Below it each of them does."""
    busy, idle, empty = sharing
    assert busy.admit("127.0.0.1", Guest(None), 0.0) is not None
    for _ in range(14):
        assert idle.admit("127.0.0.1", Guest(0.0), 0.0) is not None
    assert all(limit.may_admit(MIN_IDLE_S) for limit in sharing)
    assert busy.admit("127.0.0.1", Guest(None), 0.0) is not None
    assert [limit.may_admit(MIN_IDLE_S) for limit in (busy, idle, empty)] == [False, True, False]


@pytest.mark.skipif(sys.platform != "linux", reason="front ends need Linux")
def test_processes_share_the_shares(sharing: list[ConnectionLimit]) -> None:
    """A client beyond its share at all processes together gets none of the last eighth at any, and others do (I34)."""
    for limit in sharing:
        limit.share_of_one = 0.25
    places = [sharing[number % 3].admit("192.0.2.1", Guest(None), 0.0) for number in range(30)]
    assert [place is not None for place in places] == [True] * 14 + [False] * 16
    assert sharing[0].admit("192.0.2.2", Guest(None), 0.0) is not None
    assert sharing[1].admit("192.0.2.2", Guest(None), 0.0) is not None
    assert sharing[2].admit("192.0.2.2", Guest(None), 0.0) is None
    for place in places[:11]:
        assert place is not None
        place.leave()
    for limit in sharing:
        assert limit.admit("192.0.2.1", Guest(None), 0.0) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="front ends need Linux")
def test_who_makes_way_for_another_process(sharing: list[ConnectionLimit]) -> None:
    """At the limit an idle connection of a client beyond its share makes way, which has its share at no process."""
    for limit in sharing:
        limit.share_of_one = 0.25
    old = [Guest(0.0) for _ in range(8)]
    for number, guest in enumerate(old):
        sharing[0].admit(f"192.0.2.{10 + number}", guest, 0.0)
    many = [Guest(1.0) for _ in range(6)]
    for number, guest in enumerate(many):
        sharing[number % 2].admit("192.0.2.1", guest, 1.0)
    for _ in range(2):
        sharing[2].admit("192.0.2.3", Guest(None), 1.0)
    assert sharing[0].total == 16
    assert sharing[0].admit("192.0.2.2", Guest(None), 10.0) is not None
    assert not any(guest.is_closed for guest in old)
    assert [guest.is_closed for guest in many].count(True) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="front ends need Linux")
def test_the_numbers_of_a_process_that_ended(sharing: list[ConnectionLimit]) -> None:
    """After the end of a process its connections take no place, neither of all nor of their client."""
    killed, other, owner = sharing
    for limit in sharing:
        limit.share_of_one = 0.25
    for _ in range(14):
        assert killed.admit("192.0.2.1", Guest(None), 0.0) is not None
    assert other.admit("192.0.2.1", Guest(None), 0.0) is None
    assert owner.tally is not None
    owner.tally.clear(0)
    assert other.total == 0
    assert all(other.admit("192.0.2.1", Guest(None), 0.0) is not None for _ in range(14))
