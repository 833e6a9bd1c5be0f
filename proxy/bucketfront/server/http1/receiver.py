"""The receiving side of a connection: what the next bytes of its client belong to. It does no I/O.

Theory of operation
-------------------
`Receiver` cuts the client's bytes into pieces, which the connection feeds to a parser one at a time. A piece ends where
a head or a body may end. The parser finds these ends as well, and both must agree (docs/invariants.md#one-framing): the
connection reports to the receiver what the parser has found in each piece.

`ReceiveState` changes only in `advance`, by this table:

              BODY_BEGINS   BODY_ENDS   CLOSE       STOP
    HEADS     BODY          HEADS       ENDING      STOPPED
    BODY      BODY          HEADS       LAST_BODY   STOPPED
    LAST_BODY LAST_BODY     ENDING      LAST_BODY   ENDED
    ENDING    LAST_BODY     ENDING      ENDING      ENDED
    STOPPED   STOPPED       STOPPED     ENDED       STOPPED
    ENDED     ENDED         ENDED       ENDED       ENDED

BODY_BEGINS and BODY_ENDS are events of the framing: a head without a body is a BODY_ENDS. CLOSE means that the proxy
stops. STOP means that the next bytes have no meaning here: the framing is broken, a chunked body had trailers, the
client wants another protocol or has closed its sending side, or the connection closes. In STOPPED all requests that
came before still get their responses.
"""

from enum import Enum, auto

from bucketfront.server.http1.chunked import ChunkedFraming

MAX_HEAD_BYTES = 64 << 10  # the bounds of fields allow 1 MiB

_HEAD_END = b"\r\n\r\n"
_MIN_HEAD_BYTES = len(b"GET / HTTP/1.0")  # between the ends of two heads
_CHUNKED_BYTES = 1 << 70  # stands for the unknown length of a chunked body; the parser refuses so long a Content-Length


class ReceiveState(Enum):
    HEADS = auto()  # the next byte belongs to a head
    BODY = auto()  # the next byte belongs to the body of the newest request
    LAST_BODY = auto()  # as BODY, and the parser sees no byte behind it
    ENDING = auto()  # the newest request is the last; the parser may still hold a part of its body
    STOPPED = auto()  # further bytes are dropped
    ENDED = auto()  # further bytes are dropped, and the response under way is the last


class ReceiveEvent(Enum):
    BODY_BEGINS = auto()
    BODY_ENDS = auto()
    CLOSE = auto()
    STOP = auto()


class BodyVerdict(Enum):
    """How the framing of the newest body compares with what the parser found of it."""

    AGREED = auto()
    TRAILERS = auto()  # it ended with trailers, of which the parser takes the last for a field of the next request
    BROKEN = auto()  # the framing is malformed, or the parser found another end


class ClientEnd(Enum):
    """What it means that the client closes its sending side now."""

    HELD = auto()  # bytes before the end were not parsed yet
    WITHIN_BODY = auto()  # the newest request will never be whole
    BEHIND_REQUEST = auto()  # all requests are whole: the client is done, and has not left (RFC 9112 section 9.6)


TRANSITIONS = {
    state: dict(zip(ReceiveEvent, targets, strict=True))
    for state, targets in {
        ReceiveState.HEADS: (ReceiveState.BODY, ReceiveState.HEADS, ReceiveState.ENDING, ReceiveState.STOPPED),
        ReceiveState.BODY: (ReceiveState.BODY, ReceiveState.HEADS, ReceiveState.LAST_BODY, ReceiveState.STOPPED),
        ReceiveState.LAST_BODY: (
            ReceiveState.LAST_BODY,
            ReceiveState.ENDING,
            ReceiveState.LAST_BODY,
            ReceiveState.ENDED,
        ),
        ReceiveState.ENDING: (ReceiveState.LAST_BODY, ReceiveState.ENDING, ReceiveState.ENDING, ReceiveState.ENDED),
        ReceiveState.STOPPED: (ReceiveState.STOPPED, ReceiveState.STOPPED, ReceiveState.ENDED, ReceiveState.STOPPED),
        ReceiveState.ENDED: (ReceiveState.ENDED,) * 4,
    }.items()
}
_HEADS = ReceiveState.HEADS  # a member of an Enum costs a lookup in the class at each hit
_IN_BODY = (ReceiveState.BODY, ReceiveState.LAST_BODY)
_DROPPING = (ReceiveState.STOPPED, ReceiveState.ENDED)  # tuples, because an Enum's hash is slow
_LAST = (ReceiveState.LAST_BODY, ReceiveState.ENDING, ReceiveState.ENDED)
_OVER = (ReceiveState.ENDING, ReceiveState.STOPPED, ReceiveState.ENDED)


class Receiver:
    """The place in the bytes of one client."""

    __slots__ = ("_body_left", "_chunks", "_head_size", "_parsed_tail", "_state", "_unparsed")

    _state: ReceiveState
    _unparsed: bytes  # while the parser takes no more
    _parsed_tail: bytes  # the last bytes parsed, in which the end of a head may have begun
    _body_left: int  # bytes of the newest body that are still to be parsed; above 0 in BODY and LAST_BODY
    _chunks: ChunkedFraming | None  # of that body
    _head_size: int  # bytes of the next head that were parsed

    def __init__(self) -> None:
        self._state, self._unparsed, self._parsed_tail = ReceiveState.HEADS, b"", b""
        self._body_left, self._head_size = 0, 0
        self._chunks = None

    # --- the state -----------------------------------------------------------------------------------------

    def advance(self, event: ReceiveEvent) -> None:
        self._state = TRANSITIONS[self._state][event]

    def stop(self) -> None:
        """Drop all further bytes, and those that were not parsed yet."""
        self.advance(ReceiveEvent.STOP)
        self._unparsed = b""

    def is_between_requests(self) -> bool:
        """Return whether the next byte begins a request, and no byte of one is here."""
        return self._state is _HEADS and not self._head_size and not self._unparsed

    @property
    def has_begun_next(self) -> bool:
        """Return whether bytes of a further request are here."""
        return bool(self._head_size or self._unparsed)

    @property
    def is_dropping(self) -> bool:
        return self._state in _DROPPING

    @property
    def is_over(self) -> bool:
        """Return whether no further byte will be parsed."""
        return self._state in _OVER

    @property
    def is_stopped(self) -> bool:
        """Return whether all requests that came in get their responses, and the last of these closes the connection."""
        return self._state is ReceiveState.STOPPED

    @property
    def is_at_last_response(self) -> bool:
        """Return whether the response under way is the last, whatever else came in."""
        return self._state in _LAST

    def meaning_of_end(self, *, is_body_paused: bool) -> ClientEnd:
        """Return what an end of the client's bytes means. `is_body_paused`: the parser may hold some of them."""
        if self._unparsed or is_body_paused:
            return ClientEnd.HELD
        return ClientEnd.WITHIN_BODY if self._state in _IN_BODY else ClientEnd.BEHIND_REQUEST

    # --- pieces --------------------------------------------------------------------------------------------

    @property
    def is_in_body(self) -> bool:
        """Return whether the next piece belongs to the newest body."""
        return self._body_left > 0

    def held_and(self, data: bytes) -> bytes:
        """Return all bytes that are to be parsed, with `data` as the last of them."""
        data, self._unparsed = self._unparsed + data, b""
        return data

    def hold(self, rest: bytes) -> None:
        """Keep the bytes that the parser does not take yet, unless it never will."""
        self._unparsed = b"" if self.is_over else rest

    def end_of_piece(self, data: bytes, at: int) -> int:
        """Return where the piece ends that begins at `at`: where a body or a head may end, or at the end of `data`."""
        if not self._body_left:
            return self._end_of_head(data, at)
        return min(at + self._body_left, len(data)) if self._chunks is None else self._chunks.end_of(data, at)

    def parsable(self, piece: bytes) -> bytes:
        """Return the part of the next piece that may be parsed, and count it as a part of the body if it is one.

        It is shorter than the piece if the head is too long.
        """
        if not self._body_left:
            return piece[: MAX_HEAD_BYTES - self._head_size]
        is_end = self._chunks is not None and self._chunks.is_over
        self._body_left = 0 if is_end else max(self._body_left - len(piece), 0)
        if not self._body_left:
            self.advance(ReceiveEvent.BODY_ENDS)
        return piece

    def count_parsed(self, piece: bytes, *, is_of_head: bool) -> None:
        """Note the bytes that were parsed. `is_of_head`: they belong to a head that has not ended."""
        tail = len(_HEAD_END) - 1
        self._parsed_tail = (self._parsed_tail + piece[-tail:])[-tail:]
        self._head_size = self._head_size + len(piece) if is_of_head else 0

    # --- what the parser found -----------------------------------------------------------------------------

    def begin_body(self, length: int | None) -> None:
        """Note the head of a request that has a body of `length` bytes, or None for a chunked one."""
        self._chunks = ChunkedFraming() if length is None else None
        self._body_left = _CHUNKED_BYTES if length is None else length
        self.advance(ReceiveEvent.BODY_BEGINS if self._body_left else ReceiveEvent.BODY_ENDS)

    def is_body_due(self, *, is_whole: bool) -> bool:
        """Return whether the newest body has ended here, and not for the parser (`is_whole`)."""
        return not self._body_left and not is_whole

    def verdict(self, *, is_whole: bool) -> BodyVerdict:
        """Compare the chunks of the newest body with the parser, for which the body `is_whole`."""
        chunks = self._chunks
        if chunks is None:
            return BodyVerdict.AGREED
        if chunks.is_broken or (is_whole and not chunks.is_over):
            return BodyVerdict.BROKEN
        return BodyVerdict.TRAILERS if is_whole and chunks.has_trailers else BodyVerdict.AGREED

    def _end_of_head(self, data: bytes, at: int) -> int:
        """Return the first offset after `at` at which a head may end, or the end of `data` without one."""
        if at == 0:
            begun = (self._parsed_tail + data[: len(_HEAD_END) - 1]).find(_HEAD_END)
            if begun >= 0:
                return begun + len(_HEAD_END) - len(self._parsed_tail)
        end = data.find(_HEAD_END, at + (_MIN_HEAD_BYTES if at else 0))
        return len(data) if end < 0 else end + len(_HEAD_END)
