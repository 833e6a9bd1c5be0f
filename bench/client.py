"""A client process of the benchmark: it opens connections, reads at full speed and checks every byte on arrival.

A job is a line of JSON on standard input, and its result is a line on standard output. The process ends with its input.
A job: `{"port": …, "path": "/obj-256", "key": "obj-256", "connections": 50, "start": 0, "stop": null, "limit": null,
"buffer": null, "check": true}`.

`start` null: no Range header. `limit`: bytes after which a client leaves. `buffer`: size of a client's receive buffer,
so that few bytes arrive that were not read; null: the kernel's default. `check` false: only the length is checked. The
result is a list, one item per connection: `{"status", "received", "first_byte", "seconds", "error"}`. Seconds count
from before the connection was made.
"""

import json
import selectors
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import content

BUFFER = content.MIB
SILENCE_TIMEOUT_S = 90.0  # seconds without a byte for any client


@dataclass(slots=True)
class Outcome:
    """The result of one connection. `first_byte` is that of the body. `error` is None if all bytes arrived and were
    right.
    """

    status: int = 0
    received: int = 0
    first_byte: float | None = None
    seconds: float = 0.0
    error: str | None = None


class Client:
    def __init__(self, job: dict[str, Any]) -> None:
        self._key: str = job["key"]
        self._start: int = job["start"] or 0
        self._limit: int | None = job["limit"]
        self._check: bool = job["check"]
        self._head = b""
        self._length: int | None = None  # length of the body, once the head has arrived
        self._started = time.perf_counter()
        self.outcome = Outcome()
        lines = [f"GET {job['path']} HTTP/1.1", f"Host: 127.0.0.1:{job['port']}"]
        if job["start"] is not None:
            last = "" if job["stop"] is None else job["stop"] - 1
            lines.append(f"Range: bytes={job['start']}-{last}")
        self._stop: int = content.size_of(self._key) or 0
        if job["stop"] is not None:
            self._stop = job["stop"]
        self.sock = socket.socket()
        if job["buffer"] is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, job["buffer"])
        self.sock.connect(("127.0.0.1", job["port"]))
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        self.sock.setblocking(False)

    def on_readable(self, buffer: memoryview) -> bool:
        """Read the bytes that have arrived. Returns False once this client has finished."""
        try:
            count = self.sock.recv_into(buffer)
        except BlockingIOError:
            return True
        except OSError as error:
            return self._end(str(error))
        if not count:
            return self._end(f"closed after {self.outcome.received} bytes")
        data = buffer[:count]
        if self._length is None:
            self._head += data
            head, separator, rest = self._head.partition(b"\r\n\r\n")
            if not separator:
                return True
            if not self._understood(head.decode("latin-1")):
                return self._end(f"unexpected head: {head[:200]!r}")
            data = memoryview(rest)
        return self._take(data)

    def _understood(self, head: str) -> bool:
        first, *lines = head.split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        self.outcome.status = int(first.split(" ")[1])
        self._length = int(fields.get("content-length", "-1"))
        return self.outcome.status in (200, 206) and self._length == self._stop - self._start

    def _take(self, data: memoryview) -> bool:
        outcome = self.outcome
        if not data:
            return True
        if outcome.first_byte is None:
            outcome.first_byte = time.perf_counter() - self._started
        wrong = content.first_wrong(self._key, self._start + outcome.received, data) if self._check else None
        if wrong is not None:
            return self._end(f"wrong bytes at {wrong} or behind it")
        outcome.received += len(data)
        if outcome.received == self._length or (self._limit is not None and outcome.received >= self._limit):
            return self._end(None)
        return True

    def _end(self, error: str | None) -> bool:
        self.outcome.error = error
        self.outcome.seconds = time.perf_counter() - self._started
        self.sock.close()
        return False


def run(job: dict[str, Any]) -> list[Outcome]:
    buffer = memoryview(bytearray(BUFFER))
    clients = [Client(job) for _ in range(job["connections"])]
    left = len(clients)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
        while left:
            ready = selector.select(SILENCE_TIMEOUT_S)
            if not ready:
                break
            for key, _ in ready:
                if not key.data.on_readable(buffer):
                    selector.unregister(key.fileobj)
                    left -= 1
    for client in clients:
        if client.sock.fileno() >= 0:
            client.outcome.error = f"no byte for {SILENCE_TIMEOUT_S:g} s after {client.outcome.received} bytes"
            client.sock.close()
    return [client.outcome for client in clients]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps([asdict(outcome) for outcome in run(json.loads(line))]), flush=True)
