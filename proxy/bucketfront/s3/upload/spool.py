"""What an upload needs of the place where a body waits for S3: a small Protocol, so that it never sees the cache."""

from collections.abc import AsyncIterator
from typing import Protocol


class Spool(Protocol):
    """The bytes of one body, in a file. `bucketfront.cache.Upload` is the real one."""

    async def write(self, data: bytes) -> None:
        """Append. Raises StoreFull: there is no room now, there may be some once more was acknowledged; StoreError: the
        spool takes no more. Either way nothing of `data` is in it, and what was written before can still be read.
        """

    def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes [start, stop) of the body, in pieces, as they were written. May be asked for again.

        Raises StoreError: the disk failed, or has other bytes than it was given.
        """

    async def acknowledge(self, start: int, stop: int) -> None:
        """S3 has these bytes: nobody will read them again on the way to it."""
