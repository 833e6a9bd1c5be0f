"""Compute checksums piece by piece: those of S3 ("Checking object integrity"), of RFC 3230 and of RFC 9530."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import anycrc
from zlib_ng import zlib_ng

MD5 = "md5"


@dataclass(frozen=True, slots=True)
class Digest:
    """A checksum. `algorithm` is one of ALGORITHMS, `value` its bytes."""

    algorithm: str
    value: bytes


class Hasher(Protocol):
    """A running checksum, as in `hashlib`."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _Cyclic:
    """A CRC of `length` bytes. `step` continues it from its last value."""

    def __init__(self, step: Callable[[bytes | memoryview, int], int], length: int) -> None:
        self._step = step
        self._length = length
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._length, "big")


_CRC32C, _CRC64NVME = anycrc.Model("CRC32-ISCSI"), anycrc.Model("CRC64-NVME")

_MAKERS: dict[str, tuple[int, Callable[[], Hasher]]] = {
    MD5: (16, lambda: hashlib.md5(usedforsecurity=False)),
    "sha1": (20, lambda: hashlib.sha1(usedforsecurity=False)),
    "sha256": (32, hashlib.sha256),
    "sha512": (64, hashlib.sha512),
    "crc32": (4, lambda: _Cyclic(zlib_ng.crc32, 4)),
    "crc32c": (4, lambda: _Cyclic(_CRC32C.calc, 4)),
    "crc64nvme": (8, lambda: _Cyclic(_CRC64NVME.calc, 8)),
}

ALGORITHMS = frozenset(_MAKERS)
"""The algorithms by S3's names in lower case, and `md5`."""


def hasher(algorithm: str) -> Hasher:
    """Return a new running checksum."""
    return _MAKERS[algorithm][1]()


def size_of(algorithm: str) -> int:
    """Return the number of bytes of the algorithm's value."""
    return _MAKERS[algorithm][0]
