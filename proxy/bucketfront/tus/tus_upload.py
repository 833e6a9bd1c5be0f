"""A resumable upload in memory: what S3 has of it, what is staged for the next part, and which request holds it."""

import asyncio
from collections.abc import AsyncIterator

from zlib_ng import zlib_ng

from bucketfront.keys import ObjectKey
from bucketfront.tus.record import Record
from bucketfront.tus.refusals import TakenOver


class TusUpload:
    """An upload, of which one request at a time may change anything.

    Of the next part, the first `in_file` bytes are in its file, and their CRC-32 is `checksum`. The bytes in
    `in_memory` follow them: the disk refused those.
    """

    def __init__(self, name: str, record: Record, in_file: int = 0, checksum: int = 0) -> None:
        self.id = name
        self.record = record
        self.in_file = in_file
        self.in_memory = bytearray()
        self.checksum = checksum
        self.charged = 0  # bytes taken from the budget, for the record
        self.is_busy = False
        self.is_free = asyncio.Event()  # set when a request has released the upload
        self._receive_timeout: asyncio.Timeout | None = None  # while a request waits for bytes
        self._receives_since = 0.0

    def __repr__(self) -> str:
        # The id is left out, because everyone that has it may write to the upload (docs/invariants.md#secrets-stay-in).
        return f"<TusUpload of {self.key}: {self.offset} of {self.length} bytes>"

    @property
    def key(self) -> ObjectKey:
        return self.record.key

    @property
    def length(self) -> int:
        return self.record.length

    @property
    def staged(self) -> int:
        """Return how many bytes are here and not at S3."""
        return self.in_file + len(self.in_memory)

    @property
    def room(self) -> int:
        """Return how many bytes the next part still takes."""
        return min(self.record.part_size, self.length - self.record.sent) - self.staged

    @property
    def offset(self) -> int:
        """Return how many bytes of the upload are at S3 or here."""
        return self.record.sent + self.staged

    @property
    def is_whole(self) -> bool:
        """Return whether all bytes are at S3 or here. `etag` shows whether S3 has made an object of them."""
        return self.offset == self.length

    @property
    def etag(self) -> str | None:
        """Return the ETag of the object, or None until it is made."""
        return self.record.etag

    def add(self, data: bytes, *, in_file: bool) -> None:
        """Count `data` as the next bytes of the next part."""
        assert len(data) <= self.room
        if in_file:
            assert not self.in_memory, "bytes would change places"
            self.in_file += len(data)
            self.checksum = zlib_ng.crc32(data, self.checksum)
        else:
            self.in_memory += data

    def clear(self) -> None:
        """Count the staged bytes as gone: to S3, or lost."""
        self.in_file, self.checksum = 0, 0
        self.in_memory = bytearray()

    async def receive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield `chunks`, until `interrupt` is called. Raises TakenOver then."""
        clock = asyncio.get_running_loop().time
        while True:
            self._receives_since = clock()
            try:
                async with asyncio.timeout(None) as self._receive_timeout:
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise TakenOver("another request went on with this upload") from None
            finally:
                self._receive_timeout = None
            if chunk is None:
                return
            yield chunk

    @property
    def stalled_s(self) -> float:
        """Return for how many seconds the request that holds the upload has waited for a byte, 0 if it does not."""
        if self._receive_timeout is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._receives_since

    def interrupt(self) -> None:
        """End the wait for bytes of the request that holds the upload."""
        if self._receive_timeout is not None:
            self._receive_timeout.reschedule(0)
