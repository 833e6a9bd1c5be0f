"""The writes of one key change its object one after another, in the order in which they came.

Programs that write a playlist send its versions on new connections without waiting for responses (ffmpeg). If these
writes ran side by side, S3 could end with an old version. A write whose body has not arrived yet makes no other wait,
because its client may be slow. That holds also if the body goes to S3 while it arrives. S3 then decides which of the
two writes is the last one, as for any two that overlap.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from bucketfront.keys import ObjectKey

MAX_WAIT_S = 60.0  # for other writes of the key; S3 takes less for one call that succeeds

log = logging.getLogger(__name__)


def is_whole_already() -> bool:
    """Return True, for a write that needs nothing more of its client."""
    return True


class WritePlace:
    """One write in the order of each of its keys. `has_arrived` returns whether the client has sent all of it."""

    def __init__(self, keys: tuple[ObjectKey, ...], has_arrived: Callable[[], bool], order: "WriteOrder") -> None:
        self.keys = keys
        self.has_arrived = has_arrived
        self.is_writing = False
        self.ended = asyncio.Event()
        self._order = order

    async def turn(self) -> None:
        """Wait for other writes that have arrived, and that came earlier or change the objects already.

        Gives up after MAX_WAIT_S, because no wait is without a bound (docs/invariants.md#deadlines-everywhere).
        """
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                while (other := self._order.before(self)) is not None:
                    await other.ended.wait()
        except TimeoutError:
            log.warning("a write of %s goes on beside another that takes long", self.keys[0])
        self.is_writing = True


class WriteOrder:
    """The writes of all keys that are running."""

    def __init__(self) -> None:
        self._places: dict[ObjectKey, list[WritePlace]] = {}

    @contextmanager
    def place(
        self, keys: Iterable[ObjectKey], has_arrived: Callable[[], bool] = is_whole_already
    ) -> Iterator[WritePlace]:
        """Take the next place for a write, and keep it until the end of the block."""
        place = WritePlace(tuple(dict.fromkeys(keys)), has_arrived, self)
        for key in place.keys:
            self._places.setdefault(key, []).append(place)
        try:
            yield place
        finally:
            for key in place.keys:
                self._places[key].remove(place)
                if not self._places[key]:
                    del self._places[key]
            place.ended.set()

    def before(self, place: WritePlace) -> WritePlace | None:
        """Return a write that must end before `place` changes its objects. Returns None if there is none."""
        for key in place.keys:
            is_earlier = True
            for other in self._places[key]:
                if other is place:
                    is_earlier = False
                elif (other.is_writing or is_earlier) and other.has_arrived():
                    return other
        return None
