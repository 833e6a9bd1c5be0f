"""Requests in batches, each of which waits as a whole before the proxy sees it."""

import os
import random
import signal
import socket
import ssl
from collections.abc import Sequence

from load import RANGE_BYTES
from processes import Subject, cpu_seconds, serving

HEADS = 512  # for each connection, different from each other
READ_BYTES = 1 << 20
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
    "Lavf/60.16.100",
)


class Batches:
    """A connection for each request of a batch. `mode` is as in vary.lua, or `head`. `objects` are keys and ETags."""

    def __init__(
        self, subject: Subject, mode: str, size: int, objects: Sequence[tuple[str, str]], count: int, body_length: int
    ) -> None:
        self._subject = subject
        dice = random.Random(4)
        self._heads = [_head(subject, mode, size, *dice.choice(objects), dice) for _ in range(HEADS)]
        self._has_body = mode in ("get", "range")
        self._next = 0
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._body_length = body_length
        self._sockets: list[socket.socket] = []
        for _ in range(count):
            self._sockets.append(_connected(subject))
            self._send(self._sockets[-1])  # at once, because a connection without a request is closed after a while
            self._receive(self._sockets[-1])

    def run(self, batches: int) -> float:
        """Have the proxy serve so many batches. Returns the CPU seconds that it took."""
        pids = serving(self._subject.pid)
        before = sum(map(cpu_seconds, pids))
        for _ in range(batches):
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            for sock in self._sockets:
                self._send(sock)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            for sock in self._sockets:
                self._receive(sock)
        return sum(map(cpu_seconds, pids)) - before

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _send(self, sock: socket.socket) -> None:
        sock.sendall(self._heads[self._next % HEADS])
        self._next += 1

    def _receive(self, sock: socket.socket) -> None:
        got = sock.recv_into(self._buffer)
        head, end, _ = bytes(self._buffer[: min(got, 4096)]).partition(b"\r\n\r\n")
        if not end or not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 206", b"HTTP/1.1 304")):
            raise RuntimeError(f"{self._subject.name} sent {head[:200]!r}")
        left = len(head) + 4 + self._body_length - got
        while left:
            got = sock.recv_into(self._buffer[:left])
            if not got:
                raise RuntimeError(f"{self._subject.name} ended a response early")
            left -= got


def _connected(subject: Subject) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", subject.port), timeout=30)
    if subject.scheme == "http":
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the system's authorities would take longer than the handshake
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock)


def _head(subject: Subject, mode: str, size: int, key: str, etag: str, dice: random.Random) -> bytes:
    """Return a request as a browser behind a CDN sends it."""
    lines = [
        f"{'HEAD' if mode == 'head' else 'GET'} {subject.path(key)} HTTP/1.1",
        "Host: cdn.example.com",
        f"User-Agent: {dice.choice(AGENTS)}",
        "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        "Accept-Language: en-US,en;q=0.9,de;q=0.8",
        "Accept-Encoding: gzip, deflate, br, zstd",
        f"Cookie: session={dice.getrandbits(64):016x}; theme=dark; _ga=GA1.2.{dice.getrandbits(30)}",
        f"X-Forwarded-For: 203.0.113.{dice.randrange(254)}, 10.0.0.{dice.randrange(254)}",
        f"X-Request-Id: {dice.getrandbits(32):08x}-70d4-4f5c-a5bb-{dice.getrandbits(32):08x}",
    ]
    if mode == "range":
        start = dice.randrange(size - RANGE_BYTES)
        lines.append(f"Range: bytes={start}-{start + RANGE_BYTES - 1}")
    if mode == "match":
        lines.append(f"If-None-Match: {etag}")
    return "\r\n".join((*lines, "\r\n")).encode("ascii")
