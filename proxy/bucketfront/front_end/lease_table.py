"""The leases that a front end has, and what it asks the owner for others.

Theory of operation
-------------------
The table stands where the cache stands in the owner: the fast path asks it for a lease on a key. A key without one is
noted as `wanted`. Then the connection has the owner asked, and waits for GRANT or DENY. A lease ends by REVOKE, or
because it is the least recently used one of too many.

REVOKE is acknowledged in the same turn of the event loop, in which no response can begin any more. A response that has
begun goes on from its own descriptor. The owner learns of the last one's end by CLOSED, because only then the file's
space is free (docs/invariants.md#space-bound).
"""

import asyncio
import os
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass

from bucketfront.cache import Absence, FreshnessBound, Lease, Region, page_cache
from bucketfront.errors import StoreError
from bucketfront.front_end.facts import Facts, key_of, lease_of
from bucketfront.front_end.message import Kind, Message
from bucketfront.http.metadata import Metadata
from bucketfront.http.ranges import Demand, Span
from bucketfront.keys import ObjectKey

Send = Callable[[Message], None]


@dataclass(eq=False, slots=True)
class _Held:
    """A lease, and how many responses use its descriptor beside the table."""

    lease: Lease
    readers: int = 0


class LeaseTable:
    """All leases of a front end, at most `limit`. `send` sends a message to the owner."""

    def __init__(self, send: Send, limit: int) -> None:
        self._send = send
        self._limit = limit
        self._by_key: OrderedDict[ObjectKey, _Held] = OrderedDict()
        self._by_number: dict[int, _Held] = {}
        self._waiting: defaultdict[ObjectKey, list[Callable[[], None]]] = defaultdict(list)
        self._uses: dict[int, int] = {}
        self.wanted: ObjectKey | None = None
        self._bound = FreshnessBound()

    def __len__(self) -> int:
        return len(self._by_key)

    # --- what the fast path asks ---------------------------------------------------------------------------

    def lease(self, key: ObjectKey) -> Lease | None:
        """Return the lease on a key. Returns None, and notes the key as `wanted`, if there is none."""
        held = self._by_key.get(key)
        if held is not None:
            return held.lease
        self.wanted = key
        return None

    def absence(self, key: ObjectKey) -> Absence | None:  # noqa: ARG002 - as the cache has it
        """Return None, because only the owner knows the origin's 404s."""
        return None

    def record_use(self, lease: Lease, now: float) -> None:  # noqa: ARG002 - the owner gets uses in batches
        number = lease.entry_id
        self._uses[number] = self._uses.get(number, 0) + 1

    def reader_of(self, lease: Lease) -> "LeaseReader":
        """Return a reader for a response that takes more than this turn of the event loop. Close it."""
        held = self._by_number[lease.entry_id]
        held.readers += 1
        return LeaseReader(lease, lambda: self._release(held))

    # --- what the connections ask --------------------------------------------------------------------------

    def take_wanted(self) -> ObjectKey | None:
        """Return the key for which a lease was missing since the last call."""
        wanted, self.wanted = self.wanted, None
        return wanted

    def ask(self, key: ObjectKey, then: Callable[[], None]) -> None:
        """Ask the owner for a lease, once for all who wait for it. Calls `then` once it has answered."""
        waiting = self._waiting[key]
        waiting.append(then)
        if len(waiting) == 1:
            self._send(Message(Kind.WANT, {"key": key}))

    # --- what the owner sends ------------------------------------------------------------------------------

    def take(self, message: Message, descriptors: tuple[int, ...]) -> None:
        """Take a message about leases."""
        facts = dict(message.facts)
        match message.kind:
            case Kind.GRANT:
                self.grant(facts, bytes(message.data), descriptors)
            case Kind.DENY:
                self.deny(facts)
            case Kind.REVOKE:
                self.revoke(facts)
            case Kind.IN_STEP:
                self.in_step(facts)

    def grant(self, facts: Facts, data: bytes, descriptors: tuple[int, ...]) -> None:
        lease = lease_of(facts, descriptors[0] if descriptors else -1, None if descriptors else data, self._bound)
        if (before := self._by_key.get(lease.key)) is not None:
            self._drop(before)
        held = self._by_number[lease.entry_id] = self._by_key[lease.key] = _Held(lease)
        while len(self._by_key) > self._limit:
            self._drop(next(iter(self._by_key.values())))
        assert held.lease.is_valid
        self._answer(lease.key)

    def in_step(self, facts: Facts) -> None:
        """Move the bound of freshness of all leases, which does not move if the owner stands still."""
        self._bound.grace = facts["grace"]
        self._bound.advance(facts["at"])

    def deny(self, facts: Facts) -> None:
        self._answer(key_of(facts["key"]))

    def revoke(self, facts: Facts) -> None:
        """End a lease, and acknowledge that. Does the latter also if the table has dropped it meanwhile."""
        held = self._by_number.get(facts["number"])
        if held is not None and held.lease.is_valid:
            self._drop(held)
        self._send(Message(Kind.GONE, {"sequence": facts["sequence"]}))

    def take_uses(self) -> dict[int, int]:
        """Return how often each lease was used since the last call, by number. Keeps those for longest."""
        uses, self._uses = self._uses, {}
        for number in uses:
            held = self._by_number.get(number)
            if held is not None and held.lease.is_valid:
                self._by_key.move_to_end(held.lease.key)
        return uses

    def close(self) -> None:
        """End all leases. Responses that have begun go on."""
        for held in list(self._by_key.values()):
            self._drop(held)

    def _answer(self, key: ObjectKey) -> None:
        for then in self._waiting.pop(key, ()):
            then()

    def _drop(self, held: _Held) -> None:
        del self._by_key[held.lease.key]
        held.lease.revoke()
        if not held.readers:
            self._close(held)

    def _release(self, held: _Held) -> None:
        held.readers -= 1
        if not held.readers and not held.lease.is_valid:
            self._close(held)

    def _close(self, held: _Held) -> None:
        number, descriptor = held.lease.entry_id, held.lease.region.fd
        del self._by_number[number]
        if descriptor >= 0:
            os.close(descriptor)
        self._send(Message(Kind.CLOSED, {"number": number}))


class LeaseReader:
    """The reader of a response that takes longer. Everything of the object is in the file, and verified."""

    def __init__(self, lease: Lease, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release
        self.metadata: Metadata = lease.metadata
        self.region: Region | None = lease.region

    def expect(self, span: Span, demand: Demand = Demand.BOUNDED) -> None:
        """Do nothing: there is nothing to fetch."""

    def announce_later(self, spans: Iterable[Span]) -> None:
        """Do nothing, as `expect`."""

    async def readable(self, offset: int) -> int:  # noqa: ARG002 - as a reader of the cache has it
        return self.metadata.size

    def held(self, span: Span) -> int:
        """Return how many bytes of the span the cache had."""
        return span.length

    def note_sent(self, span: Span) -> None:
        """Do nothing: the owner learns of the hit."""

    def is_sound(self, span: Span) -> bool:  # noqa: ARG002 - as above
        return True

    async def load(self, span: Span) -> None:
        """Read these bytes of the file into the page cache. Raises StoreError."""
        region = self.region
        assert region is not None
        try:
            await asyncio.to_thread(page_cache.read_in, region.fd, region.locate(span))
        except OSError as error:
            raise StoreError(f"a file of the cache is unreadable: {error.strerror}") from error

    async def read(self, span: Span) -> bytes:
        """Return these bytes of the file. Raises StoreError, and EOFError if the file is shorter."""
        region = self.region
        assert region is not None
        try:
            found = await asyncio.to_thread(os.pread, region.fd, span.length, region.offset + span.start)
        except OSError as error:
            raise StoreError(f"a file of the cache is unreadable: {error.strerror}") from error
        if len(found) != span.length:
            raise EOFError("a file of the cache is shorter than its object")
        return found

    def stream(self, span: Span, *, continues: bool = False) -> AsyncGenerator[bytes, None]:  # noqa: ARG002 - as above
        """Raise StoreError, because a front end fetches nothing: a response whose file fails is cut."""
        raise StoreError("the file of a response failed in a front end")

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
