"""A link of TCP between a program that uploads and bucketfront, which breaks or stops at chosen bytes."""

import asyncio
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from site_under_test import TIMEOUT_S

CHUNK = 64 << 10
POLL_S = 0.005
_RESET = struct.pack("ii", 1, 0)  # of SO_LINGER: close with a reset


class UploadLink:
    """A relay of bytes in a thread of its own. A context manager.

    `sent` counts the bytes from the program, of all connections together. At each count of `resets`, both ends of the
    connection are reset, once bucketfront has read what was sent: the kernel drops unread bytes of a connection that is
    reset, and has room for megabytes. At `hold`, no more bytes pass until `release`.
    """

    def __init__(self, url: str, *, resets: Sequence[int] = (), hold: int | None = None) -> None:
        self.sent = 0
        self.resets = list(resets)
        self._hold = hold
        self._held = threading.Event()
        self._released = threading.Event()
        self._upstream = urlsplit(url).port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upload link")
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(TIMEOUT_S)
        return self

    def __exit__(self, *exception: object) -> None:
        self._released.set()
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_until_held(self) -> None:
        assert self._held.wait(TIMEOUT_S), f"only {self.sent} bytes came"

    def release(self) -> None:
        self._released.set()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A callback, because a task that is cancelled before its first step never runs any of its own code.
        task.add_done_callback(lambda _: writer.close())

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            down = asyncio.create_task(self._pass_on(up_reader, writer))
            try:
                await self._count(reader, up_writer)
                await down
            except ConnectionResetError:
                for end in (writer, up_writer):
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    end.transport.abort()
            finally:
                down.cancel()
                await asyncio.gather(down, return_exceptions=True)
                up_writer.close()
        except (OSError, asyncio.CancelledError):
            pass  # a program may close with a reset, and only `_stop` cancels

    async def _count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
            self.sent += len(data)
            if self.resets and self.sent >= self.resets[0]:
                self.resets.pop(0)
                await _until_read(writer)
                raise ConnectionResetError
            if self._hold is not None and self.sent >= self._hold:
                self._hold = None
                self._held.set()
                await asyncio.to_thread(self._released.wait, TIMEOUT_S)
        writer.write_eof()

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()


async def _until_read(writer: asyncio.StreamWriter) -> None:
    """Wait until the other end, a socket of this machine, has read all that was sent to it."""
    ports = (writer.get_extra_info("sockname")[1], writer.get_extra_info("peername")[1])
    async with asyncio.timeout(TIMEOUT_S):
        while _unread(*ports):  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(POLL_S)


def _unread(sender: int, receiver: int) -> int:
    """Return the bytes between two ports of this machine that were sent and not read (proc_net_tcp(5))."""
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ends = int(fields[1][-4:], 16), int(fields[2][-4:], 16)
        unacknowledged, unread = (int(queue, 16) for queue in fields[4].split(":"))
        if ends == (sender, receiver):
            count += unacknowledged
        elif ends == (receiver, sender):
            count += unread
    return count
