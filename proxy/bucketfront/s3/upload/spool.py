"""What an upload requires of the file in which a body waits for S3: a small Protocol, so that `s3/` knows no cache."""

from collections.abc import AsyncIterator
from typing import Protocol


class Spool(Protocol):
    """The bytes of one body, in a file. `bucketfront.cache.Upload` implements it."""

    async def write(self, data: bytes) -> None:
        """Append `data`, or raise without appending any of it. What was written before stays readable.

        Raises StoreFull if there is no room until more was acknowledged, StoreError if the spool accepts no more.
        """

    def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes [start, stop) of the body, as they were written. They can be read again.

        Raises StoreError if the disk fails, or returns other bytes than were written.
        """

    async def acknowledge(self, start: int, stop: int) -> None:
        """Note that S3 has the bytes [start, stop), so that they are not read again on their way to it."""
