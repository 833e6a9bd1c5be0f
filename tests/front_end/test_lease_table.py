"""The leases of a front end: what it may use, when it lets go of it, and what the owner learns."""

import os
from pathlib import Path

import pytest

from bucketfront.cache import Lease, Region
from bucketfront.errors import StoreError
from bucketfront.front_end.facts import facts_of_lease
from bucketfront.front_end.lease_table import LeaseTable
from bucketfront.front_end.message import Kind, Message
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Span
from bucketfront.keys import ObjectKey


class Owner:
    """What a table has sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def kinds(self) -> list[Kind]:
        return [message.kind for message in self.messages]


class Granted:
    """A table with what the owner grants to it. `open_files` has the descriptors that it was given."""

    def __init__(self, folder: Path, limit: int = 10) -> None:
        self.folder = folder
        self.owner = Owner()
        self.table = LeaseTable(self.owner.messages.append, limit)
        self.descriptors: dict[int, int] = {}

    def grant(self, number: int, key: str, body: bytes = b"content", *, in_file: bool = True) -> Lease:
        path = self.folder / f"{number}"
        path.write_bytes(body)
        descriptor = self.descriptors[number] = os.open(path, os.O_RDONLY)
        lease = Lease(
            ObjectKey("b", key), 0, Metadata('"e"', len(body)), Region(descriptor, 0, len(body)), 0.0, 100.0, body
        )
        facts = facts_of_lease(lease, number)
        facts["key"] = list(facts["key"])
        self.table.grant(facts, b"" if in_file else body, (descriptor,) if in_file else ())
        if not in_file:
            os.close(descriptor)
        found = self.table.lease(ObjectKey("b", key))
        assert found is not None
        return found

    def revoke(self, number: int, sequence: int = 1) -> None:
        self.table.revoke({"number": number, "sequence": sequence})

    def is_open(self, number: int) -> bool:
        try:
            os.fstat(self.descriptors[number])
        except OSError:
            return False
        return True


@pytest.fixture
def granted(tmp_path: Path) -> Granted:
    return Granted(tmp_path)


def test_a_revoked_lease_is_gone_before_it_is_acknowledged(granted: Granted) -> None:
    """Once GONE is sent, no lookup finds the lease and its holder sees it invalid (I36)."""
    lease = granted.grant(7, "a")
    granted.revoke(7, sequence=3)
    assert not lease.is_valid
    assert granted.table.lease(lease.key) is None
    assert granted.owner.messages == [Message(Kind.CLOSED, {"number": 7}), Message(Kind.GONE, {"sequence": 3})]
    assert not granted.is_open(7)


def test_a_response_keeps_the_descriptor_of_a_revoked_lease(granted: Granted) -> None:
    """A response that has begun goes on from its descriptor, and the owner learns of its end, not before."""
    lease = granted.grant(7, "a")
    reader = granted.table.reader_of(lease)
    granted.revoke(7)
    assert (granted.owner.kinds(), granted.is_open(7)) == ([Kind.GONE], True)
    reader.close()
    reader.close()
    assert (granted.owner.kinds(), granted.is_open(7)) == ([Kind.GONE, Kind.CLOSED], False)


def test_the_least_recently_used_lease_makes_way(tmp_path: Path) -> None:
    """Of too many leases the one that was unused for longest is let go of, and the owner learns that."""
    granted = Granted(tmp_path, limit=2)
    first = granted.grant(1, "a")
    granted.grant(2, "b")
    granted.table.record_use(first, 0.0)
    assert granted.table.take_uses() == {1: 1}
    granted.grant(3, "c")
    assert [granted.is_open(number) for number in (1, 2, 3)] == [True, False, True]
    assert granted.owner.messages == [Message(Kind.CLOSED, {"number": 2})]


def test_a_revocation_of_a_lease_that_made_way_is_acknowledged(tmp_path: Path) -> None:
    """The owner awaits each acknowledgement, so it gets one also if the lease was let go of meanwhile."""
    granted = Granted(tmp_path, limit=1)
    granted.grant(1, "a")
    granted.grant(2, "b")
    granted.revoke(1, sequence=9)
    assert granted.owner.messages[-1] == Message(Kind.GONE, {"sequence": 9})


def test_another_lease_on_a_key_replaces_the_first(granted: Granted) -> None:
    """A newer grant takes the place of an older one, whose descriptor is closed."""
    first = granted.grant(1, "a")
    second = granted.grant(2, "a")
    assert (first.is_valid, second.is_valid) == (False, True)
    assert [granted.is_open(number) for number in (1, 2)] == [False, True]


def test_uses_are_summed_by_lease(granted: Granted) -> None:
    """The owner learns how often each lease was used, once."""
    first, second = granted.grant(1, "a"), granted.grant(2, "b", in_file=False)
    for lease in (first, second, first, first):
        granted.table.record_use(lease, 0.0)
    assert granted.table.take_uses() == {1: 3, 2: 1}
    assert granted.table.take_uses() == {}


def test_the_owner_is_asked_once_for_all_who_wait(granted: Granted) -> None:
    """Connections that want the same key share one WANT, and each goes on at the answer, also at a denial."""
    key, went_on = ObjectKey("b", "a"), list[int]()
    assert granted.table.lease(key) is None
    assert granted.table.take_wanted() == key
    assert granted.table.take_wanted() is None
    for number in range(3):
        granted.table.ask(key, lambda number=number: went_on.append(number))  # type: ignore[misc]
    assert granted.owner.messages == [Message(Kind.WANT, {"key": key})]
    granted.table.deny({"key": list(key)})
    assert went_on == [0, 1, 2]
    granted.table.ask(key, lambda: went_on.append(3))
    granted.grant(1, "a")
    assert (went_on[-1], granted.owner.kinds()) == (3, [Kind.WANT, Kind.WANT])


async def test_a_reader_reads_its_object(granted: Granted) -> None:
    """A reader of a lease gives the bytes of the object, and has StoreError for what the file does not have."""
    reader = granted.table.reader_of(granted.grant(1, "a", b"0123456789"))
    assert (await reader.readable(3), await reader.read(Span(2, 5))) == (10, b"234")
    await reader.load(Span(0, 10))
    (granted.folder / "1").write_bytes(b"01")
    with pytest.raises(EOFError):
        await reader.read(Span(2, 5))
    with pytest.raises(StoreError):
        reader.stream(Span(0, 1))
    reader.close()


def test_leases_end_by_themselves_while_the_owner_does_not_move_their_bound(granted: Granted) -> None:
    """A lease is stale once the bound of freshness has passed, and fresh again when the owner moves it (I7, I36)."""
    granted.table.take(Message(Kind.IN_STEP, {"grace": 10.0, "at": 0.0}), ())
    lease = granted.grant(1, "a")
    assert lease.ttl(9.0) > 0
    assert lease.ttl(10.0) <= 0
    granted.table.take(Message(Kind.IN_STEP, {"grace": 10.0, "at": 5.0}), ())
    assert lease.ttl(14.0) > 0
