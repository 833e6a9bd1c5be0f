"""The bytes of the benchmark's objects, as a function of key and offset: any range can be checked without a copy.

A key is `obj-<MiB>` or `obj-<KiB>k`, with any suffix behind a further `-`: `obj-256`, `obj-16k`, `obj-256-second`. Its
content is a random MiB of its own, repeated, with the number of the MiB stamped into each page of 4 KiB. No byte is
zero, so a check finds a hole as reliably as a byte in the wrong place.
"""

import hashlib
import random
import re
from functools import lru_cache

MIB = 1 << 20
PAGE = 4096
DIGITS = 4  # digits of the stamp in base 255: enough for 4 PiB
_NO_ZERO = bytes([0xA5, *range(1, 256)])
_KEY = re.compile(r"obj-([1-9][0-9]*)(k?)(?:-[a-z0-9-]+)?")


def size_of(key: str) -> int | None:
    """Return the bytes of the object with this key, None if there is none."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    return int(found[1]) * (1024 if found[2] else MIB)


@lru_cache(maxsize=1 << 16)
def etag_of(key: str, size: int) -> str:
    """Return the ETag as S3 forms it: an MD5 for objects stored in one piece, the multipart form for larger ones."""
    if size > MIB:
        return f'"{hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()}-2"'
    return f'"{hashlib.md5(block(key, 0)[:size], usedforsecurity=False).hexdigest()}"'


@lru_cache(maxsize=64)
def _tile(key: str) -> bytes:
    return random.Random(key).randbytes(MIB).translate(_NO_ZERO)


@lru_cache(maxsize=320)
def block(key: str, number: int) -> bytearray:
    """Return the MiB `number` of the object, also beyond its end. The caller must not write to it."""
    data = bytearray(_tile(key))
    for digit in range(DIGITS):
        data[digit::PAGE] = bytes([1 + number // 255**digit % 255]) * (MIB // PAGE)
    return data


def first_wrong(key: str, offset: int, data: memoryview) -> int | None:
    """Return the offset of the first wrong MiB, or part of one, in `data` from `offset` of the object."""
    while data:
        number, within = divmod(offset, MIB)
        piece = data[: MIB - within]
        # bytearray.startswith takes any buffer and an offset: a memcmp without a copy, unlike `==` of memoryviews.
        if not block(key, number).startswith(piece, within):
            return offset
        offset += len(piece)
        data = data[len(piece) :]
    return None
