"""The leases that front ends hold, as the owner knows them.

Theory of operation
-------------------
A lease of the cache is granted to a front end with a copy of its descriptor. As soon as the cache revokes it, in the
same turn of the event loop, each holder gets REVOKE, and the entry is pinned until each has closed its copy. So its
space is not given back while a response is sent from it (docs/invariants.md#space-bound).

`settled` waits until the holders have acknowledged all that was revoked before. No response of the owner begins until
then. So what a purge, a write or a new version has replaced is served by no process once a client knows of it
(docs/invariants.md#all-processes-are-one). A holder that is lost, or was ended because it did not acknowledge in time,
serves nothing any more.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from bucketfront.cache import Cache, Lease
from bucketfront.front_end.facts import Facts, facts_of_lease, key_of
from bucketfront.front_end.message import Kind, Message

ACKNOWLEDGE_TIMEOUT_S = 2.0  # for a front end; its event loop is never held for that long

Send = Callable[[Message, tuple[int, ...]], None]


@dataclass(eq=False, slots=True)
class _Granted:
    """A lease with a number of its own. `holders` have a copy of its descriptor."""

    lease: Lease
    number: int
    holders: "set[Holder]" = field(default_factory=set)
    unpin: Callable[[], None] | None = None


class Holder:
    """A front end. `send` sends it a message, and `end` ends its process because it does not acknowledge."""

    def __init__(self, send: Send, end: Callable[[], None]) -> None:
        self.send = send
        self.end = end
        self.granted: dict[int, _Granted] = {}
        self.unacknowledged: OrderedDict[int, asyncio.TimerHandle] = OrderedDict()


class LeaseGrants:
    """All leases of all front ends. `clock` is the cache's."""

    def __init__(self, cache: Cache, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._clock = clock
        self._numbers = count(1)
        self._sequences = count(1)
        self._last_sequence = 0
        self._granted: dict[Lease, _Granted] = {}
        self._holders: set[Holder] = set()
        self._acknowledged = asyncio.Event()
        cache.bound.on_advance = lambda: self._send_bound(*self._holders)

    def join(self, holder: Holder) -> None:
        """Take a front end in. The bound of freshness comes to it before any lease."""
        self._holders.add(holder)
        self._send_bound(holder)

    def _send_bound(self, *holders: Holder) -> None:
        bound = self._cache.bound
        if math.isfinite(bound.grace):
            for holder in holders:
                holder.send(Message(Kind.IN_STEP, {"grace": bound.grace, "at": bound.in_step_at}), ())

    def leave(self, holder: Holder) -> None:
        """Forget a front end whose process has ended."""
        self._holders.discard(holder)
        for timer in holder.unacknowledged.values():
            timer.cancel()
        holder.unacknowledged.clear()
        for granted in list(holder.granted.values()):
            self._close(holder, granted)
        self._acknowledged.set()

    def want(self, holder: Holder, facts: Facts) -> None:
        """Grant a lease on a key, or deny it."""
        key = key_of(facts["key"])
        lease = self._cache.lease(key)
        if lease is None or holder not in self._holders:
            holder.send(Message(Kind.DENY, facts), ())
            return
        granted = self._granted.get(lease)
        if granted is None:
            granted = self._granted[lease] = _Granted(lease, next(self._numbers))
            self._cache.lend(lease, partial(self._revoked, granted))
        granted.holders.add(holder)
        holder.granted[granted.number] = granted
        grant = Message(Kind.GRANT, facts_of_lease(lease, granted.number), lease.body or b"")
        holder.send(grant, () if lease.body is not None else (lease.region.fd,))

    def gone(self, holder: Holder, facts: Facts) -> None:
        """Note that a front end has acknowledged a revocation."""
        timer = holder.unacknowledged.pop(facts["sequence"], None)
        if timer is not None:
            timer.cancel()
        self._acknowledged.set()

    def closed(self, holder: Holder, facts: Facts) -> None:
        """Note that a front end has no copy of a lease's descriptor any more."""
        granted = holder.granted.get(facts["number"])
        if granted is not None:
            self._close(holder, granted)

    def record_uses(self, holder: Holder, uses: list[tuple[int, int]]) -> None:
        """Note how often a front end has used its leases, by number."""
        now = self._clock()
        for number, times in uses:
            granted = holder.granted.get(number)
            if granted is not None:
                self._cache.record_uses(granted.lease, now, times)

    @property
    def is_settled(self) -> bool:
        return not any(holder.unacknowledged for holder in self._holders)

    async def settled(self) -> None:
        """Wait until all front ends have acknowledged what was revoked until now."""
        upto = self._last_sequence
        while self._is_due(upto):
            self._acknowledged.clear()
            await self._acknowledged.wait()

    def _is_due(self, upto: int) -> bool:
        return any(next(iter(holder.unacknowledged), upto + 1) <= upto for holder in self._holders)

    def _revoked(self, granted: _Granted, unpin: Callable[[], None]) -> None:
        """Tell the holders. The entry stays pinned until they have closed their copies."""
        granted.unpin = unpin
        del self._granted[granted.lease]
        loop = asyncio.get_running_loop()
        for holder in granted.holders:
            sequence = self._last_sequence = next(self._sequences)
            holder.unacknowledged[sequence] = loop.call_later(ACKNOWLEDGE_TIMEOUT_S, holder.end)
            holder.send(Message(Kind.REVOKE, {"number": granted.number, "sequence": sequence}), ())
        self._unpin_unused(granted)

    def _close(self, holder: Holder, granted: _Granted) -> None:
        del holder.granted[granted.number]
        granted.holders.discard(holder)
        self._unpin_unused(granted)

    def _unpin_unused(self, granted: _Granted) -> None:
        unpin = granted.unpin
        if unpin is not None and not granted.holders:
            granted.unpin = None
            unpin()
