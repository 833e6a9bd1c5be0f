"""A relay of TCP between a node and the bus, which cuts the node off."""

import asyncio
import contextlib
from typing import Self

CHUNK = 64 << 10


class BusLink:
    """Listens on a port of loopback, in the loop of the test. An async context manager.

    While it is cut, no byte passes: connections are reset, or with `hangs` they stay open, as if a router had gone.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._passes = asyncio.Event()
        self._passes.set()
        self._refuses = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        self._end()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def cut(self, *, hangs: bool) -> None:
        self._passes.clear()
        self._refuses = not hangs
        if not hangs:
            self._end()

    def heal(self) -> None:
        self._refuses = False
        self._passes.set()

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._refuses:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A callback, because a task that is cancelled before its first step never runs any of its own code.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            self._writers.add(up_writer)
            ways = [asyncio.create_task(self._pass_on(reader, up_writer))]
            ways.append(asyncio.create_task(self._pass_on(up_reader, writer)))
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                up_writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._passes.wait()
            writer.write(data)
            await writer.drain()
