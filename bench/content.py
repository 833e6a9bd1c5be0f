"""The bytes of the benchmark's objects, as a function of key and offset: any range can be checked without a copy.

A key is `obj-<MiB>` or `obj-<KiB>k`, with any suffix behind a further `-`: `obj-256`, `obj-16k`, `obj-256-second`.
Its content is a random MiB of its own, repeated, with the number of the MiB stamped into each page of 4 KiB. No byte
is zero, so that a hole in a file is found as surely as a byte in the wrong place.
"""

import hashlib
import random
import re
from functools import lru_cache

MIB = 1 << 20
PAGE = 4096
DIGITS = 4  # of the stamp, in base 255: enough for 4 PiB
_NO_ZERO = bytes([0xA5, *range(1, 256)])
_KEY = re.compile(r"obj-([1-9][0-9]*)(k?)(?:-[a-z0-9-]+)?")


def size_of(key: str) -> int | None:
    """Bytes of the object with this key; None where there is none."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    return int(found[1]) * (1024 if found[2] else MIB)


@lru_cache(maxsize=1 << 16)
def etag_of(key: str, size: int) -> str:
    """As S3 has it: the MD5 of what was put in one piece; the larger ones were put in parts."""
    if size > MIB:
        return f'"{hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}-2"'
    return f'"{hashlib.md5(block(key, 0)[:size], usedforsecurity=False).hexdigest()}"'


@lru_cache(maxsize=64)
def _tile(key: str) -> bytes:
    return random.Random(key).randbytes(MIB).translate(_NO_ZERO)


@lru_cache(maxsize=320)
def block(key: str, number: int) -> bytearray:
    """The MiB `number` of the object, as if it went on for ever. Not to be written to."""
    data = bytearray(_tile(key))
    for digit in range(DIGITS):
        data[digit::PAGE] = bytes([1 + number // 255**digit % 255]) * (MIB // PAGE)
    return data


def first_wrong(key: str, offset: int, data: memoryview) -> int | None:
    """The offset of the first MiB, or part of one, in which `data`, said to begin at `offset`, is not the object."""
    while data:
        number, within = divmod(offset, MIB)
        piece = data[: MIB - within]
        # bytearray.startswith takes any buffer and an offset: a memcmp without a copy, which `==` of views is not.
        if not block(key, number).startswith(piece, within):
            return offset
        offset += len(piece)
        data = data[len(piece) :]
    return None
