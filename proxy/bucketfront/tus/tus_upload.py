"""One upload in memory: what S3 has of it, what waits for the next part, and who is busy with it."""

import asyncio
import zlib
from collections.abc import AsyncIterator

from bucketfront.errors import ProxyError
from bucketfront.keys import ObjectKey
from bucketfront.tus.record import Record


class TakenOver(ProxyError):
    """The client's next request came while this one still waited for bytes."""


class TusUpload:
    """`in_file` bytes of the next part are in its file, and `held` follow them in memory, where the disk took no more.

    `checksum` is the CRC-32 of what is in the file.
    """

    def __init__(self, name: str, record: Record, in_file: int = 0, checksum: int = 0) -> None:
        self.id = name
        self.record = record
        self.in_file = in_file
        self.held = bytearray()
        self.checksum = checksum
        self.charged = 0  # bytes taken from the budget, for the record
        self.is_busy = False
        self.is_free = asyncio.Event()  # as long as it is not busy, once it was
        self._wait: asyncio.Timeout | None = None
        self._waits_since = 0.0

    def __repr__(self) -> str:
        # Without its id: whoever knows that may write to it (I28).
        return f"<TusUpload of {self.key}: {self.offset} of {self.length} bytes>"

    @property
    def key(self) -> ObjectKey:
        return self.record.key

    @property
    def length(self) -> int:
        return self.record.length

    @property
    def waiting(self) -> int:
        """Bytes that are here and not at S3."""
        return self.in_file + len(self.held)

    @property
    def room(self) -> int:
        """Bytes that the next part still takes."""
        return min(self.record.part_size, self.length - self.record.sent) - self.waiting

    @property
    def offset(self) -> int:
        """Bytes of the upload that are ours."""
        return self.record.sent + self.waiting

    @property
    def is_whole(self) -> bool:
        """All bytes are ours; whether S3 has made an object of them is another matter."""
        return self.offset == self.length

    @property
    def etag(self) -> str | None:
        """The object's, once it is made."""
        return self.record.etag

    def came(self, data: bytes, *, in_file: bool) -> None:
        """More bytes of the next part are here."""
        assert len(data) <= self.room
        if in_file:
            assert not self.held, "bytes would change places"
            self.in_file += len(data)
            self.checksum = zlib.crc32(data, self.checksum)
        else:
            self.held += data

    async def heard(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same, until somebody calls `interrupt`. Raises TakenOver then."""
        clock = asyncio.get_running_loop().time
        while True:
            self._waits_since = clock()
            try:
                async with asyncio.timeout(None) as self._wait:
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise TakenOver("another request went on with this upload") from None
            finally:
                self._wait = None
            if chunk is None:
                return
            yield chunk

    @property
    def silence(self) -> float:
        """Seconds that the request at work has waited for a byte of its body; 0 where it does not wait for one."""
        return 0.0 if self._wait is None else asyncio.get_running_loop().time() - self._waits_since

    def interrupt(self) -> None:
        """The request at work waits no longer."""
        if self._wait is not None:
            self._wait.reschedule(0)

    def left(self) -> None:
        """What waited has gone to S3, or is lost."""
        self.in_file, self.checksum = 0, 0
        self.held = bytearray()
