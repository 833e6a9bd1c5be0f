"""Content that identifies itself: a function of (key, version, offset), so that any range is checked without a copy.

Each aligned word of 16 bytes reads `kkkk:vvvv:pppppp`: a hash of the key, the version's number and the word's number,
in digits of base 64. No byte is zero, so a hole in a sparse file shows. A body made of two versions shows both numbers.
"""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

WORD = 16
TILE_BYTES = 64 << 10  # bytes that are generated, and compared, at once
MAX_VERSION = 64**4 - 1
MAX_MD5_BYTES = 8 << 20  # bytes; larger objects have an ETag as of a multipart upload, which is no MD5

_DIGITS = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_VERSION = slice(5, 9)
_PLACE = 10  # index of the word's number in a word
_LOW = 2  # digits of the word's number that differ within a tile
_HIGH = 4
_WORDS = TILE_BYTES // WORD
assert len(_DIGITS) ** _LOW == _WORDS


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    `versions` are the versions of the words found, in order of appearance. `wrong_at` is the object offset of the first
    byte that belongs to no version, else None. `is_hole`: some bytes are zero.
    """

    versions: tuple[int, ...] = ()
    wrong_at: int | None = None
    is_hole: bool = False

    def is_all(self, version: int) -> bool:
        """Return whether every byte is of that version (I1, I2)."""
        return self.wrong_at is None and self.versions in ((), (version,))


def read(key: str, version: int, start: int, stop: int) -> bytes:
    """Return the bytes [start, stop) of a version."""
    return b"".join(pieces(key, version, start, stop))


def pieces(key: str, version: int, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes [start, stop) of a version, at most a tile at a time."""
    while start < stop:
        number, within = divmod(start, TILE_BYTES)
        tile = _tile(key, version, number)
        until = min(TILE_BYTES, within + stop - start)
        yield tile if (within, until) == (0, TILE_BYTES) else tile[within:until]
        start += until - within


def check(key: str, data: bytes, offset: int, expected: int | None = None) -> Finding:
    """Find the versions of `key` to which the bytes at `offset` belong.

    `expected` is the version to compare with if the bytes hold no whole word.
    """
    reading = Reading(key, offset, expected)
    reading.feed(data)
    return reading.finding()


@functools.lru_cache(maxsize=4096)
def etag(key: str, version: int, size: int) -> str:
    """Return the ETag as S3 forms it: the MD5, or above MAX_MD5_BYTES bytes the form of a multipart upload."""
    if size > MAX_MD5_BYTES:
        return f'"{hashlib.md5(f"{key}:{version}:{size}".encode()).hexdigest()}-2"'
    digest = hashlib.md5()
    for piece in pieces(key, version, 0, size):
        digest.update(piece)
    return f'"{digest.hexdigest()}"'


class Reading:
    """A check of bytes that arrive in pieces, from `offset` in the object on."""

    def __init__(self, key: str, offset: int, expected: int | None = None) -> None:
        self._key = key
        self._begin = offset
        self._expected = expected
        self._version: int | None = None  # version of the last whole word
        self._versions: dict[int, None] = {}  # in order of appearance
        self._wrong_at: int | None = None
        self._is_hole = False
        self._first = b""  # a word that begins before `offset`
        self._rest = b""  # a word whose end has not arrived
        self._at = offset  # offset of `_rest`
        self._missing = -offset % WORD  # bytes of `_first` that are missing

    def feed(self, data: bytes) -> None:
        if b"\0" in data:
            self._is_hole = True
        if self._missing:
            taken = data[: self._missing]
            self._first += taken
            self._missing -= len(taken)
            self._at += len(taken)
            data = data[len(taken) :]
        data = self._rest + data if self._rest else data
        whole = len(data) - len(data) % WORD
        at = 0
        while at < whole:
            number, within = divmod(self._at + at, TILE_BYTES)
            until = at + min(TILE_BYTES - within, whole - at)
            self._segment(data[at:until], number, within)
            at = until
        self._at += whole
        self._rest = data[whole:]

    def finding(self) -> Finding:
        wrong = [] if self._wrong_at is None else [self._wrong_at]
        versions = tuple(self._versions)
        first, last = (versions[0], self._version) if versions else (self._expected, self._expected)
        for part, offset, version in ((self._first, self._begin, first), (self._rest, self._at, last)):
            differs = _differs(part, self._key, version, offset)
            if differs is not None:
                wrong.append(offset + differs)
        if not versions and not wrong and self._expected is not None and (self._first or self._rest):
            versions = (self._expected,)
        return Finding(versions, min(wrong, default=None), self._is_hole)

    def _segment(self, data: bytes, number: int, within: int) -> None:
        """Check whole words of one tile."""
        if self._version is None:
            self._version = self._named(data[:WORD], number * TILE_BYTES + within)
        if self._version is not None:
            self._versions[self._version] = None
            if _tile(self._key, self._version, number)[within : within + len(data)] == data:
                return
        # Checking word by word is slow. It starts at the first wrong byte, and then only to find versions.
        step = WORD if self._wrong_at is None else len(data)
        for at in range(0, len(data), step):
            offset = number * TILE_BYTES + within + at
            word = data[at : at + WORD]
            version = self._named(word, offset)
            if version is not None:
                self._version = version
                self._versions[version] = None
            elif self._wrong_at is None:
                differs = _differs(word, self._key, self._version, offset)
                self._wrong_at = offset + (differs or 0)

    def _named(self, word: bytes, offset: int) -> int | None:
        """Return the version of a word, None if it belongs to none."""
        version = 0
        for digit in word[_VERSION]:
            value = _VALUES.get(digit)
            if value is None:
                return None
            version = version * len(_DIGITS) + value
        return version if word == _word(self._key, version, offset // WORD) else None


def _differs(part: bytes, key: str, version: int | None, offset: int) -> int | None:
    """Return where a part of a word first differs. For an unknown version any digits are right."""
    if not part:
        return None
    wanted = bytearray(_word(key, version or 0, offset // WORD))
    begin = offset % WORD
    if version is None:
        for at in range(*_VERSION.indices(WORD)):
            if begin <= at < begin + len(part) and part[at - begin] in _VALUES:
                wanted[at] = part[at - begin]
    expected = wanted[begin : begin + len(part)]
    return next((at for at, (was, is_) in enumerate(zip(expected, part, strict=True)) if was != is_), None)


def _digits(number: int, count: int) -> bytes:
    digits = bytearray()
    for _ in range(count):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    assert not number, "too large"
    return bytes(reversed(digits))


@functools.lru_cache(maxsize=4096)
def _tag(key: str) -> bytes:
    return _digits(int.from_bytes(hashlib.md5(key.encode(errors="surrogateescape")).digest()[:3], "big"), 4)


def _word(key: str, version: int, place: int) -> bytes:
    return b"%s:%s:%s" % (_tag(key), _digits(version, 4), _digits(place, _HIGH + _LOW))


@functools.lru_cache(maxsize=1)
def _low_places() -> bytes:
    return b"".join(bytes(_PLACE + _HIGH) + _digits(place, _LOW) for place in range(_WORDS))


@functools.lru_cache(maxsize=256)
def _template(key: str, version: int) -> bytes:
    """Return a tile without the words' numbers. It is built by column, because building it by word is a hundred times
    slower.
    """
    tile = bytearray(_low_places())
    for column, digit in enumerate(_word(key, version, 0)[:_PLACE]):
        tile[column::WORD] = bytes([digit]) * _WORDS
    return bytes(tile)


@functools.lru_cache(maxsize=512)
def _tile(key: str, version: int, number: int) -> bytes:
    tile = bytearray(_template(key, version))
    for column, digit in enumerate(_digits(number, _HIGH), _PLACE):
        tile[column::WORD] = bytes([digit]) * _WORDS
    return bytes(tile)
