"""Reads the bus on from the node's position, and applies what other nodes have announced.

Theory of operation
-------------------
Each entry of the stream has a number: how many had been added before it. So a node that has read to its position knows
how many entries must follow until the end. If fewer are there, some were trimmed, deleted, flushed or lost with the
server, and the node has missed notices. Then all that it has counts as stale, and it goes on at the end. The same holds
if the stream ends before the position, as after the restore of an old dump.

When the end is reached, all changes until the read was sent are known here. `FreshnessBound.advance` notes that time,
so that no failure of this module can leave anything fresh for longer than `bus.ttl_when_lost`.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bucketfront.cache import Cache
from bucketfront.errors import StoreError
from bucketfront.fleet.bus import Batch, Bus, EntryId, Position, StreamEntry
from bucketfront.fleet.notice import Notice, Signal, UnreadableNotice, decoded, encoded, merged

END = EntryId((1 << 63) - 1, 0)  # behind every entry

log = logging.getLogger(__name__)


def continues(position: Position, batch: Batch) -> bool:
    """Return whether the entries of a batch are all that was added behind a position, as far as the batch goes."""
    behind = batch.end.added - position.added
    if batch.end.at < position.at:
        return False
    return behind == len(batch.entries) if batch.is_last else behind > len(batch.entries)


@dataclass(slots=True)
class FollowerFigures:
    """Counts since the start."""

    received: int = 0  # notices of other nodes
    applied: int = 0
    unreadable: int = 0  # notices of other releases, and malformed ones
    foreign: int = 0  # entries of other programs
    gaps: int = 0  # times that notices were missed


class Follower:
    """Follows the stream for one cache. `sender` is the name under which this process adds to it."""

    def __init__(self, bus: Bus, cache: Cache, sender: str, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._cache = cache
        self._sender = sender
        self._clock = clock
        self._must_expire = False  # something could not be applied
        self.position: Position | None = None
        self.gap_at = -math.inf  # the time of the last gap, by the clock
        self.figures = FollowerFigures()

    @property
    def is_certain(self) -> bool:
        """Return whether all notices up to the position are applied, so that a restart may go on from there."""
        return self.position is not None and not self._must_expire

    async def step(self, acknowledge: Callable[[], Awaitable[None]]) -> bool:
        """Read and apply one batch. Returns whether it was the last one. Raises BusError.

        `acknowledge` is called once the position is behind a request for it.
        """
        asked_at = self._clock()
        batch = await self._bus.read(END if self.position is None else self.position.at)
        if not batch.end.added:  # the first entry makes the numbers certain: see `continues`
            await self._bus.append(self._sender, list(encoded(Signal.ACKNOWLEDGE)))
            return False
        if self.position is None or not continues(self.position, batch):
            self._begin_anew(batch)
            notices: list[Notice] = []
        else:
            notices = self._notices(batch)
            await self._apply(notices)
            last = batch.entries[-1].at if batch.entries else self.position.at
            self.position = Position(last, self.position.added + len(batch.entries))
        await self._expire_if_due()
        is_last = batch.is_last or (not notices and self.position == batch.end)
        if is_last and self.is_certain:
            self._cache.bound.advance(asked_at)
        if Signal.ACKNOWLEDGE in notices and self.is_certain:
            await acknowledge()
        return is_last

    def _begin_anew(self, batch: Batch) -> None:
        """Go on at the end of the stream, and have all that is cached revalidated."""
        if self.position is not None:
            self.figures.gaps += 1
            self.gap_at = self._clock()
            log.warning(
                "the bus has lost notices that this proxy has not read, so all that it has cached is stale"
                " and is revalidated before it is served"
            )
        self.position = batch.end
        self._must_expire = True

    def _notices(self, batch: Batch) -> list[Notice]:
        """Return what other nodes have announced. All is stale at most once, and after all else."""
        found = [notice for entry in batch.entries if (notice := self._notice(entry)) is not None]
        self.figures.received += len(found)
        rest: list[Notice] = [notice for notice in found if notice is not Signal.EVERYTHING_STALE]
        return rest if len(rest) == len(found) else [*rest, Signal.EVERYTHING_STALE]

    def _notice(self, entry: StreamEntry) -> Notice | None:
        """Return the notice of an entry. Returns None for one of this process or of another program."""
        if entry.notice is None or entry.sender is None:
            self.figures.foreign += 1
            log.info("the entry %s of the bus is of no bucketfront, and is skipped", entry.at)
            return None
        try:
            notice = decoded(entry.notice)
        except UnreadableNotice as error:
            self.figures.unreadable += 1
            log.warning("the notice %s cannot be read, so all that is cached is stale: %s", entry.at, error)
            return Signal.EVERYTHING_STALE
        return None if entry.sender == self._sender and notice is not Signal.ACKNOWLEDGE else notice

    async def _apply(self, notices: list[Notice]) -> None:
        for notice in merged(notices):
            if notice is Signal.EVERYTHING_STALE:
                self._must_expire = True
            elif not isinstance(notice, Signal):
                try:
                    await self._cache.apply(notice)
                except StoreError as error:
                    log.warning("the disk refused what another proxy has announced: %s", error)
                    self._must_expire = True
                except Exception:  # no notice may stop the reader; all is stale instead
                    log.exception("a notice of another proxy could not be applied")
                    self._must_expire = True
        self.figures.applied += len(notices)

    async def _expire_if_due(self) -> None:
        if not self._must_expire:
            return
        try:
            await self._cache.expire_everything()
        except StoreError as error:
            # Memory takes all for stale. A restart reads on from the position before, which is the one on disk.
            log.warning("the disk refused to note that all that is cached is stale: %s", error)
        else:
            self._must_expire = False
