"""Which node of a fleet gets a path: the consistent hashing of nginx, HAProxy and Envoy, as these programs compute it.

`tests/e2e/test_fleet_fronts.py` compares the choices with those of the programs. A ring returns the nodes of a key in
the order in which a front tries them, so that a node that is gone or has too much to do is passed over.
"""

import bisect
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

WORD = 0xFFFFFFFF
NGINX_POINTS = 160  # of a server with the weight 1
HAPROXY_POINTS = 16
HAPROXY_RANGE = 4096  # numbers of points that belong to one id
MAGLEV_SIZE = 65537


class Ring(Protocol):
    """The order of nodes for each key."""

    def order(self, key: bytes) -> Iterator[int]:
        """Yield the numbers of all nodes, the one that has the key first."""


class _Points:
    """A ring of points, each of which belongs to a node."""

    def __init__(self, points: list[tuple[int, int]], count: int) -> None:
        points.sort()
        self._at = [at for at, _ in points]
        self._nodes = [node for _, node in points]
        self._count = count

    def from_point(self, place: int) -> Iterator[int]:
        """Yield each node once, in the order of the points from the one at `place` on."""
        seen: set[int] = set()
        for step in range(len(self._nodes)):
            node = self._nodes[(place + step) % len(self._nodes)]
            if node not in seen:
                seen.add(node)
                yield node
                if len(seen) == self._count:
                    return

    def at_or_after(self, value: int) -> int:
        return bisect.bisect_left(self._at, value) % len(self._at)

    def distance(self, place: int, value: int) -> int:
        return (self._at[place % len(self._at)] - value) & WORD


class Nginx:
    """`hash … consistent`: points by CRC-32 of the server's address, and of the point before."""

    def __init__(self, addresses: Sequence[str], weight: int = 10) -> None:
        points: dict[int, int] = {}
        for node, address in enumerate(addresses):
            host, _, port = address.rpartition(":")
            base = zlib.crc32(f"{host}\0{port}".encode())
            value = 0
            for _ in range(weight * NGINX_POINTS):
                value = zlib.crc32(value.to_bytes(4, "little"), base)
                points.setdefault(value, node)
        self._ring = _Points(list(points.items()), len(addresses))

    def order(self, key: bytes) -> Iterator[int]:
        return self._ring.from_point(self._ring.at_or_after(zlib.crc32(key)))


def sdbm(key: bytes) -> int:
    value = 0
    for byte in key:
        value = (byte + (value << 6) + (value << 16) - value) & WORD
    return value


def avalanche(value: int) -> int:
    """Return HAProxy's full hash of an integer, after Bob Jenkins' mixing of integers."""
    value = (value + 0x7ED55D16 + (value << 12)) & WORD
    value = (value ^ 0xC761C23C) ^ (value >> 19)
    value = (value + 0x165667B1 + (value << 5)) & WORD
    value = ((value + 0xD3A2646C) ^ (value << 9)) & WORD
    value = (value + 0xFD7046C5 + (value << 3)) & WORD
    value = (value ^ 0xB55A4F09) ^ (value >> 16)
    return (value * 3221225473) & WORD


class HAProxy:
    """`hash-type consistent sdbm avalanche`: points by the id of the server. The nearer of two points has the key."""

    def __init__(self, ids: Sequence[int], weight: int = 100) -> None:
        points = [
            (avalanche(number * HAPROXY_RANGE + point), node)
            for node, number in enumerate(ids)
            for point in range(weight * HAPROXY_POINTS)
        ]
        self._ring = _Points(points, len(ids))

    def order(self, key: bytes) -> Iterator[int]:
        value = avalanche(sdbm(key))
        after = self._ring.at_or_after(value)
        before = (-self._ring.distance(after - 1, value)) & WORD
        return self._ring.from_point(after - 1 if before <= self._ring.distance(after, value) else after)


Hash64 = Callable[[bytes, int], int]  # of bytes and a seed


def xxhash64() -> Hash64 | None:
    """Return the hash that Envoy has. Returns None if the package for it is not installed."""
    try:
        import xxhash  # noqa: PLC0415 - optional
    except ImportError:
        return None
    found: Hash64 = xxhash.xxh64_intdigest
    return found


class RingHash:
    """`RING_HASH`: points by the hash of the node's name and the number of the point."""

    def __init__(self, names: Sequence[str], hashed: Hash64, size: int = 4096) -> None:
        each = -(-size // len(names))
        points = [
            (hashed(f"{name}_{point}".encode(), 0), node) for node, name in enumerate(names) for point in range(each)
        ]
        self._hashed = hashed
        self._ring = _Points(points, len(names))

    def order(self, key: bytes) -> Iterator[int]:
        return self._ring.from_point(self._ring.at_or_after(self._hashed(key, 0)))


def _walk(start: int, step: int, size: int) -> Iterator[int]:
    """Yield all places of a table, whose size is a prime number."""
    for turn in range(size):
        yield (start + step * turn) % size


class Maglev:
    """`MAGLEV`: a table in which the nodes take free places in turn, each in an order of its own."""

    def __init__(self, names: Sequence[str], hashed: Hash64, size: int = MAGLEV_SIZE) -> None:
        table = [-1] * size
        walks = []
        for name in names:
            start, step = hashed(name.encode(), 0) % size, hashed(name.encode(), 1) % (size - 1) + 1
            walks.append(_walk(start, step, size))
        free = size
        for node, walk in itertools.cycle(enumerate(walks)):
            if not free:
                break
            table[next(place for place in walk if table[place] < 0)] = node
            free -= 1
        self._hashed = hashed
        self._ring = _Points(list(enumerate(table)), len(names))
        self._size = size

    def order(self, key: bytes) -> Iterator[int]:
        return self._ring.from_point(self._hashed(key, 0) % self._size)
