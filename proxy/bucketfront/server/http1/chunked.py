"""Finds the end of a chunked body, so that aiohttp's parser sees no byte behind it together with the body.

The parser checks the same bytes. A body ends only if both find the same end (docs/invariants.md#one-framing).
"""

import re

from bucketfront.server.http1.framing import MAX_LENGTH

MAX_LINE_BYTES = 8 << 10  # of a chunk's size with its extensions, or of a trailer

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]+)(?:;[^\n]*)?\r\n")  # RFC 9112 section 7.1; the parser checks the extensions


class ChunkedFraming:
    """The place in one chunked body.

    `is_over` is true behind its last byte. `has_trailers` is true if it has a trailer section that is not empty.
    `is_broken` is true once a line is malformed or too long.
    """

    __slots__ = ("_left", "_line", "_was_last_chunk", "has_trailers", "is_broken", "is_over")

    def __init__(self) -> None:
        self._left = 0  # bytes of a chunk with its line end
        self._line = b""  # the begin of a line that is not whole yet
        self._was_last_chunk = False
        self.has_trailers = False
        self.is_broken = False
        self.is_over = False

    def end_of(self, data: bytes, at: int) -> int:
        """Return the offset behind the bytes of the body in `data`, which goes on at `at`.

        It is the end of `data` if the body goes on or is broken.
        """
        while at < len(data) and not (self.is_over or self.is_broken):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
            else:
                at = self._read_line(data, at)
        return len(data) if self.is_broken else at

    def _read_line(self, data: bytes, at: int) -> int:
        """Read a line or a part of it. Return the offset behind it."""
        newline = data.find(b"\n", at, at + MAX_LINE_BYTES + 1)
        end = newline + 1 if newline >= 0 else min(len(data), at + MAX_LINE_BYTES + 1)
        self._line += data[at:end]
        if len(self._line) > MAX_LINE_BYTES:
            self.is_broken = True
        elif newline >= 0:
            line, self._line = self._line, b""
            self._take(line)
        return end

    def _take(self, line: bytes) -> None:
        if self._was_last_chunk:
            self.is_over = line == b"\r\n"
            self.has_trailers = self.has_trailers or not self.is_over
        elif (found := _SIZE_LINE.fullmatch(line)) is None:
            self.is_broken = True
        elif size := int(found[1], 16):
            self._left = size + len(b"\r\n")
            self.is_broken = size > MAX_LENGTH
        else:
            self._was_last_chunk = True
