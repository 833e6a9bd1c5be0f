"""The bytes of a file into a socket whose other end a thread reads, so that it takes all bytes at once."""

import asyncio
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from proxy_under_test import descriptors_open, pattern, until

from bucketfront.cache.storage import page_cache
from bucketfront.cache.storage.storage import Region
from bucketfront.errors import StoreError
from bucketfront.http.ranges import Span
from bucketfront.server.send.sendfile import MAX_PER_TURN_BYTES, FileSender, SendfileBurst

STRETCH = 64 << 10
COUNT = 16
DATA = pattern(COUNT * STRETCH)
OFFSET = 5000  # of the object in its file, and no multiple of a page


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Region]:
    (tmp_path / "file").write_bytes(bytes(OFFSET) + DATA)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    yield Region(fd, OFFSET, len(DATA))
    os.close(fd)


class Drain:
    """Reads to the end, in a thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.received = bytearray()
        self._sock = sock
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while data := self._sock.recv(1 << 20):
            self.received += data

    def end(self) -> None:
        self._thread.join(10)
        self._sock.close()


@asynccontextmanager
async def drained() -> AsyncIterator[tuple[asyncio.Transport, Drain]]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(DATA))
    ours.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    drain = Drain(theirs)
    try:
        yield transport, drain
    finally:
        transport.close()
        await asyncio.sleep(0)
        drain.end()


async def never(_: Span) -> None:
    raise AssertionError("all of it is in memory")


async def test_a_stretch_a_turn(file: Region) -> None:
    """Each stretch that the client takes at once has a turn of the loop, so that others run in between (I22)."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with drained() as (transport, drain):
        counting = asyncio.create_task(count())
        for number in range(COUNT):
            before = turns
            await FileSender(transport, file, Span(number * STRETCH, (number + 1) * STRETCH), never).run()
            assert turns > before
        counting.cancel()
    assert drain.received == DATA


async def test_a_burst_to_the_end(file: Region) -> None:
    """A burst sends all of its span, reports the offset once, and closes its descriptor."""
    async with drained() as (transport, drain):
        before = descriptors_open()
        ends: list[int] = []
        SendfileBurst(transport.get_extra_info("socket").fileno(), file, Span(5, len(DATA)), ends.append)
        await until(lambda: ends)
        assert ends == [len(DATA)]
        assert descriptors_open() == before
    assert drain.received == DATA[5:]


async def test_a_burst_that_is_ended(file: Region) -> None:
    """A burst that is ended early reports its offset, and sends nothing more."""
    async with drained() as (transport, drain):
        ends: list[int] = []
        burst = SendfileBurst(transport.get_extra_info("socket").fileno(), file, Span(0, len(DATA)), ends.append)
        burst.end()
        for _ in range(5):
            await asyncio.sleep(0)
        assert ends == [0]
    assert not drain.received


async def test_a_burst_meets_the_end_of_the_file(file: Region) -> None:
    """A file that ends early ends the burst there, and the sender that continues reports it (I3)."""
    async with drained() as (transport, drain):
        ends: list[int] = []
        SendfileBurst(
            transport.get_extra_info("socket").fileno(), file, Span(0, len(DATA) + MAX_PER_TURN_BYTES), ends.append
        )
        await until(lambda: ends)
        assert ends == [len(DATA)]
    assert drain.received == DATA


async def test_the_file_ends_early(file: Region) -> None:
    """A `sendfile` call that returns less than requested is an error, not the response's end (I3)."""
    async with drained() as (transport, drain):
        file_sender = FileSender(transport, file, Span(0, len(DATA) + 1), never)
        file_sender._step.known = len(DATA) + 1  # it was in memory a moment ago
        with pytest.raises(EOFError):
            await file_sender.run()
        assert file_sender.at == len(DATA)
    assert drain.received == DATA


async def test_a_short_stretch_behind_what_is_buffered(file: Region) -> None:
    """A stretch that ends with the bytes behind the transport's buffer is complete, and not a file that ended early."""
    async with drained() as (transport, drain):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        before = bytes(4 << 20)
        transport.write(before)
        assert transport.get_write_buffer_size()
        file_sender = FileSender(transport, file, Span(0, STRETCH), never)
        await file_sender.run()
        assert file_sender.at == STRETCH
    assert drain.received == before + DATA[:STRETCH]


async def test_a_client_resets_behind_what_is_buffered(file: Region) -> None:
    """A client that resets while the transport still holds bytes ends the sender, and the loop logs nothing (I12)."""
    loop = asyncio.get_running_loop()
    logged: list[object] = []
    loop.set_exception_handler(lambda _, context: logged.append(context))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    transport.write(bytes(32 << 20))
    sending = asyncio.create_task(FileSender(transport, file, Span(0, STRETCH), never).run())
    for _ in range(3):
        await asyncio.sleep(0)  # it waits for the buffer
    assert transport.get_write_buffer_size()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(ConnectionResetError):
        await sending
    await until(transport.is_closing)
    transport.close()
    await asyncio.sleep(0)
    assert logged == []


async def test_bytes_that_are_not_good_any_more(file: Region) -> None:
    """Bytes found corrupt during a response are not sent, because each turn checks (I15)."""
    async with drained() as (transport, drain):
        file_sender = FileSender(transport, file, Span(0, len(DATA)), never, lambda span: span.start == 0)
        with pytest.raises(StoreError):
            await FileSender(transport, file, Span(1, len(DATA)), never, lambda _: False).run()
        await file_sender.run()
    assert drain.received == DATA  # of one turn


async def test_what_was_peeked_stays(file: Region) -> None:
    """Peeking at bytes in memory does not change those that an earlier call returned (I1)."""
    other = next(at for at in range(len(DATA)) if DATA[at] != DATA[0])
    peeked = page_cache.peek(file.fd, file.offset, 100)
    assert peeked is not None
    assert page_cache.is_resident(file.fd, file.locate(Span(other, other + 1)))
    assert bytes(peeked) == DATA[:100]
