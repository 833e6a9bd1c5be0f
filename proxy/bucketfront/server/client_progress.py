"""How long the proxy waits for a client that takes its response slowly (docs/invariants.md#deadlines-everywhere).

Progress is what the client's kernel has acknowledged (`tcpi_bytes_acked` of tcp(7)). The proxy's own kernel is no
measure: it holds megabytes, and takes no more of them until a third is free. A slow reader looks dead there for
minutes.

A client begins with PATIENCE_S seconds. Waiting for it uses them up, and each acknowledged byte adds the time that it
may take at the lowest rate. So a client that stops is cut off PATIENCE_S after its last byte, and one that is too slow
on the whole somewhat later.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bucketfront.server.client_limits import MIN_RATE_BYTES_PER_S

# A kernel with a receive buffer of 6 MiB, Linux's most, opens its window in steps of a sixteenth. A player takes
# 384 KiB of an audio stream with 32 kbit/s in 96 s.
PATIENCE_S = 120.0
LOOK_INTERVAL_S = 10.0  # between two looks at the progress; a look is a system call

_BYTES_ACKED = struct.Struct("=120xQ")  # of struct tcp_info in linux/tcp.h
_TCP_INFO = getattr(socket, "TCP_INFO", -1)  # no option has this number, so macOS refuses it


class Patience:
    """The time that is left for one client. `min_rate` is in bytes per second."""

    def __init__(self, min_rate: int) -> None:
        self._min_rate = min_rate
        self._left = PATIENCE_S
        self._acknowledged: int | None = None  # at the last look

    def left(self, waited: float, acknowledged: int) -> float:
        """Return how many seconds are left.

        `waited` are the seconds since the last call, and `acknowledged` all bytes of the connection.
        """
        gained = 0 if self._acknowledged is None else acknowledged - self._acknowledged
        self._acknowledged = acknowledged
        self._left = min(PATIENCE_S, self._left - waited + gained / self._min_rate)
        return self._left


class ClientWatch:
    """Ends the waits for one response's client once it has taken too little. Only these waits count as its time."""

    def __init__(self, min_rate: int = MIN_RATE_BYTES_PER_S) -> None:
        self._patience = Patience(min_rate)
        self._waited = 0.0  # seconds in earlier waits since the last look

    @asynccontextmanager
    async def wait(self, transport: asyncio.BaseTransport | None) -> AsyncIterator[None]:
        """Wait for the client within the block. Raises TimeoutError if it takes too little."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal began, timer
            now = loop.time()
            left = self._patience.left(self._waited + now - began, acknowledged_bytes(transport))
            self._waited, began = 0.0, now
            if left <= 0:
                deadline.reschedule(now)
            else:
                timer = loop.call_later(min(left, LOOK_INTERVAL_S), look)

        async with asyncio.timeout(None) as deadline:
            timer = loop.call_later(max(0.0, min(LOOK_INTERVAL_S, PATIENCE_S) - self._waited), look)
            try:
                yield
            finally:
                timer.cancel()
                self._waited += loop.time() - began


def abort_if_stalled(transport: asyncio.Transport) -> None:
    """Abort the transport once its client takes too little of what is still to be sent. asyncio would wait for ever."""
    loop, patience = asyncio.get_running_loop(), Patience(MIN_RATE_BYTES_PER_S)
    began = loop.time()

    def look() -> None:
        nonlocal began
        if not transport.get_write_buffer_size():
            return
        now = loop.time()
        left = patience.left(now - began, acknowledged_bytes(transport))
        began = now
        if left <= 0:
            transport.abort()
        else:
            loop.call_later(min(left, LOOK_INTERVAL_S), look)

    loop.call_later(min(LOOK_INTERVAL_S, PATIENCE_S), look)


def acknowledged_bytes(transport: asyncio.BaseTransport | None) -> int:
    """Return the bytes that the client's kernel has acknowledged, or 0 if the connection is closed or no TCP."""
    connection = None if transport is None else transport.get_extra_info("socket")
    try:
        info = b"" if connection is None else connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 128)
    except OSError:
        info = b""
    return int(_BYTES_ACKED.unpack(info)[0]) if len(info) == _BYTES_ACKED.size else 0
